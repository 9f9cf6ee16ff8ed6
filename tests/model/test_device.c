/* A rank on a device gives the CPU's bits: logits and texts of whole models are the same whichever ranks compute on a device, alone,
 * sharing one, or beside CPU ranks. memcmp, no tolerance. TESSERA_CUDA_PLUGIN says which plug-in: the emulated one (tests/cuda_emu) or
 * the real one (label gpu); without a device the test is skipped with the reason. */
#include "base/clock.h"
#include "engine/model/route.h"
#include "tests/cuda_emu/emu_counts.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_SEQ = 2, N_GEN = 3 };

struct variant {
    const char *what;
    int32_t tp, pp, chunk;
    uint64_t on_device;
};
static const struct variant variants[] = {
    {"one device", 1, 1, 0, 1},           {"chunks of 5", 1, 1, 5, 1},
    {"two ranks share a device", 2, 1, 0, 3}, {"CPU and device, tp 2", 2, 1, 0, 2},
    {"CPU then device, pp 2", 1, 2, 0, 2},    {"device then CPU, pp 2", 1, 2, 7, 1},
};

static void make(struct sequence s[N_SEQ], int32_t prompts[N_SEQ][64], int32_t chunk)
{
    static const int32_t lengths[N_SEQ] = {3, 21};
    for (int32_t i = 0; i < N_SEQ; i++) {
        for (int32_t k = 0; k < lengths[i]; k++) prompts[i][k] = (k * 37 + i * 11 + 5) % 250;
        s[i] = (struct sequence){.prompt = prompts[i], .n_prompt = lengths[i], .n_gen = N_GEN, .chunk = chunk, .sampling = sampling_default()};
        s[i].sampling.seed = 1234 + (uint64_t)i;
        s[i].sampling.max_tokens = N_GEN;
    }
    s[0].sampling.temperature = 0;
    s[1].sampling.n_logprobs = 3;
}

static bool whole_experts;

static int32_t run(const char *path, const struct variant *v, enum kv_type kv, bool oracle, struct sequence s[N_SEQ], int32_t prompts[N_SEQ][64])
{
    struct local_replica *r;
    struct step_bounds b;
    struct local_replica_conf c = {.path = path, .tp = v->tp, .pp = v->pp, .context = 64, .n_blocks = 12, .kv_type = kv, .oracle = oracle,
                                   .whole_experts = whole_experts, .max_step_tokens = 48, .on_device = v->on_device};
    if (local_replica_open(&r, &c)) fail_msg("%s: %s", v->what, err_text());
    local_replica_bounds(r, &b);
    make(s, prompts, v->chunk);
    if (sequence_run(r, s, N_SEQ, true)) fail_msg("%s: %s", v->what, err_text());
    local_replica_close(r);
    return b.n_vocab;
}

static void check(const char *name, const char *path, enum kv_type kv, bool oracle, size_t n_variants)
{
    static const struct variant cpu = {"CPU", 1, 1, 0, 0};
    struct sequence base[N_SEQ], s[N_SEQ];
    int32_t pb[N_SEQ][64], ps[N_SEQ][64], v = run(path, &cpu, kv, oracle, base, pb);
    for (size_t k = 0; k < n_variants; k++) {
        run(path, &variants[k], kv, oracle, s, ps);
        for (int32_t i = 0; i < N_SEQ; i++) {
            size_t rows = (size_t)base[i].n_prompt + N_GEN - 1;
            if (memcmp(base[i].logits, s[i].logits, rows * (size_t)v * sizeof(float)))
                fail_msg("%s, %s: sequence %d has other logits", name, variants[k].what, i);
            assert_memory_equal(base[i].tokens, s[i].tokens, (rows + 1) * sizeof(int32_t));
            sequence_free(&s[i]);
        }
    }
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&base[i]);
    printf("%-24s %zu variants, the CPU's bits\n", name, n_variants);
}

static void the_demo_model_has_the_cpus_bits(void **state)
{
    (void)state;
    check("tessera-demo-q8_0", "deploy/models/tessera-demo-q8_0.gguf", KV_F16, false, COUNT_OF(variants));
    check("tessera-demo-f16", "deploy/models/tessera-demo-f16.gguf", KV_F32, false, 1);
}

/* The same bits when the cards sum by NCCL or by direct exchange, which steps of decoding have in their graphs; ranks that cannot go by the host
 * and say why. Where a rank cannot make a graph no rank has one. NCCL: a card's own library, or one that stands in for it (tests/nccl_stub). */
static void cards_that_sum_have_the_cpus_bits(void **state)
{
    (void)state;
    static const struct { int32_t tp; uint64_t on_device; const char *by; bool direct; const char *fail; } cases[] = {
        {2, 3, "nccl", false, NULL}, {3, 7, "nccl", false, NULL}, {2, 1, "rank 1: it computes on no card", false, NULL},
        {2, 3, "direct", true, NULL}, {3, 7, "direct", true, NULL}, {2, 1, "rank 1: it computes on no card", true, NULL},
        {2, 3, "nccl", false, "capture:3"}, {2, 3, "nccl", false, "graph:4"}};
    bool emulated = strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu");
    struct plugin_device_info info[4];
    char why[PLUGIN_TEXT];
    int32_t pb[N_SEQ][64], ps[N_SEQ][64], n, v;
    eng_backend_devices(info, 4, &n, why);
    if (n < 3) skip();
    static const struct variant cpu = {"CPU", 1, 1, 0, 0};
    const char *path = "deploy/models/tessera-demo-q8_0.gguf";
    struct sequence base[N_SEQ], s[N_SEQ];
    v = run(path, &cpu, KV_F16, false, base, pb);
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = path, .tp = cases[k].tp, .context = 64, .n_blocks = 12, .max_step_tokens = 48,
                                       .on_device = cases[k].on_device, .nccl = !cases[k].direct, .direct = cases[k].direct};
        struct eng_engine_info have;
        if (cases[k].fail && !emulated) continue;
        if (cases[k].fail) setenv("CUDA_EMU_FAIL", cases[k].fail, 1);
        enum err e = local_replica_open(&r, &c);
        unsetenv("CUDA_EMU_FAIL");
        if (e) fail_msg("%s", err_text());
        for (int32_t i = 0; i < cases[k].tp; i++) assert_string_equal(local_replica_sums_by(r, i), cases[k].by);
        make(s, ps, 5);
        if (sequence_run(r, s, N_SEQ, true)) fail_msg("%s", err_text());
        local_replica_stop(r);
        for (int32_t i = 0; i < cases[k].tp; i++) {
            local_replica_info(r, i, &have);
            assert_int_equal(have.n_replayed > 0, strlen(cases[k].by) <= strlen("direct") && !cases[k].fail);
        }
        local_replica_close(r);
        for (int32_t i = 0; i < N_SEQ; i++) {
            assert_memory_equal(base[i].logits, s[i].logits, ((size_t)base[i].n_prompt + N_GEN - 1) * (size_t)v * sizeof(float));
            sequence_free(&s[i]);
        }
    }
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&base[i]);
}

