/* The cut does not show: logits and texts are the same bits whatever the tensor width, the stages, the threads, the chunking, the batch
 * neighbours and the instruction set. memcmp, no tolerance.
 *
 * With TESSERA_TEST_ISA=NAME every variant that leaves the choice of kernels open is run with those, and compared with `ref` alone. */
#include "engine/kernels/table.h"
#include "tests/support/hf_write.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_SEQ = 5, N_GEN = 6 };

/* Sequences of unlike lengths and sampling; one has a prompt of several blocks, the last is drawn by slices of the vocabulary. */
static void make(struct sequence s[N_SEQ], int32_t prompts[N_SEQ][64], int32_t n_vocab)
{
    static const int32_t lengths[N_SEQ] = {1, 7, 37, 18, 5};
    for (int32_t i = 0; i < N_SEQ; i++) {
        for (int32_t k = 0; k < lengths[i]; k++) prompts[i][k] = (k * 37 + i * 11 + 5) % MIN(n_vocab, 250);
        s[i] = (struct sequence){.prompt = prompts[i], .n_prompt = lengths[i], .n_gen = N_GEN, .sampling = sampling_default()};
        s[i].sampling.seed = 1234 + (uint64_t)i;
        s[i].sampling.max_tokens = N_GEN;
    }
    s[0].sampling.temperature = 0;
    s[1].sampling.top_p = 0.9f;
    s[1].sampling.n_logprobs = 3;
    s[2].sampling.top_k = 40;
    s[2].sampling.temperature = 0.7f;
    s[2].sampling.repetition_penalty = 1.2f;
    s[3].sampling.min_p = 0.02f;
    s[3].sampling.frequency_penalty = 0.5f;
    s[4].sampling.temperature = 1.3f;
}

struct variant {
    const char *what;
    int32_t tp, pp, threads, chunk;
    bool together;
    const char *isa;
    const struct cut *cut;
};

/* Cuts that no --tp and --pp give: stages of unlike widths, shares in given proportions (one weight per rank; 0: none). */
struct cut { int32_t width[4], weight[8]; };
static const struct cut three_to_one = {{2}, {3, 1}}, one_to_three = {{2}, {1, 3}}, crooked = {{3}, {1, 5, 2}},
                        three_then_two = {{3, 2}, {0}}, one_two_one = {{1, 2, 1}, {1, 4, 1, 1}}, one_then_four = {{1, 4}, {1, 1, 2, 3, 1}};

static const struct variant variants[] = {
    {"2 threads", 1, 1, 2, 0, false, "auto"},   {"chunks of 5", 1, 1, 1, 5, false, "auto"},
    {"chunks of 1", 1, 1, 1, 1, false, "auto"}, {"together", 1, 1, 1, 0, true, "auto"},
    {"together, chunks of 16, 2 threads", 1, 1, 2, 16, true, "auto"},
    {"tp 2", 2, 1, 1, 0, false, "auto"},        {"tp 3", 3, 1, 1, 9, false, "auto"},
    {"tp 4", 4, 1, 1, 0, true, "auto"},         {"tp 8", 8, 1, 1, 0, true, "auto"},
    {"pp 2", 1, 2, 1, 0, true, "auto"},         {"tp 2 x pp 2, 2 threads, chunks of 3", 2, 2, 2, 3, true, "auto"},
    {"avx2", 1, 1, 1, 0, true, "avx2"},         {"ref", 1, 1, 1, 0, true, "ref"},
    {"ref, tp 2", 2, 1, 1, 11, true, "ref"},    {"avx2, tp 4", 4, 1, 2, 4, true, "avx2"},
    {"tp 5", 5, 1, 1, 7, true, "auto"},         {"tp 6", 6, 1, 1, 0, true, "auto"},
    {"tp 7", 7, 1, 1, 0, true, "auto"},         {"tp 16", 16, 1, 1, 12, true, "auto"},
    {"shares 3:1", 0, 0, 1, 0, true, "auto", &three_to_one},
    {"shares 1:3, chunks of 5, 2 threads", 0, 0, 2, 5, true, "auto", &one_to_three},
    {"shares 1:5:2", 0, 0, 1, 9, false, "auto", &crooked},
    {"widths 3, 2", 0, 0, 1, 0, true, "auto", &three_then_two},
    {"widths 1, 2, 1, shares 4:1", 0, 0, 1, 6, true, "auto", &one_two_one},
    {"widths 1, 4, shares 1:2:3:1", 0, 0, 1, 3, true, "auto", &one_then_four},
};

