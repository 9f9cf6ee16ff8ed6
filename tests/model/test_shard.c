/* shard.c on the shapes of real models: whatever the width, ranks hold every head, row, column and leaf once; cuts fall where quantised
 * weights can be cut; a width that cannot be is refused by name. */
#include "engine/engine.h"
#include "engine/model/shard.h"
#include "tests/support/local_replica.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct shape { const char *name; int32_t layers, d, heads, kv, head_dim, ffn, vocab; };

static const struct shape shapes[] = {
    {"Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256},  {"Llama-3-70B", 80, 8192, 64, 8, 128, 28672, 128256},
    {"Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064},  {"Qwen2.5-72B", 80, 8192, 64, 8, 128, 29568, 152064},
    {"Qwen2.5-0.5B", 24, 896, 14, 2, 64, 4864, 151936},   {"Qwen3-32B", 64, 5120, 64, 8, 128, 25600, 151936},
    {"Mistral-7B", 32, 4096, 32, 8, 128, 14336, 32768},   {"Llama-2-7B", 32, 4096, 32, 32, 128, 11008, 32000},
    {"Yi-34B", 60, 7168, 56, 8, 128, 20480, 64000},       {"Phi-like, heads of 80", 32, 2560, 32, 32, 80, 10240, 51200},
    {"stories260K", 5, 64, 8, 4, 8, 172, 512},            {"tessera-demo", 4, 128, 16, 8, 32, 512, 1536},
    {"one head", 2, 64, 1, 1, 64, 40, 300},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], MAX_WIDTH = 8 };

static struct eng_spec spec_of(const struct shape *m)
{
    struct eng_spec s = {.arch = "llama", .n_layers = m->layers, .d_model = m->d, .n_heads = m->heads, .n_kv_heads = m->kv,
                         .head_dim = m->head_dim, .d_ffn = m->ffn, .n_vocab = m->vocab, .context = 4096};
    snprintf(s.name, sizeof s.name, "%s", m->name);
    return s;
}

/* The ranks of a stage of this width; false when the model does not admit it. */
static bool cut(const struct eng_spec *s, int32_t width, struct eng_shard h[])
{
    struct grid g;
    assert_int_equal(eng_grid_even(&g, s, width, 1), OK);
    for (int32_t r = 0; r < width; r++) {
        enum err e = eng_shard_of(&h[r], s, &g, r);
        assert_true(e == OK || (e == ERR_UNSUPPORTED && r == 0));
        if (e) return false;
    }
    return true;
}

/* The subtrees a rank sends are consecutive and cover its leaves. */
static void nodes_tile(const struct krn_leaves *l)
{
    assert_true(l->n_nodes > 0);
    assert_int_equal(l->nodes[0].a, l->lo);
    assert_int_equal(l->nodes[l->n_nodes - 1].b, l->hi);
    for (int32_t i = 1; i < l->n_nodes; i++) assert_int_equal(l->nodes[i].a, l->nodes[i - 1].b);
}

/* Leaves of one rank: no gap, no overlap, all of its columns. */
static void leaves_tile(const struct krn_leaves *l, int32_t n_cols)
{
    assert_true(l->lo < l->hi && l->hi <= l->n_leaf);
    assert_int_equal(l->cols[0], 0);
    assert_int_equal(l->cols[l->hi - l->lo], n_cols);
    for (int32_t i = 0; i < l->hi - l->lo; i++) assert_true(l->cols[i] < l->cols[i + 1]);
    nodes_tile(l);
}

static void ranks_hold_everything_once(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_SHAPES; m++) {
        struct eng_spec s = spec_of(&shapes[m]);
        printf("%-22s widths", s.name);
        for (int32_t w = 1; w <= MAX_WIDTH; w++) {
            struct eng_shard h[MAX_WIDTH];
            if (!cut(&s, w, h)) continue;
            int32_t kv = 0, q = 0, ffn = 0, vocab = 0, attn_leaf = 0, ffn_leaf = 0;
            for (int32_t r = 0; r < w; r++) {
                assert_int_equal(h[r].q0, q);
                assert_int_equal(h[r].ffn0, ffn);
                assert_int_equal(h[r].embd0, vocab);
                assert_int_equal(h[r].attn.lo, attn_leaf);
                assert_int_equal(h[r].ffn.lo, ffn_leaf);
                /* a query head lies with the KV head it reads; the kernels want as many readers for each */
                int32_t group = s.n_heads / s.n_kv_heads;
                assert_true(h[r].kv0 * group <= h[r].q0 && h[r].q1 <= h[r].kv1 * group);
                assert_true(h[r].kv1 - h[r].kv0 == 1 || h[r].q1 - h[r].q0 == (h[r].kv1 - h[r].kv0) * group);
                assert_true(w > s.n_kv_heads || h[r].kv0 == kv);
                leaves_tile(&h[r].attn, (h[r].q1 - h[r].q0) * s.head_dim);
                leaves_tile(&h[r].ffn, h[r].ffn1 - h[r].ffn0);
                kv = h[r].kv1, q = h[r].q1, ffn = h[r].ffn1, vocab = h[r].embd1;
                attn_leaf = h[r].attn.hi, ffn_leaf = h[r].ffn.hi;
            }
            assert_int_equal(kv, s.n_kv_heads);
            assert_int_equal(q, s.n_heads);
            assert_int_equal(ffn, s.d_ffn);
            assert_int_equal(vocab, s.n_vocab);
            assert_int_equal(attn_leaf, h[0].attn.n_leaf);
            assert_int_equal(ffn_leaf, h[0].ffn.n_leaf);
            printf(" %d", w);
        }
        printf("\n");
    }
}