/* A card that waits in a sum of a graph, as one that waits in a sum told by itself: the step ends in time, and says the same. Only where the
 * emulation's streams are threads: else nobody is left to notice. */
static void a_sum_that_does_not_come_ends_the_step_in_time(void **state)
{
    enum { TIMEOUT_US = 2500000 };
    static const char said[] = "nccl: another rank has not arrived within 2.5 s";
    static const struct { const char *order, *graphs; } cases[] = {{"hang:1:11", "off"}, {"hang_replayed:1:7", "on"}};
    (void)state;
    if (!getenv("CUDA_EMU_ASYNC")) skip();
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        struct local_replica *r;
        struct sequence s[N_SEQ];
        int32_t prompts[N_SEQ][64];
        struct local_replica_conf c = {.path = "deploy/models/tessera-demo-q8_0.gguf", .tp = 2, .context = 64, .n_blocks = 12, .max_step_tokens = 48, .on_device = 3,
                                       .nccl = true, .timeout_us = TIMEOUT_US};
        setenv("NCCL_STUB", cases[k].order, 1);
        setenv("TESSERA_GRAPHS", cases[k].graphs, 1);
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        unsetenv("TESSERA_GRAPHS");
        make(s, prompts, 5);
        int64_t since = clock_us();
        assert_int_equal(sequence_run(r, s, N_SEQ, true), ERR_DEADLINE);
        struct arena a = {0};
        struct step_result res;
        struct eng_engine_info have;
        assert_int_equal(local_replica_recv(r, &a, &res), ERR_DEADLINE); /* the other rank has ended its step, too */
        assert_true(clock_us() - since >= TIMEOUT_US && clock_us() - since < 20 * TIMEOUT_US);
        if (!strstr(local_replica_why(r, 0), said) && !strstr(local_replica_why(r, 1), said))
            fail_msg("%s: rank 0: %s; rank 1: %s", cases[k].order, local_replica_why(r, 0), local_replica_why(r, 1));
        local_replica_info(r, 0, &have);
        assert_int_equal(have.n_replayed > 0, k == 1);
        local_replica_close(r); /* the cards are free */
        for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&s[i]);
        unsetenv("NCCL_STUB");
    }
}

static void every_family_has_the_cpus_bits(void **state)
{
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    static const enum dtype types[] = {DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_BF16};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(archs); i++) {
        struct random_model m = {.arch = archs[i], .n_layer = 2, .d_model = 256, .n_head = 4, .n_kv_head = 2, .d_ffn = 512, .vocab = 320,
                                 .context = 256, .tied = i == 1, .type = types[i], .embd_type = DTYPE_Q8_0, .seed = 5 + i};
        const char *path = scratch_path("device.gguf");
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(archs[i], path, i % 2 ? KV_Q8_0 : KV_F16, false, 3);
        check("the same, f32 activations", path, KV_F32, true, 1);
    }
}

/* Norms, windows, caps, scales, parallel layers, biases, other gates, a rope of local layers. */
static void other_families_have_the_cpus_bits(void **state)
{
    static const struct random_model models[] = {
        {.arch = "gemma2", .window = 9}, {.arch = "gemma3", .window = 9},    {.arch = "phi2", .rope_dim = 12},
        {.arch = "falcon"},              {.arch = "cohere2", .window = 9},   {.arch = "granite"},
        {.arch = "llama4", .window = 9},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i];
        m.n_layer = !strcmp(m.arch, "gemma3") ? 6 : !strcmp(m.arch, "llama4") ? 4 : 2, m.d_model = 64, m.n_head = 4, m.head_dim = 32, m.d_ffn = 160, m.vocab = 300;
        m.n_kv_head = strcmp(m.arch, "falcon") ? 2 : 1, m.tied = i % 2, m.type = i % 3 == 1 ? DTYPE_Q8_0 : DTYPE_F16, m.embd_type = DTYPE_Q8_0;
        m.seed = 300 + i;
        const char *path = scratch_path("device.gguf");
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(m.arch, path, i % 3 == 2 ? KV_Q8_0 : i % 3 == 1 ? KV_FP8 : KV_F16, false, 1);
    }
}

/* The layers of a small step are a graph, across splits of attention; the same bits, nothing is allocated after opening, and where no graph can
 * be made the steps are computed without. What stands between products is few launches, or, for comparison, an operation each. */