static int32_t vocab_of(struct local_replica *r)
{
    struct step_bounds b;
    local_replica_bounds(r, &b);
    return b.n_vocab;
}

/* n things in proportion to the weights: at least `least` each, whole units. */
static void split(int32_t n, int32_t unit, int32_t width, const int32_t weight[], int32_t out[])
{
    int32_t sum = 0, done = 0, seen = 0, units = n / unit;
    for (int32_t r = 0; r < width; r++) sum += weight[r];
    for (int32_t r = 0; r < width; r++) {
        seen += weight[r];
        int32_t to = MIN(MAX(units * seen / sum, done + 1), units - (width - 1 - r));
        if (r == width - 1) to = units;
        out[r] = (to - done) * unit;
        done = to;
    }
}

/* The grid of a cut for this model; false when it does not admit it. */
static bool grid_of(const char *path, const struct cut *c, struct grid *g)
{
    struct model_info info;
    int32_t first = 0, n = 0;
    if (eng_engine_model_info(path, &info)) fail_msg("%s", err_text());
    while (n < 4 && c->width[n]) n++;
    if (n > info.n_layers) return false;
    *g = (struct grid){.n_stages = n, .shared = c->weight[0] > 0};
    for (int32_t i = 0; i <= n; i++) g->layers[i] = i == n ? info.n_layers : i; /* the last stage has the rest */
    for (int32_t i = 0; i < n; first += g->width[i++]) {
        int32_t w = g->width[i] = c->width[i], heads[8], ffn[8], vocab[8], group = info.n_heads / info.n_kv_heads;
        bool latent = info.latent.rank > 0; /* every rank has it: heads go one by one */
        if (w > info.n_kv_heads && g->shared && !latent) return false;
        if (!g->shared) continue;
        split(info.n_heads, latent ? leaf_heads(info.head_dim) : MAX(group, leaf_heads(info.head_dim)), w, c->weight + first, heads);
        split(leaf_ffn_count(info.d_ffn), 1, w, c->weight + first, ffn);
        split(leaf_vocab_tiles(info.n_vocab), 1, w, c->weight + first, vocab);
        for (int32_t r = 0; r < w; r++) g->share[first + r] = (struct grid_share){heads[r], ffn[r], vocab[r]};
    }
    return true;
}

/* The kernels that variants of "auto" are run with. */
static const char *forced = "auto";
/* How their experts are dealt. */
static bool whole_experts;

/* Run all sequences in a variant; false when the model does not admit the cut or this CPU the instruction set. */
static bool run(const char *path, const struct variant *v, enum kv_type kv, bool oracle, struct sequence s[N_SEQ], int32_t prompts[N_SEQ][64])
{
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .tp = v->tp, .pp = v->pp, .n_threads = v->threads,
                                   .isa = strcmp(v->isa, "auto") ? v->isa : forced, .context = 64, .n_blocks = 24, .kv_type = kv, .oracle = oracle, .whole_experts = whole_experts, .max_step_tokens = 96};
    struct grid g;
    if (v->cut && !grid_of(path, v->cut, &g)) return false;
    if (v->cut) c.grid = &g;
    enum err e = local_replica_open(&r, &c);
    if (e == ERR_UNSUPPORTED || e == ERR_BAD_CONFIG) return false;
    if (e) fail_msg("%s: %s", v->what, err_text());
    make(s, prompts, vocab_of(r));
    for (int32_t i = 0; i < N_SEQ; i++) s[i].chunk = v->chunk;
    if (v->together) e = sequence_run(r, s, N_SEQ, true);
    for (int32_t i = 0; i < N_SEQ && !v->together && !e; i++) e = sequence_run(r, &s[i], 1, true);
    if (e) fail_msg("%s: %s", v->what, err_text());
    local_replica_close(r);
    return true;
}

