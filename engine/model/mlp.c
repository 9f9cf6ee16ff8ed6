/* mlp.c: the feed-forward sublayer: norm -> gate, up -> SwiGLU -> down. */
#include "engine/model/pass.h"

enum {
    GATE_CHUNK = 8192, /* values of SwiGLU quantised while they are in L1 (the host's) */
};

/* This thread's share of gate = silu(gate) * up, and of what the next product reads of it. */
static void gate_up(const struct eng_model *m, int32_t T, const struct krn_mat *down, int32_t i,
                    int32_t n)
{
    int64_t e0, e1;
    struct krn_act a = eng_pass_act(m, m->gate, T, down->cols, eng_pass_reads(m, down));
    eng_team_range((int64_t)T * down->cols, KRN_UNIT, i, n, &e0, &e1);
    int64_t chunk = m->be->on_host ? GATE_CHUNK : e1 - e0;
    for (int64_t e = e0; e < e1; e += chunk) {
        int64_t end = MIN(e + chunk, e1);
        m->krn->silu_mul(m->gate + e, m->gate + e, m->up + e, end - e);
        eng_pass_prepare_flat(m, &a, e, end);
    }
}

void eng_mlp(const struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = m->spec.d_model;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = eng_pass_act(m, m->h, T, d, eng_pass_reads(m, &l->gate) | eng_pass_reads(m, &l->up));
    eng_pass_norm(m, &in, eng_pass_pending(m, k - 1), l->ffn_norm, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);

    eng_pass_matmul_whole(m, &l->gate, m->h, T, m->gate, i, n);
    eng_pass_matmul_whole(m, &l->up, m->h, T, m->up, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);

    gate_up(m, T, &l->down, i, n);
    eng_pass_lap(m, i, ENG_OP_GATE);
    eng_pass_barrier(m, i);

    eng_pass_matmul(m, &l->down, m->gate, T, &m->shard.ffn, eng_pass_parts(m, k), d, (int64_t)T * d, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
}