static void steps_of_the_same_shape_are_told_as_one(void **state)
{
    (void)state;
    bool emulated = strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu");
    struct random_model m = {.arch = "llama", .n_layer = 2, .d_model = 64, .n_head = 2, .n_kv_head = 1, .d_ffn = 64, .vocab = 320, .context = 512,
                             .type = DTYPE_Q8_0, .embd_type = DTYPE_F16, .seed = 19};
    const char *path = scratch_path("device.gguf");
    enum { CPU, DEVICE, ONE_BY_ONE, NO_GRAPHS, CANNOT, WAYS, PROMPT = 250, GEN = 14 };
    int32_t ways = emulated ? WAYS : CANNOT, launches[WAYS];
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    int32_t prompt[PROMPT];
    for (int32_t k = 0; k < PROMPT; k++) prompt[k] = (k * 31 + 7) % 250;
    struct sequence s[WAYS];
    for (int32_t d = 0; d < ways; d++) {
        struct local_replica *r;
        struct eng_engine_info info;
        struct local_replica_conf c = {.path = path, .context = 384, .n_blocks = 24, .on_device = d > 0};
        if (d == NO_GRAPHS) setenv("TESSERA_GRAPHS", "off", 1);
        if (d == ONE_BY_ONE) setenv("TESSERA_FUSED", "off", 1);
        if (d == CANNOT) setenv("CUDA_EMU_FAIL", "capture:1", 1);
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        unsetenv("TESSERA_GRAPHS"), unsetenv("TESSERA_FUSED");
        s[d] = (struct sequence){.prompt = prompt, .n_prompt = PROMPT, .n_gen = GEN, .chunk = 100, .sampling = sampling_default()};
        s[d].sampling.max_tokens = GEN;
        if (d && emulated) setenv("CUDA_EMU_FAIL", "malloc:1", 1);
        enum err e = sequence_run(r, &s[d], 1, true);
        unsetenv("CUDA_EMU_FAIL");
        if (e) fail_msg("%s", err_text());
        local_replica_info(r, 0, &info);
        assert_int_equal(info.n_replayed, d == DEVICE || d == ONE_BY_ONE ? GEN : 0); /* all but the prompt's two chunks of 100 */
        launches[d] = info.n_launches;
        local_replica_close(r);
        if (d) assert_memory_equal(s[0].logits, s[d].logits, (PROMPT + GEN - 1) * 320 * sizeof(float));
        if (d) assert_memory_equal(s[0].tokens, s[d].tokens, GEN * sizeof(int32_t));
    }
    for (int32_t d = 0; d < ways; d++) sequence_free(&s[d]);
    printf("launches of a token: %d, one by one %d\n", launches[DEVICE], launches[ONE_BY_ONE]);
    assert_int_equal(launches[DEVICE], 2 * 10 + 1); /* fused.h, and the last sum */
    assert_true(launches[ONE_BY_ONE] > 2 * 20);
}

/* Steps of every number of rows up to 9 and some beyond: rows of padding change nothing, in the cache least of all. */
static void steps_are_rounded_up_to_graphs(void **state)
{
    enum { MOST = 9, GEN = 6 };
    (void)state;
    const char *path = "deploy/models/tessera-demo-q8_0.gguf";
    struct sequence s[2][MOST];
    int32_t prompts[MOST][MOST];
    for (int32_t d = 0; d < 2; d++) {
        struct local_replica *r;
        struct eng_engine_info info;
        struct step_bounds b;
        struct local_replica_conf c = {.path = path, .context = 64, .n_blocks = 4 * MOST, .max_step_tokens = 20, .on_device = (uint64_t)d};
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        local_replica_bounds(r, &b);
        for (int32_t i = 0; i < MOST; i++) { /* they end one after the other */
            for (int32_t k = 0; k <= i; k++) prompts[i][k] = (k * 37 + i * 11 + 5) % 250;
            s[d][i] = (struct sequence){.prompt = prompts[i], .n_prompt = i + 1, .n_gen = GEN + i, .chunk = 2, .sampling = sampling_default()};
            s[d][i].sampling.temperature = 0, s[d][i].sampling.max_tokens = GEN + i;
        }
        if (sequence_run(r, s[d], MOST, true)) fail_msg("%s", err_text());
        local_replica_info(r, 0, &info);
        assert_true(!d || info.n_replayed > MOST);
        local_replica_close(r);
        for (int32_t i = 0; i < MOST && d; i++)
            assert_memory_equal(s[0][i].logits, s[1][i].logits, ((size_t)i + GEN + i) * (size_t)b.n_vocab * sizeof(float));
    }
    for (int32_t i = 0; i < 2 * MOST; i++) sequence_free(&s[i / MOST][i % MOST]);
}

/* Ways to narrow a draw; k 0: as it is. */
struct cut { int32_t k; float p, min, typical, xtc; };

static void narrow(struct sampling *p, const struct cut *c)
{
    if (c->p <= 0) return;
    p->top_k = c->k, p->top_p = c->p, p->min_p = c->min, p->typical_p = c->typical, p->xtc_probability = c->xtc, p->xtc_threshold = 0.1f;
}

static int32_t n_devices(void)
{
    struct plugin_device_info info[4];
    char why[PLUGIN_TEXT];
    int32_t n;
    eng_backend_devices(info, 4, &n, why);
    return n;
}

/* Tokens that are the largest logit, or drawn at a temperature or among the best, are chosen where the logits lie: alone, by slices of ranks of both kinds,
 * and by cards that tell each other what they found. */
static void tokens_are_chosen_on_the_device(void **state)
{
    enum { N = 7, GEN = 8 };
    static const struct { int32_t tp; uint64_t on_device; bool nccl, direct; } cases[] = {
        {1, 0, false, false}, {1, 1, false, false}, {2, 3, false, false}, {2, 2, false, false}, {3, 0, false, false}, {2, 3, false, true}, {3, 7, true, false}};
    static const struct cut cuts[N] = {[2] = {0, 1, 0.02f, 1, 0}, [4] = {20, 0.9f, 0, 1, 0}, [5] = {KRN_TOP, 1, 0.01f, 0.8f, 0}, [6] = {7, 1, 0, 1, 0.9f}};
    (void)state;
    struct sequence s[COUNT_OF(cases)][N] = {{{0}}};
    int32_t prompts[N][16];
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = "deploy/models/tessera-demo-q8_0.gguf", .tp = cases[k].tp, .context = 64, .n_blocks = 2 * N,
                                       .max_step_tokens = 48, .on_device = cases[k].on_device, .nccl = cases[k].nccl, .direct = cases[k].direct};
        if ((c.nccl || c.direct) && n_devices() < c.tp) continue;
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        for (int32_t i = 0; i < N; i++) {
            for (int32_t t = 0; t < 16; t++) prompts[i][t] = (t * 37 + i * 11 + 5) % 250;
            s[k][i] = (struct sequence){.prompt = prompts[i], .n_prompt = 3 + i, .n_gen = GEN, .sampling = sampling_default()};
            s[k][i].sampling.max_tokens = GEN, s[k][i].sampling.seed = 77 + (uint64_t)i;
            s[k][i].sampling.temperature = 0.6f * (float)MIN(i, 3);
            narrow(&s[k][i].sampling, &cuts[i]);
        }
        if (sequence_run(r, s[k], N, false)) fail_msg("%s", err_text());
        local_replica_close(r);
        for (int32_t i = 0; i < N && k; i++) assert_memory_equal(s[0][i].tokens, s[k][i].tokens, (size_t)(3 + i + GEN) * sizeof(int32_t));
    }
    assert_memory_not_equal(s[0][2].tokens, s[0][3].tokens, 3 * sizeof(int32_t));
    for (size_t k = 0; k < COUNT_OF(cases) * N; k++) sequence_free(&s[k / N][k % N]);
}