static void same(const char *model, const char *what, const struct sequence *a, const struct sequence *b, int32_t n_vocab)
{
    for (int32_t i = 0; i < N_SEQ; i++) {
        if (memcmp(a[i].tokens, b[i].tokens, (size_t)(a[i].n_prompt + N_GEN) * sizeof(int32_t)))
            fail_msg("%s, %s: sequence %d has other tokens", model, what, i);
        for (int32_t k = 0; k < a[i].n_prompt + N_GEN - 1; k++)
            for (int32_t x = 0; x < n_vocab; x++) {
                const float *p = a[i].logits + (size_t)k * (size_t)n_vocab + x, *q = b[i].logits + (size_t)k * (size_t)n_vocab + x;
                if (memcmp(p, q, sizeof *p))
                    fail_msg("%s, %s: sequence %d, position %d, logit %d: %a is not %a", model, what, i, k, x, (double)*q, (double)*p);
            }
        for (int32_t k = 0; k < N_GEN; k++)
            if (memcmp(&a[i].chosen[k].logprob, &b[i].chosen[k].logprob, sizeof(float)) ||
                memcmp(a[i].chosen[k].top, b[i].chosen[k].top, sizeof a[i].chosen[k].top))
                fail_msg("%s, %s: sequence %d, token %d has other logprobs", model, what, i, k);
    }
}

static void check(const char *name, const char *path, enum kv_type kv, bool oracle)
{
    const struct variant plain = {"plain", 1, 1, 1, 0, false, strcmp(forced, "auto") ? "ref" : "auto", NULL};
    struct sequence base[N_SEQ], s[N_SEQ];
    int32_t pb[N_SEQ][64], ps[N_SEQ][64], n = 0;
    struct local_replica *r;
    struct local_replica_conf c = {.path = path};
    if (local_replica_open(&r, &c)) fail_msg("%s: %s", name, err_text());
    int32_t n_vocab = vocab_of(r);
    local_replica_close(r);
    assert_true(run(path, &plain, kv, oracle, base, pb));
    for (size_t i = 0; i < COUNT_OF(variants); i++) {
        if (!run(path, &variants[i], kv, oracle, s, ps)) continue;
        same(name, variants[i].what, base, s, n_vocab);
        for (int32_t k = 0; k < N_SEQ; k++) sequence_free(&s[k]);
        n++;
    }
    for (int32_t k = 0; k < N_SEQ; k++) sequence_free(&base[k]);
    printf("%-28s %2d variants, the same bits\n", name, n);
    assert_true(n >= 6);
}

static void every_cut_of_shared_models(void **state)
{
    static const char *const files[] = {"weights/stories260K/derived/stories260K-f32.gguf", "weights/stories260K/derived/stories260K-f16.gguf",
                                        "weights/llama-2-tiny-random.gguf", "weights/stories260K/derived/hf-f32"};
    (void)state;
    char path[4096];
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        const char *p = scratch_shared(files[i]);
        if (!p) {
            printf("skipped: %s is not here\n", files[i]);
            continue;
        }
        snprintf(path, sizeof path, "%s", p);
        check(strrchr(files[i], '/') + 1, path, i == 0 ? KV_F32 : KV_F16, false);
    }
}

static void every_cut_of_the_demo_model(void **state)
{
    (void)state;
    check("tessera-demo-q8_0", "deploy/models/tessera-demo-q8_0.gguf", KV_Q8_0, false);
    check("tessera-demo-f16", "deploy/models/tessera-demo-f16.gguf", KV_F16, false);
}

static void every_cut_of_every_family(void **state)
{
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(archs); i++) {
        struct random_model m = {.arch = archs[i], .n_layer = 2, .d_model = 64, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 544,
                                 .vocab = 300, .tied = i == 1, .type = i == 1 ? DTYPE_Q4_0 : DTYPE_F32, .embd_type = DTYPE_Q8_0,
                                 .rope = i == 0 ? RANDOM_ROPE_LLAMA3 : i == 2 ? RANDOM_ROPE_YARN : RANDOM_ROPE_PLAIN, .seed = i + 1};
        const char *path = scratch_path(archs[i]);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(archs[i], path, i == 1 ? KV_BF16 : KV_F16, false);
    }
}