/* The boundary in the whole tensor of every leaf, from every width, is the one of width 1. */
static void leaves_do_not_depend_on_the_cut(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_SHAPES; m++) {
        struct eng_spec s = spec_of(&shapes[m]);
        struct eng_shard whole, h[MAX_WIDTH];
        assert_true(cut(&s, 1, &whole));
        for (int32_t w = 2; w <= MAX_WIDTH; w++) {
            if (!cut(&s, w, h)) continue;
            for (int32_t r = 0; r < w; r++) {
                assert_int_equal(h[r].attn.n_leaf, whole.attn.n_leaf);
                assert_int_equal(h[r].ffn.n_leaf, whole.ffn.n_leaf);
                for (int32_t i = h[r].attn.lo; i <= h[r].attn.hi; i++)
                    assert_int_equal(h[r].attn.cols[i - h[r].attn.lo] + h[r].q0 * s.head_dim, whole.attn.cols[i]);
                for (int32_t i = h[r].ffn.lo; i <= h[r].ffn.hi; i++)
                    assert_int_equal(h[r].ffn.cols[i - h[r].ffn.lo] + h[r].ffn0, whole.ffn.cols[i]);
            }
        }
    }
}

/* What docs/exactness.md says of leaves, recomputed. */
static void leaves_follow_the_shape_as_documented(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_SHAPES; m++) {
        struct eng_spec s = spec_of(&shapes[m]);
        struct eng_shard h;
        assert_true(cut(&s, 1, &h));
        int32_t per_leaf = s.head_dim % 32 ? 2 : 1, units = (s.d_ffn + 31) / 32, n = s.d_ffn / 256;
        n = n < 16 ? 16 : n > 128 ? 128 : n;
        if (n > units) n = units;
        assert_int_equal(h.attn.n_leaf, (s.n_heads + per_leaf - 1) / per_leaf);
        assert_int_equal(h.ffn.n_leaf, n);
        for (int32_t i = 0; i < n; i++) assert_int_equal(h.ffn.cols[i], (int64_t)i * units / n * 32);
        for (int32_t i = 0; i < h.attn.n_leaf; i++) assert_int_equal(h.attn.cols[i], i * per_leaf * s.head_dim);
    }
}

static void cuts_of_real_shapes_fall_between_units(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_SHAPES; m++) {
        struct eng_spec s = spec_of(&shapes[m]);
        if (s.head_dim < 32) continue; /* F32 files only: weights.c refuses the quantised ones */
        for (int32_t w = 1; w <= MAX_WIDTH; w++) {
            struct eng_shard h[MAX_WIDTH];
            if (!cut(&s, w, h)) continue;
            for (int32_t r = 0; r < w; r++) {
                assert_int_equal(h[r].q0 * s.head_dim % KRN_UNIT, 0);
                assert_int_equal(h[r].ffn0 % KRN_UNIT, 0);
                assert_int_equal(h[r].embd0 % KRN_TILE, 0);
                for (int32_t i = 0; i < h[r].attn.hi - h[r].attn.lo; i++) assert_int_equal(h[r].attn.cols[i] % KRN_UNIT, 0);
                for (int32_t i = 0; i < h[r].ffn.hi - h[r].ffn.lo; i++) assert_int_equal(h[r].ffn.cols[i] % KRN_UNIT, 0);
            }
        }
    }
}

static void even_widths_share_evenly_and_send_one_vector(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_SHAPES; m++) {
        struct eng_spec s = spec_of(&shapes[m]);
        for (int32_t w = 2; w <= MAX_WIDTH; w *= 2) {
            struct eng_shard h[MAX_WIDTH];
            if (s.n_kv_heads % w || s.head_dim < 32 || !cut(&s, w, h)) continue;
            for (int32_t r = 0; r < w; r++) {
                assert_int_equal(h[r].kv1 - h[r].kv0, s.n_kv_heads / w);
                int32_t ffn = h[r].ffn1 - h[r].ffn0, even = s.d_ffn / w;
                assert_true(abs(ffn - even) <= 2 * 256 + 32); /* a leaf or two */
                if ((s.n_heads & (s.n_heads - 1)) == 0) assert_int_equal(h[r].attn.n_nodes, 1);
            }
        }
    }
}