/* Six sequences by plans that are all there before the first is done, each naming what the one before chooses; the second ends on the way. */
enum { AHEAD_SEQS = 6, AHEAD_GEN = 12, AHEAD_PROMPT = 3, AHEAD_VOCAB = 320 };
typedef int32_t ahead_tokens[AHEAD_GEN][AHEAD_SEQS]; /* what came of each; -1: nothing */

static struct local_replica *ahead_open(const struct local_replica_conf *how)
{
    struct random_model m = {.arch = "llama", .n_layer = 2, .d_model = 64, .n_head = 4, .n_kv_head = 2, .head_dim = 32, .d_ffn = 128, .vocab = AHEAD_VOCAB,
                             .context = 64, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 31};
    struct local_replica *r;
    struct local_replica_conf c = *how;
    c.path = scratch_path("device.gguf");
    if (random_model_write(&m, c.path)) fail_msg("%s", err_text());
    c.context = 64, c.n_blocks = 4 * AHEAD_SEQS, c.max_step_tokens = AHEAD_SEQS * AHEAD_PROMPT;
    if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
    return r;
}

/* The plan of a step: the prompts, then a token of each, as the step before chooses it. */
static void send_step(struct local_replica *r, int32_t n)
{
    static const struct cut cuts[AHEAD_SEQS] = {[3] = {20, 0.9f, 0, 1, 0}, [4] = {KRN_TOP, 0.97f, 0.01f, 0.8f, 0}, [5] = {7, 1, 0, 1, 0.9f}};
    struct step_start starts[AHEAD_SEQS];
    struct step_table tables[AHEAD_SEQS];
    struct step_item items[AHEAD_SEQS];
    struct step_in in[AHEAD_SEQS][AHEAD_PROMPT];
    int32_t ids[AHEAD_SEQS][2], pos = n ? AHEAD_PROMPT + n - 1 : 0, more = n ? 0 : AHEAD_SEQS;
    for (int32_t i = 0; i < AHEAD_SEQS; i++) {
        starts[i] = (struct step_start){.slot = i, .seq_id = (uint64_t)i + 1, .n_prompt = AHEAD_PROMPT, .sampling = sampling_default()};
        starts[i].sampling.temperature = 0.7f * (float)MIN(i, 2), starts[i].sampling.seed = 9, starts[i].sampling.max_tokens = i == 1 ? 7 : AHEAD_GEN;
        narrow(&starts[i].sampling, &cuts[i]);
        for (int32_t k = 0; k < 2; k++) ids[i][k] = 2 * i + k;
        tables[i] = (struct step_table){.slot = i, .n = 2, .ids = ids[i]};
        for (int32_t k = 0; k < AHEAD_PROMPT; k++)
            in[i][k] = n ? (struct step_in){.id = -1, .ref_step = (uint64_t)n, .ref_slot = i} : (struct step_in){.id = 40 * i + k};
        items[i] = (struct step_item){.slot = i, .pos = pos, .n_in = n ? 1 : AHEAD_PROMPT, .out = OUT_SAMPLE, .next = -1, .in = in[i]};
    }
    local_replica_send(r, &(struct step_plan){.epoch = 1, .step = (uint64_t)n + 1, .n_starts = more, .starts = starts, .n_tables = more, .tables = tables,
                                              .n_items = AHEAD_SEQS, .items = items});
}

static void ahead_send(struct local_replica *r)
{
    for (int32_t n = 0; n < AHEAD_GEN; n++) send_step(r, n);
}

/* Up to the first error: *n steps came. */
static enum err ahead_receive(struct local_replica *r, ahead_tokens got, int32_t *n)
{
    enum err rc = OK;
    for (*n = 0; *n < AHEAD_GEN && !rc; *n += !rc) {
        struct arena a = {0};
        struct step_result res;
        rc = local_replica_recv(r, &a, &res);
        if (!rc) assert_int_equal(res.step, *n + 1);
        for (int32_t i = 0; i < AHEAD_SEQS && !rc; i++) got[*n][i] = res.items[i].n_tokens ? res.items[i].tokens[0].id : -1;
        arena_free(&a);
    }
    return rc;
}

/* ahead: how many steps each rank began ahead. */
static void ahead_run(const struct local_replica_conf *how, ahead_tokens got, int64_t ahead[])
{
    int32_t n, ranks = MAX(how->tp, 1);
    struct eng_engine_info info;
    struct local_replica *r = ahead_open(how);
    ahead_send(r);
    if (ahead_receive(r, got, &n)) fail_msg("%s", err_text());
    local_replica_stop(r);
    for (int32_t i = 0; i < ranks; i++) {
        local_replica_info(r, i, &info);
        ahead[i] = info.n_ahead;
    }
    local_replica_close(r);
}

/* A step's inputs are taken from where the one before left its tokens, before the host has them: on a card alone, and on cards that share the model, where
 * a rank may have no rows of the vocabulary, the first or another. Not where the cards do not sum by themselves. */