/* Experts are cut inside; layers without them, and an expert that all tokens visit, beside. */
static void every_cut_of_experts(void **state)
{
    static const struct random_model models[] = {
        {.arch = "llama", .n_expert = 5, .n_used = 2, .d_expert = 288, .type = DTYPE_F32},
        {.arch = "qwen2moe", .n_expert = 7, .n_used = 3, .d_expert = 320, .d_shared = 544, .n_dense = 1, .type = DTYPE_Q8_0},
        {.arch = "qwen3moe", .n_expert = 16, .n_used = 4, .d_expert = 256, .type = DTYPE_Q4_0},
        {.arch = "qwen3moe", .n_expert = 4, .n_used = 4, .d_expert = 576, .type = DTYPE_BF16},
        {.arch = "gpt-oss", .n_expert = 6, .n_used = 2, .d_expert = 288, .window = 9, .type = DTYPE_F16},
        {.arch = "olmoe", .n_expert = 6, .n_used = 2, .d_expert = 288, .type = DTYPE_Q8_0},
        {.arch = "llama4", .n_layer = 4, .n_expert = 5, .n_used = 1, .d_expert = 288, .d_shared = 288, .moe_step = 2, .window = 9, .type = DTYPE_Q8_0},
        {.arch = "llama4", .n_layer = 4, .n_expert = 3, .n_used = 2, .d_expert = 320, .d_shared = 320, .window = 16, .type = DTYPE_BF16},
        {.arch = "glm4moe", .n_layer = 3, .n_expert = 8, .n_used = 3, .d_expert = 288, .d_shared = 288, .n_dense = 1, .n_group = 4, .n_group_used = 2, .sigmoid = true,
         .rope_dim = 16, .type = DTYPE_BF16},
        {.arch = "dots1", .n_layer = 3, .n_expert = 6, .n_used = 2, .d_expert = 288, .d_shared = 576, .n_dense = 1, .sigmoid = true, .type = DTYPE_Q8_0},
        {.arch = "minimax-m2", .n_expert = 8, .n_used = 3, .d_expert = 288, .sigmoid = true, .rope_dim = 16, .type = DTYPE_Q4_0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i];
        m.n_layer = MAX(m.n_layer, 2), m.d_model = 64, m.n_head = 8, m.n_kv_head = 4, m.head_dim = 32, m.d_ffn = 544, m.vocab = 300, m.embd_type = DTYPE_Q8_0;
        m.seed = 200 + i;
        char name[64];
        snprintf(name, sizeof name, "%s, %d of %d experts", m.arch, m.n_used, m.n_expert);
        const char *path = scratch_path(name);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(name, path, i == 0, i == 5);
    }
}

/* Whole experts on each rank: as many as it has leaves, more, fewer (then some ranks have none), with a shared one that is cut inside. */
static void every_cut_of_whole_experts(void **state)
{
    static const struct random_model models[] = {
        {.arch = "llama", .n_expert = 5, .n_used = 2, .d_expert = 288, .type = DTYPE_F32},
        {.arch = "qwen2moe", .n_expert = 7, .n_used = 3, .d_expert = 320, .d_shared = 544, .n_dense = 1, .type = DTYPE_Q8_0},
        {.arch = "qwen3moe", .n_expert = 40, .n_used = 4, .d_expert = 256, .type = DTYPE_Q4_0},
        {.arch = "gpt-oss", .n_expert = 16, .n_used = 2, .d_expert = 288, .window = 9, .type = DTYPE_F16},
        {.arch = "llama4", .n_layer = 4, .n_expert = 3, .n_used = 2, .d_expert = 320, .d_shared = 320, .window = 16, .type = DTYPE_BF16},
        {.arch = "deepseek2", .n_expert = 32, .n_used = 6, .d_expert = 288, .d_shared = 288, .n_dense = 1, .n_group = 4, .n_group_used = 2, .latent = 64, .q_latent = 96,
         .rope_part = 16, .latent_whole = true, .type = DTYPE_Q8_0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i];
        m.n_layer = MAX(m.n_layer, 2), m.d_model = 64, m.n_head = 8, m.n_kv_head = m.latent ? 1 : 4, m.head_dim = 32, m.d_ffn = 544, m.vocab = 300, m.embd_type = DTYPE_Q8_0;
        m.seed = 220 + i;
        char name[64];
        snprintf(name, sizeof name, "%s, %d of %d whole", m.arch, m.n_used, m.n_expert);
        const char *path = scratch_path(name);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        whole_experts = true;
        check(name, path, KV_F16, false);
        whole_experts = false;
    }
}