static const struct shape *named(const char *name)
{
    for (size_t m = 0; m < N_SHAPES; m++)
        if (!strcmp(shapes[m].name, name)) return &shapes[m];
    fail_msg("no shape %s", name);
    return NULL;
}

static void refusals_name_the_width(void **state)
{
    (void)state;
    static const struct { const char *model; int32_t width; const char *says[3]; } cases[] = {
        {"Qwen2.5-7B", 29, {"29 tensor ranks", "4 KV heads", "--tp 28"}},
        {"Qwen2.5-0.5B", 15, {"15 tensor ranks", "2 KV heads", "--tp 14"}},
        {"stories260K", 6, {"6 tensor ranks", "4 KV heads", "--tp 4"}},
        {"Phi-like, heads of 80", 17, {"17 tensor ranks", "32 KV heads", "--tp 16"}},
        {"one head", 2, {"2 tensor ranks", "1 KV heads", "--tp 1"}},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct eng_spec s = spec_of(named(cases[i].model));
        struct grid g;
        struct eng_shard h = {.rank = -7};
        assert_int_equal(eng_grid_even(&g, &s, cases[i].width, 1), OK);
        assert_int_equal(eng_shard_of(&h, &s, &g, 0), ERR_UNSUPPORTED);
        assert_int_equal(h.rank, -7);
        for (int32_t k = 0; k < 3; k++)
            if (!strstr(err_text(), cases[i].says[k])) fail_msg("'%s' does not say '%s'", err_text(), cases[i].says[k]);
    }
}

static void grids_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct eng_spec s = spec_of(named("tessera-demo"));
    struct grid g = {.n_stages = 77};
    assert_int_equal(eng_grid_even(&g, &s, 1, 5), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "--pp 4"));
    assert_int_equal(eng_grid_even(&g, &s, 0, 1), ERR_BAD_CONFIG);
    assert_int_equal(eng_grid_even(&g, &s, 1, 0), ERR_BAD_CONFIG);
    assert_int_equal(eng_grid_even(&g, &s, 1 << 20, 1 << 20), ERR_BAD_CONFIG);
    assert_int_equal(g.n_stages, 77);
}

static void stages_hold_every_layer_once(void **state)
{
    (void)state;
    for (size_t m = 0; m < N_SHAPES; m++) {
        struct eng_spec s = spec_of(&shapes[m]);
        for (int32_t pp = 1; pp <= MIN(s.n_layers, 6); pp++) {
            struct grid g;
            int32_t tp = MIN(s.n_kv_heads, 2), layer = 0;
            assert_int_equal(eng_grid_even(&g, &s, tp, pp), OK);
            assert_int_equal(grid_ranks(&g), tp * pp);
            for (int32_t r = 0; r < tp * pp; r++) {
                struct eng_shard h;
                assert_int_equal(eng_shard_of(&h, &s, &g, r), OK);
                assert_int_equal(h.stage, r / tp);
                assert_int_equal(h.tp_rank, r % tp);
                assert_int_equal(h.stage_first_rank, r / tp * tp);
                assert_int_equal(h.first, h.stage == 0);
                assert_int_equal(h.last, h.stage == pp - 1);
                assert_int_equal(h.layer0, layer);
                assert_true(h.layer1 > h.layer0);
                if (h.tp_rank == tp - 1) layer = h.layer1;
            }
            assert_int_equal(layer, s.n_layers);
        }
    }
}

/* Stages may be of unlike widths. */
static void unlike_stages_are_numbered_stage_by_stage(void **state)
{
    (void)state;
    struct eng_spec s = spec_of(named("Llama-3-70B"));
    struct grid g = {.n_stages = 3, .layers = {0, 48, 64, 80}, .width = {3, 1, 2}};
    static const int32_t stage[] = {0, 0, 0, 1, 2, 2}, tp[] = {0, 1, 2, 0, 0, 1};
    assert_int_equal(grid_ranks(&g), 6);
    for (int32_t r = 0; r < 6; r++) {
        struct eng_shard h;
        assert_int_equal(eng_shard_of(&h, &s, &g, r), OK);
        assert_int_equal(h.stage, stage[r]);
        assert_int_equal(h.tp_rank, tp[r]);
        assert_int_equal(h.tp_width, g.width[stage[r]]);
        assert_int_equal(h.stage_first_rank, r - tp[r]);
        assert_int_equal(eng_shard_kv_block_bytes(&h, &s, KV_F16, 4096),
                         (int64_t)(h.kv1 - h.kv0) * 128 * 16 * 2 * 2 * (h.layer1 - h.layer0));
    }
}