static void steps_are_begun_before_the_tokens_have_come(void **state)
{
    static const struct grid uneven2 = {.n_stages = 1, .layers = {0, 2}, .width = {2}, .shared = true, .share = {{2, 1, 0}, {2, 3, AHEAD_VOCAB / 16}}},
                             uneven3 = {.n_stages = 1, .layers = {0, 2}, .width = {3}, .shared = true, .share = {{2, 2, 7}, {1, 1, 0}, {1, 1, 13}}};
    static const struct { struct local_replica_conf how; bool ahead; } cases[] = {
        {{.on_device = 1}, true},
        {{.tp = 2, .on_device = 3, .direct = true}, true},
        {{.tp = 2, .grid = &uneven2, .on_device = 3, .direct = true}, true},
        {{.tp = 2, .on_device = 3, .nccl = true}, true},
        {{.tp = 3, .grid = &uneven3, .on_device = 7, .nccl = true}, true},
        {{.tp = 2, .on_device = 3}, false},
        {{.tp = 2, .on_device = 1, .direct = true}, false},
    };
    ahead_tokens want, got;
    int64_t n[3];
    (void)state;
    ahead_run(&(struct local_replica_conf){0}, want, n);
    assert_int_equal(n[0], 0);
    assert_int_equal(want[6][1] >= 0, 1);
    assert_int_equal(want[7][1], -1);
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        const struct local_replica_conf *how = &cases[k].how;
        if (n_devices() < how->tp) continue;
        for (int32_t waits = 0; waits <= cases[k].ahead; waits++) {
            if (waits) setenv("TESSERA_AHEAD", "off", 1);
            ahead_run(how, got, n);
            unsetenv("TESSERA_AHEAD");
            for (int32_t i = 0; i < MAX(how->tp, 1); i++) assert_int_equal(n[i] > 0, cases[k].ahead && !waits);
            assert_memory_equal(want, got, sizeof want);
        }
    }
}

/* Cards that share the model, the next step begun: a peer that does not come to a sum is missed in time, and a card that fails says why, while its peer
 * misses it; what was answered before is right. */
static void a_rank_is_lost_with_the_next_step_begun(void **state)
{
    enum { TIMEOUT_US = 1500000 };
    static const struct { const char *what, *order, *said; } cases[] = {
        {"NCCL_STUB", "hang_replayed:1:34", "another rank has not arrived within 1.5 s"}, /* of 4 in a graph */
        {"NCCL_STUB", "hang_replayed:0:34", "another rank has not arrived within 1.5 s"},
        {"CUDA_EMU_FAIL", "launch:500", "unspecified launch failure"},
    };
    ahead_tokens want, got;
    int64_t n[2];
    int32_t came;
    (void)state;
    if (!getenv("CUDA_EMU_ASYNC")) skip();
    ahead_run(&(struct local_replica_conf){0}, want, n);
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        struct eng_engine_info info;
        struct arena a = {0};
        struct step_result res;
        struct local_replica *r = ahead_open(&(struct local_replica_conf){.tp = 2, .on_device = 3, .nccl = true, .timeout_us = TIMEOUT_US});
        setenv(cases[k].what, cases[k].order, 1);
        int64_t since = clock_us();
        ahead_send(r);
        assert_true(ahead_receive(r, got, &came));
        while (!local_replica_recv(r, &a, &res)) arena_free(&a); /* the lead may have answered one more before it, too, has ended */
        unsetenv(cases[k].what);
        assert_true(clock_us() - since < 20 * TIMEOUT_US);
        if (!strstr(local_replica_why(r, 0), cases[k].said) && !strstr(local_replica_why(r, 1), cases[k].said))
            fail_msg("%s: rank 0: %s; rank 1: %s", cases[k].order, local_replica_why(r, 0), local_replica_why(r, 1));
        assert_true(came >= 2 && came <= AHEAD_GEN - 2);
        assert_memory_equal(want, got, (size_t)came * sizeof want[0]);
        local_replica_stop(r);
        for (int32_t i = 0; i < 2; i++) {
            local_replica_info(r, i, &info);
            assert_true(info.n_ahead > 1);
        }
        local_replica_close(r);
    }
}