/* The two deals add up the same numbers in two orders. */
static void whole_experts_are_near_cut_ones(void **state)
{
    const struct random_model m = {.arch = "qwen2moe", .n_layer = 2, .d_model = 64, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 544, .vocab = 300,
                                   .n_expert = 24, .n_used = 5, .d_expert = 320, .d_shared = 544, .type = DTYPE_F32, .embd_type = DTYPE_F32, .seed = 231};
    const struct variant plain = {"plain", 1, 1, 1, 0, false, "auto", NULL};
    struct sequence cut[N_SEQ], whole[N_SEQ];
    int32_t pc[N_SEQ][64], pw[N_SEQ][64], other = 0;
    float far = 0, most = 0;
    const char *path = scratch_path("near");
    (void)state;
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    assert_true(run(path, &plain, KV_F32, true, cut, pc));
    whole_experts = true;
    assert_true(run(path, &plain, KV_F32, true, whole, pw));
    whole_experts = false;
    for (int32_t i = 0; i < N_SEQ; i++)
        for (int32_t x = 0; x < cut[i].n_prompt * m.vocab; x++) {
            float a = cut[i].logits[x], b = whole[i].logits[x];
            far = MAX(far, a > b ? a - b : b - a);
            most = MAX(most, a > 0 ? a : -a);
            other += memcmp(&a, &b, sizeof a) != 0;
        }
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&cut[i]), sequence_free(&whole[i]);
    printf("logits up to %g, at most %g apart\n", (double)most, (double)far);
    assert_true(far <= 1e-5f * most);
    assert_true(other > 0); /* or nothing was dealt otherwise */
}

/* Attention over a latent that every rank has whole; heads are dealt out. Keys and values of heads in matrices of their own, or in one, also where
 * no block of a type lies along the columns that become rows; experts in groups. */
static void every_cut_of_latents(void **state)
{
    static const struct random_model models[] = {
        {.head_dim = 32, .latent = 64, .rope_part = 16, .type = DTYPE_Q8_0, .rope = RANDOM_ROPE_YARN, .rope_original_context = 16},
        {.head_dim = 32, .latent = 64, .q_latent = 96, .rope_part = 16, .type = DTYPE_Q4_0, .latent_whole = true, .n_expert = 8, .n_used = 3, .d_expert = 288,
         .d_shared = 288, .n_dense = 1, .n_group = 4, .n_group_used = 2},
        {.head_dim = 20, .latent = 44, .q_latent = 28, .rope_part = 12, .type = DTYPE_F16, .latent_whole = true},
        {.head_dim = 32, .latent = 96, .q_latent = 64, .rope_part = 32, .type = DTYPE_BF16, .n_expert = 16, .n_used = 4, .d_expert = 256, .d_shared = 512,
         .n_dense = 1, .n_group = 4, .n_group_used = 2, .sigmoid = true, .rope = RANDOM_ROPE_YARN, .rope_original_context = 16},
    };
    static const int32_t heads[] = {8, 8, 8, 40};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i];
        m.arch = "deepseek2", m.n_layer = 2, m.d_model = 64, m.n_head = heads[i], m.n_kv_head = 1, m.d_ffn = 544, m.vocab = 300, m.embd_type = DTYPE_Q8_0;
        m.seed = 600 + i;
        char name[64];
        snprintf(name, sizeof name, "latent of %d, %s", m.latent, dtype_name(m.type));
        const char *path = scratch_path(name);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(name, path, (enum kv_type)((i + 2) % KV_TYPES), i == 2);
    }
}

/* Families by their switches: norms, windows, fused tensors, parallel layers, biases, caps, scales. */
static void every_cut_of_other_families(void **state)
{
    static const struct random_model models[] = {
        {.arch = "llama", .window = 11},
        {.arch = "gemma"},
        {.arch = "gemma2", .window = 9},
        {.arch = "gemma3", .window = 9},
        {.arch = "phi2", .rope_dim = 12},
        {.arch = "phi3", .window = 20},
        {.arch = "falcon"},
        {.arch = "stablelm", .rope_dim = 8},
        {.arch = "olmo2"},
        {.arch = "olmo2", .window = 9, .rope = RANDOM_ROPE_YARN, .rope_original_context = 16},
        {.arch = "exaone4", .window = 9},
        {.arch = "smollm3"},
        {.arch = "seed_oss"},
        {.arch = "ernie4_5"},
        {.arch = "granite"},
        {.arch = "chatglm", .rope_dim = 16},
        {.arch = "glm4", .rope_dim = 16},
        {.arch = "command-r"},
        {.arch = "cohere2", .window = 9},
        {.arch = "llama4", .window = 9},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i];
        m.n_layer = strcmp(m.arch, "gemma3") ? 4 : 6, m.d_model = 64, m.n_head = 8, m.head_dim = 32, m.d_ffn = 544, m.vocab = 300;
        m.n_kv_head = strcmp(m.arch, "falcon") ? 4 : 1, m.tied = i % 2, m.type = i % 3 == 1 ? DTYPE_Q8_0 : DTYPE_F16, m.embd_type = DTYPE_Q8_0;
        m.seed = 300 + i;
        const char *path = scratch_path(m.arch);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(m.arch, path, i % 4 == 2, false);
    }
    static const char *const shapes[] = {"stablelm-parallel", "exaone4-plain", "llama4-dense", "falcon-40b"};
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/model/golden/%s.gguf", shapes[i]);
        check(shapes[i], path, KV_F16, i == 0);
    }
}

