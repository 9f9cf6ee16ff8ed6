/* mlp.c: the dense feed-forward sublayer: norm -> gate, up -> their product -> down. */
#include "engine/model/lora.h"
#include "engine/model/pass.h"

enum {
    GATE_CHUNK = 8192, /* values of the product quantised while they are in L1 (the host's) */
};

/* This thread's share of the product, and of what the next one reads of it. */
static void gate_up(const struct eng_model *m, int32_t T, const struct krn_mat *down, int32_t i,
                    int32_t n)
{
    int64_t e0, e1;
    struct krn_act a = eng_pass_act(m, m->spec.gated ? m->gate : m->up, T, down->cols, eng_pass_reads(m, down));
    if (!m->be->on_host) {
        eng_pass_gated(m, m->gate, m->up, &a);
        return;
    }
    eng_team_range((int64_t)T * down->cols, KRN_UNIT, i, n, &e0, &e1);
    for (int64_t e = e0; e < e1; e += GATE_CHUNK) {
        int64_t end = MIN(e + GATE_CHUNK, e1);
        eng_pass_gate(m, m->gate, m->up, e, end);
        eng_pass_prepare_flat(m, &a, e, end);
    }
}

/* Biases go in before the product, by tokens. */
static void biases(const struct eng_model *m, const struct eng_ffn *f, int64_t t0, int64_t t1, int32_t i)
{
    if (!f->bup && !f->bgate) return;
    if (m->spec.gated) eng_pass_bias(m, m->gate, f->bgate, f->up.rows, t0, t1);
    eng_pass_bias(m, m->up, f->bup, f->up.rows, t0, t1);
    eng_pass_barrier(m, i);
}

void eng_mlp(const struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_ffn *f = &m->weights->layers[k / 2].ffn;
    int32_t T = p->b->n_tok, d = m->spec.d_model;
    bool gated = m->spec.gated;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = eng_pass_act(m, m->h, T, d, (gated ? eng_pass_reads(m, &f->gate) : 0) | eng_pass_reads(m, &f->up));
    eng_pass_enter(m, &in, k, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);

    const struct eng_product in_products[] = {{.w = &f->up, .x = m->h, .y = m->up, .y_stride = f->up.rows},
                                              {.w = &f->gate, .x = m->h, .y = m->gate, .y_stride = f->gate.rows}};
    const struct eng_lora_product adapted[] = {{ADAPTER_UP, m->up, f->up.rows}, {ADAPTER_GATE, m->gate, f->gate.rows}};
    eng_lora_in(m, k / 2, adapted, gated ? 2 : 1, m->h, d, i, n);
    eng_pass_products(m, in_products, gated ? 2 : 1, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);
    if (eng_lora_out(m, k / 2, adapted, gated ? 2 : 1, i, n)) eng_pass_barrier(m, i);

    biases(m, f, t0, t1, i);
    gate_up(m, T, &f->down, i, n);
    eng_pass_lap(m, i, ENG_OP_GATE);
    eng_pass_barrier(m, i);

    const float *x = gated ? m->gate : m->up;
    eng_lora_leaves(m, k, x, f->down.cols, &m->shard.ffn, T, i, n);
    eng_pass_products(m, &(struct eng_product){.w = &f->down, .x = x, .leaves = &m->shard.ffn, .y = eng_pass_parts(m, k), .y_stride = d,
                                               .node_stride = (int64_t)T * d + eng_lora_behind(m, k)}, 1, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
}