/* What the host asked of the emulated cards meanwhile. */
static struct cuda_emu_counts counted(void)
{
    struct cuda_emu_counts n = {0};
    void *lib = dlopen(getenv("TESSERA_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
    cuda_emu_counted_fn *f = lib ? (cuda_emu_counted_fn *)dlsym(lib, "cuda_emu_counted") : NULL;
    if (f) f(&n);
    if (lib) dlclose(lib);
    return n;
}

/* Once it is ready a rank allocates nothing of its card and makes no graph. Alone it does not even wait, since the card writes the tokens to the host, which
 * looks for them; a rank of a pipeline waits for what it hands on; ranks that share a model at most three times: for their best, for what is drawn with
 * the best of all, and for what they gather. */
static void steps_allocate_nothing_and_wait_for_little(void **state)
{
    static const struct { const char *what; int32_t tp, pp; uint64_t on_device; bool nccl, direct, experts; int32_t most; } cases[] = {
        {"alone", 1, 1, 1}, {"experts", 1, 1, 1, .experts = true}, {"direct", 2, 1, 3, .direct = true, .most = 6},
        {"nccl", 2, 1, 3, .nccl = true, .most = 6}, {"a pipeline", 1, 2, 3, .most = 2}};
    enum { FIRST = 3 };
    struct plugin_device_info info[4];
    char why[PLUGIN_TEXT];
    int32_t n_devices;
    struct random_model m = {.arch = "qwen3moe", .n_layer = 2, .d_model = 96, .n_head = 4, .head_dim = 32, .n_kv_head = 2, .d_ffn = 96, .vocab = 300,
                             .n_expert = 6, .n_used = 2, .d_expert = 96, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 12};
    const char *path = scratch_path("device.gguf");
    (void)state;
    if (!strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu")) skip();
    eng_backend_devices(info, 4, &n_devices, why);
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = cases[k].experts ? path : "deploy/models/tessera-demo-q8_0.gguf", .tp = cases[k].tp, .pp = cases[k].pp,
                                       .context = 64, .n_blocks = 4 * AHEAD_SEQS, .max_step_tokens = 48, .on_device = cases[k].on_device,
                                       .nccl = cases[k].nccl, .direct = cases[k].direct};
        struct cuda_emu_counts from = {0}, to;
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        for (int32_t n = 0; n < AHEAD_GEN; n++) {
            struct arena a = {0};
            struct step_result res;
            if (n == FIRST) from = counted();
            send_step(r, n);
            if (local_replica_recv(r, &a, &res)) fail_msg("%s", err_text());
            arena_free(&a);
        }
        to = counted();
        printf("%s: the host waited %.1f times a step for its cards\n", cases[k].what, (double)(to.waits - from.waits) / (AHEAD_GEN - FIRST));
        assert_int_equal(to.allocations, from.allocations);
        assert_int_equal(to.captures, from.captures);
        assert_true(to.waits - from.waits <= (uint64_t)(AHEAD_GEN - FIRST) * (uint64_t)cases[k].most);
        assert_true(to.replays - from.replays >= AHEAD_GEN - FIRST);
        local_replica_close(r);
    }
}

/* A router's choice on the device is the host's: every kind of gate, with a shift, with groups, with ties. */
static void choices_of_experts_equal_the_hosts(void **state)
{
    enum { T = 3, MOST = 300 };
    static const struct eng_experts kinds[] = {
        {.n = 8, .used = 2, .gating = ENG_GATING_SOFTMAX, .renorm = true, .scale = 1},
        {.n = 128, .used = 8, .gating = ENG_GATING_SOFTMAX, .scale = 1, .d_shared = 1, .shared_gated = true},
        {.n = 300, .used = 300, .gating = ENG_GATING_SOFTMAX_CHOSEN, .scale = 1.5f, .d_shared = 1},
        {.n = 256, .used = 8, .gating = ENG_GATING_SIGMOID, .renorm = true, .scale = 2.5f, .n_groups = 8, .groups_used = 4},
        {.n = 64, .used = 6, .gating = ENG_GATING_SOFTMAX, .scale = 16, .n_groups = 8, .groups_used = 3},
        {.n = 256, .used = 4, .gating = ENG_GATING_SIGMOID, .renorm = true, .scale = 1, .n_groups = 128, .groups_used = 3},
        {.n = 16, .used = 1, .gating = ENG_GATING_SIGMOID_CHOSEN, .scale = 1, .d_shared = 1},
    };
    struct eng_backend *be;
    (void)state;
    if (eng_backend_open(&be, "cuda:0", "ref")) fail_msg("%s", err_text());
    for (size_t k = 0; k < COUNT_OF(kinds); k++)
        for (int shifted = 0; shifted < 2; shifted++) {
            struct eng_experts x = kinds[k];
            float logits[T * MOST], shift[MOST], shared[T] = {0.5f, -2, 3}, want[T * MOST], got[T * MOST];
            int32_t ids[T * MOST], got_ids[T * MOST], n = x.n, u = x.used;
            void *d[5];
            x.n_groups = MAX(x.n_groups, 1);
            for (int32_t i = 0; i < T * n; i++) logits[i] = (float)((i * 2654435761u >> 20) % 64) / 16 - 2; /* few values: ties */
            for (int32_t i = 0; i < n; i++) shift[i] = (float)(i * 7 % 13) / 8;
            const void *from[] = {logits, shift, shared, NULL, NULL};
            const int64_t bytes[] = {T * n * 4, n * 4, T * 4, T * u * 4, T * u * 4};
            for (int i = 0; i < 5; i++)
                if (eng_backend_alloc(be, ENG_MEMORY_STEP, &d[i], bytes[i]) || (from[i] && eng_backend_upload(be, d[i], from[i], bytes[i]))) fail_msg("%s", err_text());
            eng_backend_experts(be)->route(&(struct krn_route){
                .logits = d[0], .shift = shifted ? d[1] : NULL, .shared = x.d_shared ? d[2] : NULL, .ids = d[3], .weights = d[4], .n_tok = T, .n = n, .used = u,
                .n_groups = x.n_groups, .groups_used = x.groups_used, .gating = (enum krn_gating)(x.gating - ENG_GATING_SOFTMAX), .renorm = x.renorm,
                .shared_gated = x.shared_gated, .scale = x.scale});
            if (eng_backend_download(be, got_ids, d[3], bytes[3]) || eng_backend_download(be, got, d[4], bytes[4])) fail_msg("%s", err_text());
            for (int32_t t = 0; t < T; t++) eng_route(&x, logits + t * n, shifted ? shift : NULL, ids + t * u, want + t * u);
            assert_memory_equal(ids, got_ids, (size_t)(T * u) * sizeof *ids);
            assert_memory_equal(want, got, (size_t)(T * u) * sizeof *want);
            if (!x.d_shared) continue;
            if (eng_backend_download(be, got, d[2], bytes[2])) fail_msg("%s", err_text());
            for (int32_t t = 0; t < T; t++) assert_true(got[t] == (x.shared_gated ? 1.0f / (1.0f + krn_exp(-shared[t])) : 1.0f));
        }
    eng_backend_close(be);
}

/* The host takes no part in a layer's experts: steps of one sequence, a token each, are graphs, in which nothing comes over. */
static void check_graphs(const char *path)
{
    struct local_replica *r;
    struct eng_engine_info info;
    struct sequence s = {.prompt = (int32_t[]){5, 6, 7}, .n_prompt = 3, .n_gen = 4, .chunk = 1, .sampling = sampling_default()};
    s.sampling.max_tokens = 4;
    if (local_replica_open(&r, &(struct local_replica_conf){.path = path, .context = 64, .n_blocks = 12, .whole_experts = whole_experts, .max_step_tokens = 48,
                                                            .on_device = 1}) ||
        sequence_run(r, &s, 1, false))
        fail_msg("%s", err_text());
    local_replica_info(r, 0, &info);
    assert_int_equal(info.n_replayed, 6);
    local_replica_close(r);
    sequence_free(&s);
}

/* Experts: the choice is made on the device, products of few tokens go slot by slot, of more by experts; shared experts, biases, sinks; weights
 * that multiply inputs; more leaves than a product has nodes; matrices of two types among a layer's experts, by codes and by values; whole experts,
 * more of them than leaves and fewer. Steps are graphs. */
static void experts_have_the_cpus_bits(void **state)
{
    static const struct { struct random_model m; bool whole; size_t n_variants; } models[] = {
        {{.arch = "llama", .type = DTYPE_Q8_0}, .n_variants = 4},
        {{.arch = "qwen2moe", .d_shared = 96, .type = DTYPE_F16}, .n_variants = 1},
        {{.arch = "qwen3moe", .type = DTYPE_Q4_0}, .n_variants = 1},
        {{.arch = "olmoe", .type = DTYPE_Q8_0}, .n_variants = 1},
        {{.arch = "gpt-oss", .window = 9, .type = DTYPE_Q8_0}, .n_variants = 1},
        {{.arch = "llama", .type = DTYPE_Q8_0, .d_expert = 24 * 256 + 32}, .n_variants = 1},
        {{.arch = "llama4", .window = 9, .d_shared = 96, .moe_step = 2, .type = DTYPE_Q8_0}, .n_variants = 1},
        {{.arch = "llama", .type = DTYPE_Q4_0, .other_type = DTYPE_Q8_0}, .n_variants = 3},
        {{.arch = "qwen2moe", .d_shared = 96, .type = DTYPE_Q8_0, .other_type = DTYPE_F16}, .n_variants = 1},
        {{.arch = "llama4", .window = 9, .moe_step = 2, .type = DTYPE_Q8_0, .other_type = DTYPE_BF16}, .n_variants = 1},
        {{.arch = "qwen2moe", .d_shared = 96, .type = DTYPE_Q8_0}, .whole = true, .n_variants = 4},
        {{.arch = "gpt-oss", .window = 9, .type = DTYPE_Q8_0}, .whole = true, .n_variants = 3},
        {{.arch = "llama", .type = DTYPE_Q8_0, .other_type = DTYPE_F16, .d_expert = 32 * 12}, .whole = true, .n_variants = 3},
        {{.arch = "llama4", .window = 9, .d_shared = 96, .moe_step = 2, .type = DTYPE_Q8_0}, .whole = true, .n_variants = 1},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i].m;
        char name[64];
        if (!m.d_expert) m.d_expert = 96;
        whole_experts = models[i].whole;
        snprintf(name, sizeof name, "%s%s%s", m.arch, whole_experts ? ", whole experts" : "", m.other_type ? ", of two types" : "");
        m.n_expert = 6, m.n_used = 2, m.n_layer = strcmp(m.arch, "llama4") ? 2 : 4, m.d_model = 96, m.n_head = 4, m.head_dim = 32, m.n_kv_head = 2, m.d_ffn = 96;
        m.vocab = 300, m.embd_type = DTYPE_Q8_0, m.seed = 400 + i;
        const char *path = scratch_path("device.gguf");
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(name, path, KV_F16, false, models[i].n_variants);
        if (!i || m.other_type) check("the same, f32 activations", path, KV_F16, true, 1);
        check_graphs(path);
        whole_experts = false;
    }
}