/* Of the types that share their layouts' parts one of each kind: every type is cut in tests/kernels. */
static void every_cut_of_every_type(void **state)
{
    static const enum dtype types[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_Q4_0, DTYPE_Q8_0,   DTYPE_Q4_K,  DTYPE_Q5_K,
                                       DTYPE_Q6_K, DTYPE_BF16, DTYPE_Q2_K, DTYPE_IQ4_XS, DTYPE_IQ2_S, DTYPE_MXFP4};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct random_model m = {.arch = "llama", .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 8, .head_dim = 32, .d_ffn = i < 8 ? 768 : 512,
                                 .vocab = 288, .tied = i % 2, .type = types[i], .embd_type = types[i], .seed = 100 + i};
        const char *path = scratch_path(dtype_name(types[i]));
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(dtype_name(types[i]), path, (enum kv_type)((i + 1) % KV_TYPES), i % 4 == 3);
    }
}

/* Ranks that outnumber the KV heads hold some of them twice; odd counts of heads fall unevenly. */
static void every_cut_of_few_kv_heads(void **state)
{
    static const struct { int32_t heads, kv; } shapes[] = {{8, 1}, {6, 2}, {9, 3}, {10, 5}, {8, 8}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        struct random_model m = {.arch = "qwen3", .n_layer = 4, .d_model = 96, .n_head = shapes[i].heads, .n_kv_head = shapes[i].kv, .head_dim = 32,
                                 .d_ffn = 576, .vocab = 300, .type = i % 2 ? DTYPE_Q8_0 : DTYPE_F16, .embd_type = DTYPE_Q8_0, .seed = 40 + i};
        char name[64];
        snprintf(name, sizeof name, "%d heads, %d KV heads", shapes[i].heads, shapes[i].kv);
        const char *path = scratch_path(name);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(name, path, (enum kv_type)(i % KV_TYPES), false);
    }
}

#ifndef TESSERA_BARE
/* Checkpoints: each family's random model as safetensors, and those of the tree. */
static void every_cut_of_checkpoints(void **state)
{
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(archs); i++) {
        struct random_model m = {.arch = archs[i], .n_layer = 2, .d_model = 64, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 544,
                                 .vocab = 300, .tied = i == 1, .type = i == 1 ? DTYPE_BF16 : DTYPE_F16, .embd_type = DTYPE_F32,
                                 .seed = 70 + i};
        char name[64];
        snprintf(name, sizeof name, "%s-checkpoint.gguf", archs[i]);
        const char *path = scratch_path(name), *dir = hf_write_dir(NULL);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        hf_write_weights(dir, path);
        hf_write_config(dir, path);
        snprintf(name, sizeof name, "%s checkpoint", archs[i]);
        check(name, dir, i == 0 ? KV_F32 : KV_Q8_0, false);
    }
    check("mistral checkpoint", "tests/model/golden/mistral", KV_F16, false);
    check("llama with biases", "tests/model/golden/llama-biases", KV_F16, false);
    check("llama-llama3 checkpoint", "tests/model/golden/llama-llama3", KV_F16, true);
}