/* Shares as they are given, and refused when they do not add up or part what lies together. */
static void shares_are_carried_out_or_refused_by_name(void **state)
{
    (void)state;
    struct eng_spec s = spec_of(named("Llama-3-70B"));
    struct grid g = {.n_stages = 1, .layers = {0, 80}, .width = {3}, .shared = true,
                     .share = {{24, 36, 2672}, {24, 36, 2672}, {16, 40, 2672}}};
    struct eng_shard h;
    assert_int_equal(eng_shard_of(&h, &s, &g, 2), OK);
    assert_int_equal(h.kv1 - h.kv0, 2);
    assert_int_equal(h.q0, 48);
    assert_int_equal(h.ffn1 - h.ffn0, 40 * 256);
    assert_int_equal(h.embd0, 2 * 2672 * 16);
    assert_int_equal(h.embd1, 128256);
    static const struct { struct grid_share s; const char *says; } bad[] = {
        {{17, 40, 2672}, "query heads"}, {{16, 41, 2672}, "112"}, {{16, 40, 2671}, "8016"}, {{16, 0, 2672}, "FFN leaves"}, {{0, 40, 2672}, "no query head"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        g.share[2] = bad[i].s;
        assert_int_equal(eng_shard_of(&h, &s, &g, 0), ERR_UNSUPPORTED);
        if (!strstr(err_text(), bad[i].says)) fail_msg("'%s' does not say '%s'", err_text(), bad[i].says);
    }
    g.share[1].heads = 20, g.share[2] = (struct grid_share){20, 40, 2672};
    assert_int_equal(eng_shard_of(&h, &s, &g, 0), ERR_UNSUPPORTED); /* a group parted, beside whole ones */
    assert_non_null(strstr(err_text(), "whole groups of 8"));
}

/* Bytes of packed weights that the ranks of a replica hold. */
static void weigh(const char *path, int32_t tp, int64_t bytes[])
{
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .tp = tp, .context = 64};
    assert_int_equal(local_replica_open(&r, &c), OK);
    for (int32_t i = 0; i < tp; i++) bytes[i] = local_replica_weight_bytes(r, i);
    local_replica_close(r);
}

static void each_of_two_ranks_needs_less_than_60_percent(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_F16};
    const struct shape *m = named("tessera-demo");
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        struct random_model model = {.arch = "llama", .n_layer = m->layers, .d_model = m->d, .n_head = m->heads, .n_kv_head = m->kv,
                                     .head_dim = m->head_dim, .d_ffn = m->ffn, .vocab = m->vocab, .tied = true, .type = types[t],
                                     .embd_type = types[t], .seed = 3};
        const char *path = scratch_path(dtype_name(types[t]));
        struct grid one, two;
        struct eng_engine_need whole, half;
        assert_int_equal(random_model_write(&model, path), OK);
        assert_int_equal(eng_engine_grid(path, 1, 1, &one), OK);
        assert_int_equal(eng_engine_grid(path, 2, 1, &two), OK);
        assert_int_equal(eng_engine_need(path, &one, 0, KV_F16, 512, 1024, &whole), OK);
        int64_t held_whole, held[2];
        weigh(path, 1, &held_whole);
        weigh(path, 2, held);
        for (int32_t r = 0; r < 2; r++) {
            assert_int_equal(eng_engine_need(path, &two, r, KV_F16, 512, 1024, &half), OK);
            double weights = (double)half.weight_bytes / (double)whole.weight_bytes;
            double kv = (double)half.block_bytes / (double)whole.block_bytes;
            double opened = (double)held[r] / (double)held_whole, error = (double)held[r] / (double)half.weight_bytes - 1;
            printf("%s rank %d of 2: needs %.1f %% of the weights and %.1f %% of the KV, holds %.1f %%, %+.1f %% of its prediction\n",
                   dtype_name(types[t]), r, 100 * weights, 100 * kv, 100 * opened, 100 * error);
            assert_true(weights < 0.6 && opened < 0.6 && kv <= 0.5);
            assert_true(error > -0.03 && error < 0.03);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_hold_everything_once),
        cmocka_unit_test(leaves_do_not_depend_on_the_cut),
        cmocka_unit_test(leaves_follow_the_shape_as_documented),
        cmocka_unit_test(cuts_of_real_shapes_fall_between_units),
        cmocka_unit_test(even_widths_share_evenly_and_send_one_vector),
        cmocka_unit_test(refusals_name_the_width),
        cmocka_unit_test(grids_that_cannot_be_are_refused),
        cmocka_unit_test(stages_hold_every_layer_once),
        cmocka_unit_test(unlike_stages_are_numbered_stage_by_stage),
        cmocka_unit_test(shares_are_carried_out_or_refused_by_name),
        cmocka_unit_test(each_of_two_ranks_needs_less_than_60_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