/* Products of heads by themselves, a cache of which values are a part of the keys; splits of it. */
static void latents_have_the_cpus_bits(void **state)
{
    static const struct random_model models[] = {
        {.latent = 64, .rope_part = 16, .type = DTYPE_Q8_0},
        {.latent = 44, .q_latent = 28, .rope_part = 12, .type = DTYPE_F16, .latent_whole = true, .n_expert = 8, .n_used = 3, .d_expert = 96, .d_shared = 96,
         .n_dense = 1, .n_group = 4, .n_group_used = 2, .sigmoid = true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i];
        m.arch = "deepseek2", m.n_layer = 2, m.d_model = 96, m.n_head = 4, m.head_dim = 32, m.n_kv_head = 1, m.d_ffn = 96;
        m.vocab = 300, m.embd_type = DTYPE_Q8_0, m.seed = 700 + i;
        const char *path = scratch_path("device.gguf");
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(i ? "a latent, experts in groups" : "a latent", path, i ? KV_F16 : KV_Q8_0, false, i ? 1 : 4);
    }
}

/* One norm over all heads, whose sums every rank needs; no norm of inputs. Nothing of it is the host's where cards sum, so small steps are graphs. */
static void norms_over_all_heads_have_the_cpus_bits(void **state)
{
    static const struct { int32_t tp; bool nccl, direct; } ways[] = {{1, false, false}, {2, true, false}, {3, false, true}};
    static const struct variant cpu = {"CPU", 1, 1, 0, 0};
    struct plugin_device_info info[4];
    char why[PLUGIN_TEXT];
    int32_t pb[N_SEQ][64], ps[N_SEQ][64], n, v;
    struct sequence base[N_SEQ], s[N_SEQ];
    (void)state;
    struct random_model m = {.arch = "olmo2", .n_layer = 2, .d_model = 128, .n_head = 6, .head_dim = 32, .n_kv_head = 2, .d_ffn = 160, .vocab = 300,
                             .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 500};
    const char *path = scratch_path("device.gguf");
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    check(m.arch, path, KV_F16, false, 4);
    eng_backend_devices(info, 4, &n, why);
    v = run(path, &cpu, KV_F16, false, base, pb);
    for (size_t k = 0; k < COUNT_OF(ways); k++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = path, .tp = ways[k].tp, .context = 64, .n_blocks = 12, .max_step_tokens = 48, .on_device = 7, .nccl = ways[k].nccl,
                                       .direct = ways[k].direct};
        struct eng_engine_info have;
        if (n < ways[k].tp) continue;
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        make(s, ps, 5);
        if (sequence_run(r, s, N_SEQ, true)) fail_msg("%s", err_text());
        local_replica_info(r, 0, &have);
        assert_true(have.n_replayed > 0);
        local_replica_close(r);
        for (int32_t i = 0; i < N_SEQ; i++) {
            assert_memory_equal(base[i].logits, s[i].logits, ((size_t)base[i].n_prompt + N_GEN - 1) * (size_t)v * sizeof(float));
            sequence_free(&s[i]);
        }
    }
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&base[i]);
}