/* Quantised checkpoints: their tensors are made as they are read, whoever reads. */
static void every_cut_of_quantised_checkpoints(void **state)
{
    static const char *const names[] = {"fp8-block", "ct-fp8-channel", "gptq-4", "gptq-4-order", "gptq-3", "awq-4", "ct-mixed", "gpt-oss-mxfp4", "ct-nvfp4", "ct-mxfp4", "bnb-nf4", "../golden/gpt-oss"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/model/quant/%s", names[i]);
        check(names[i], path, (enum kv_type)(i % KV_TYPES), i % 3 == 2);
    }
}
#endif

/* Of a cut that proto/leaves.h admits: a rank has no rows of the vocabulary, the first or another. */
static void a_rank_may_have_no_rows_of_the_vocabulary(void **state)
{
    static const struct grid grids[] = {
        {.n_stages = 1, .layers = {0, 2}, .width = {2}, .shared = true, .share = {{2, 1, 0}, {2, 3, 20}}},
        {.n_stages = 1, .layers = {0, 2}, .width = {3}, .shared = true, .share = {{2, 2, 7}, {1, 1, 0}, {1, 1, 13}}},
    };
    struct random_model m = {.arch = "llama", .n_layer = 2, .d_model = 64, .n_head = 4, .n_kv_head = 2, .head_dim = 32, .d_ffn = 128, .vocab = 320,
                             .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 31};
    const char *path = scratch_path("no_rows.gguf");
    struct sequence s[1 + COUNT_OF(grids)][N_SEQ];
    int32_t prompts[N_SEQ][64];
    (void)state;
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    for (size_t k = 0; k < COUNT_OF(s); k++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = path, .grid = k ? &grids[k - 1] : NULL, .n_threads = 2, .isa = forced, .context = 64, .n_blocks = 4 * N_SEQ,
                                       .max_step_tokens = 80};
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        make(s[k], prompts, m.vocab);
        if (sequence_run(r, s[k], N_SEQ, true)) fail_msg("%s", err_text());
        local_replica_close(r);
        if (k) same("no rows of the vocabulary", k > 1 ? "rank 1 of 3" : "rank 0 of 2", s[0], s[k], m.vocab);
    }
    for (size_t k = 0; k < COUNT_OF(s) * N_SEQ; k++) sequence_free(&s[k / N_SEQ][k % N_SEQ]);
}

/* The whole list of cuts again with each table in turn, all held against ref. */
static void every_cut_on_every_instruction_set(void **state)
{
    (void)state;
    const char *before = forced;
    const struct krn_table *all[16];
    int32_t n = krn_table_all(all, COUNT_OF(all));
    struct random_model m = {.arch = "llama", .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 768,
                             .vocab = 300, .type = DTYPE_Q4_K, .embd_type = DTYPE_Q6_K, .seed = 90};
    const char *path = scratch_path("every-isa");
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    assert_true(n >= 1);
    for (int32_t i = 1; i < n; i++) {
        char name[64];
        forced = all[i]->name;
        snprintf(name, sizeof name, "Q4_K, Q6_K on %s", forced);
        check(name, path, KV_F16, false);
    }
    forced = before;
}

/* The kernels asked for in the environment; says why and returns false where this processor has them not. */
static bool choose_kernels(void)
{
    const char *want = getenv("TESSERA_TEST_ISA");
    const struct krn_table *t;
    if (!want || !*want) return true;
    if (krn_table_pick(want, &t)) {
        printf("skipped: %s\n", err_text());
        return false;
    }
    forced = t->name;
    printf("kernels: %s against ref\n", forced);
    return true;
}

int main(void)
{
    if (!choose_kernels()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_of_shared_models),
        cmocka_unit_test(every_cut_of_the_demo_model),
        cmocka_unit_test(every_cut_of_every_family),
        cmocka_unit_test(every_cut_of_experts),
        cmocka_unit_test(every_cut_of_whole_experts),
        cmocka_unit_test(whole_experts_are_near_cut_ones),
        cmocka_unit_test(every_cut_of_latents),
        cmocka_unit_test(every_cut_of_other_families),
        cmocka_unit_test(every_cut_of_every_type),
#ifndef TESSERA_BARE /* a build that reads GGUF files only */
        cmocka_unit_test(every_cut_of_checkpoints),
        cmocka_unit_test(every_cut_of_quantised_checkpoints),
#endif
        cmocka_unit_test(every_cut_of_few_kv_heads),
        cmocka_unit_test(a_rank_may_have_no_rows_of_the_vocabulary),
        cmocka_unit_test(every_cut_on_every_instruction_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