/* --exact off: prompts by tensor cores say nearly the same, and the same again; single tokens the same bits. n: the prompt's tokens. */
static void say_nearly_the_same(enum dtype weights, enum kv_type kv, int32_t n)
{
    enum { MOST = 80, V = 320 };
    const int32_t N = n;
    struct random_model m = {.arch = "llama", .n_layer = 2, .d_model = 128, .n_head = 4, .head_dim = 32, .n_kv_head = 2, .d_ffn = 256, .vocab = V, .context = 256,
                             .type = weights, .embd_type = DTYPE_BF16, .seed = 21};
    const char *path = scratch_path("device.gguf");
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    int32_t prompt[MOST];
    struct sequence s[4];
    double off = 0, size = 0;
    for (int32_t k = 0; k < N; k++) prompt[k] = (k * 31 + 7) % 250;
    for (int32_t d = 0; d < 4; d++) { /* exact, rounded, again, token by token */
        struct local_replica *r;
        struct local_replica_conf c = {.path = path, .context = 96, .n_blocks = 8, .kv_type = kv, .max_step_tokens = 96, .rounded = d > 0, .on_device = 1};
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        s[d] = (struct sequence){.prompt = prompt, .n_prompt = N, .n_gen = 1, .chunk = d == 3 ? 1 : 0, .sampling = sampling_default()};
        s[d].sampling.max_tokens = 1;
        if (sequence_run(r, &s[d], 1, true)) fail_msg("%s", err_text());
        local_replica_close(r);
    }
    for (int32_t i = 0; i < N * V; i++) {
        off += ((double)s[1].logits[i] - (double)s[0].logits[i]) * ((double)s[1].logits[i] - (double)s[0].logits[i]);
        size += (double)s[0].logits[i] * (double)s[0].logits[i];
    }
    assert_true(off > 0 && off < 4e-4 * size);
    assert_memory_equal(s[1].logits, s[2].logits, (size_t)N * V * sizeof(float));
    assert_memory_equal(s[0].logits, s[3].logits, (size_t)N * V * sizeof(float));
    for (int32_t d = 0; d < 4; d++) sequence_free(&s[d]);
}

static void products_that_round_say_nearly_the_same(void **state)
{
    (void)state;
    say_nearly_the_same(DTYPE_BF16, KV_F32, 40);
}

static void attention_that_rounds_says_nearly_the_same(void **state)
{
    (void)state;
    say_nearly_the_same(DTYPE_Q8_0, KV_F16, 80);
}

static void a_prompt_past_a_split_has_the_cpus_bits(void **state)
{
    (void)state;
    struct random_model m = {.arch = "llama", .n_layer = 1, .d_model = 64, .n_head = 2, .n_kv_head = 1, .d_ffn = 64, .vocab = 320, .context = 512,
                             .type = DTYPE_Q8_0, .embd_type = DTYPE_F16, .seed = 9};
    const char *path = scratch_path("device.gguf");
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    int32_t prompt[300];
    for (int32_t k = 0; k < 300; k++) prompt[k] = (k * 31 + 7) % 250;
    struct sequence s[2];
    for (int32_t d = 0; d < 2; d++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = path, .context = 384, .n_blocks = 24, .on_device = (uint64_t)d};
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        s[d] = (struct sequence){.prompt = prompt, .n_prompt = 300, .n_gen = 2, .chunk = 150, .sampling = sampling_default()};
        s[d].sampling.max_tokens = 2;
        if (sequence_run(r, &s[d], 1, true)) fail_msg("%s", err_text());
        local_replica_close(r);
    }
    assert_memory_equal(s[0].logits, s[1].logits, 301 * 320 * sizeof(float));
    sequence_free(&s[0]);
    sequence_free(&s[1]);
}

static void a_device_that_fails_ends_the_step_with_its_reason(void **state)
{
    (void)state;
    struct local_replica *r;
    struct sequence s[N_SEQ];
    int32_t prompts[N_SEQ][64];
    struct local_replica_conf c = {.path = "deploy/models/tessera-demo-q8_0.gguf", .context = 64, .on_device = 1};
    if (!strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu")) skip(); /* only there a launch can be ordered to fail */
    if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
    make(s, prompts, 0);
    setenv("CUDA_EMU_FAIL", "launch:20", 1);
    assert_int_equal(sequence_run(r, s, N_SEQ, true), ERR_SYSTEM);
    unsetenv("CUDA_EMU_FAIL");
    assert_non_null(strstr(err_text(), "unspecified launch failure"));
    local_replica_close(r);
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&s[i]);

    setenv("CUDA_EMU_FAIL", "malloc:4", 1);
    assert_int_equal(local_replica_open(&r, &c), ERR_NO_MEMORY);
    unsetenv("CUDA_EMU_FAIL");
    assert_non_null(strstr(err_text(), "are free"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_model_has_the_cpus_bits),
        cmocka_unit_test(cards_that_sum_have_the_cpus_bits),
        cmocka_unit_test(a_sum_that_does_not_come_ends_the_step_in_time),
        cmocka_unit_test(every_family_has_the_cpus_bits),
        cmocka_unit_test(other_families_have_the_cpus_bits),
        cmocka_unit_test(steps_of_the_same_shape_are_told_as_one),
        cmocka_unit_test(steps_are_rounded_up_to_graphs),
        cmocka_unit_test(tokens_are_chosen_on_the_device),
        cmocka_unit_test(steps_are_begun_before_the_tokens_have_come),
        cmocka_unit_test(steps_allocate_nothing_and_wait_for_little),
        cmocka_unit_test(a_rank_is_lost_with_the_next_step_begun),
        cmocka_unit_test(choices_of_experts_equal_the_hosts),
        cmocka_unit_test(experts_have_the_cpus_bits),
        cmocka_unit_test(latents_have_the_cpus_bits),
        cmocka_unit_test(norms_over_all_heads_have_the_cpus_bits),
        cmocka_unit_test(products_that_round_say_nearly_the_same),
        cmocka_unit_test(attention_that_rounds_says_nearly_the_same),
        cmocka_unit_test(a_prompt_past_a_split_has_the_cpus_bits),
        cmocka_unit_test(a_device_that_fails_ends_the_step_with_its_reason),
    };
    struct plugin_device_info info;
    char why[PLUGIN_TEXT];
    int32_t n;
    eng_backend_devices(&info, 1, &n, why);
    if (!n) {
        printf("SKIP: %s\n", why);
        return 77;
    }
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
