/* LoRA adapters: the logits are those of PEFT (golden/make_lora.py); the same bits whatever the cut, the batch and its neighbours, with other
 * adapters or none beside; and what cannot be computed is refused by name. */
#include "tests/support/gguf_write.h"
#include "tests/support/hf_write.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include "engine/file/half.h"
#include "engine/kernels/table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- PEFT's numbers ---- */

static const double TOLERANCE = 1e-5; /* of the row's largest logit; seen 3e-6 */

struct golden {
    int32_t n_prompt, n_rows, n_vocab;
    const int32_t *prompt, *positions;
    const float *logits;
    struct buf file;
};

static void read_golden(struct golden *g, const char *name)
{
    int32_t head[3];
    char *path = xasprintf("tests/model/golden/lora/%s.logits", name);
    *g = (struct golden){0};
    if (!scratch_read(path, &g->file)) fail_msg("%s cannot be read: run from the repository's root", path);
    memcpy(head, g->file.data, sizeof head);
    g->n_prompt = head[0], g->n_rows = head[1], g->n_vocab = head[2];
    g->prompt = (const int32_t *)(const void *)g->file.data + 3;
    g->positions = g->prompt + g->n_prompt;
    g->logits = (const float *)(const void *)(g->positions + g->n_rows);
    assert_int_equal(g->file.len, sizeof head + 4 * ((size_t)g->n_prompt + (size_t)g->n_rows * (1 + (size_t)g->n_vocab)));
    free(path);
}

static void rows_agree(const char *name, const struct golden *g, const float *logits)
{
    for (int32_t i = 0; i < g->n_rows; i++) {
        const float *want = g->logits + (size_t)i * (size_t)g->n_vocab, *got = logits + (size_t)g->positions[i] * (size_t)g->n_vocab;
        double diff = 0, size = 0;
        for (int32_t v = 0; v < g->n_vocab; v++) {
            diff = fmax(diff, fabs((double)want[v] - (double)got[v]));
            size = fmax(size, fabs((double)want[v]));
        }
        if (!(diff <= TOLERANCE * size))
            fail_msg("%s: at position %d of %d the logits differ by %.2e of the largest, allowed %.0e", name, g->positions[i], g->n_prompt, diff / size,
                     TOLERANCE);
    }
}

/* Whole, and cut over two ranks: within the tolerance of PEFT's, and the same bits. */
static void agrees_from(const char *base, const char *adapter, const char *golden)
{
    struct golden g;
    struct sequence one[2];
    char *dir = xasprintf("tests/model/golden/lora/%s", adapter);
    const char *paths[] = {dir};
    read_golden(&g, golden);
    for (int32_t i = 0; i < 2; i++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = base, .context = 112, .oracle = true, .kv_type = KV_F32, .adapters = {1, paths, NULL}, .pp = i + 1};
        if (local_replica_open(&r, &c)) fail_msg("%s: %s", golden, err_text());
        one[i] = (struct sequence){.prompt = g.prompt, .n_prompt = g.n_prompt, .n_gen = 1, .sampling = sampling_default(), .adapter = 1, .chunk = 13 * i};
        if (sequence_run(r, &one[i], 1, true)) fail_msg("%s: %s", golden, err_text());
        local_replica_close(r);
    }
    rows_agree(golden, &g, one[0].logits);
    assert_memory_equal(one[0].logits, one[1].logits, (size_t)g.n_prompt * (size_t)g.n_vocab * sizeof(float));
    sequence_free(&one[0]);
    sequence_free(&one[1]);
    buf_free(&g.file);
    free(dir);
}

/* The checkpoint's directory: the one in the tree, or its config.json with weights made from the GGUF file. */
static const char *checkpoint_of(const char *name)
{
    struct buf text = {0};
    char *path = xasprintf("tests/model/golden/%s/config.json", name), *gguf = xasprintf("tests/model/golden/%s.gguf", name);
    assert_true(scratch_read(path, &text));
    const char *files[] = {"config.json", buf_str(&text), NULL}, *dir = hf_write_dir(files);
    hf_write_weights(dir, gguf);
    buf_free(&text);
    free(path);
    free(gguf);
    return dir;
}

/* A model whose GGUF file and checkpoint hold the same weights. */
static void both_agree(void **state)
{
    const char *name = *state;
    char *model = xstrdup(name), *gguf, *dash = strstr(model, "-second");
    if (dash) *dash = 0;
    gguf = xasprintf("tests/model/golden/%s.gguf", model);
    agrees_from(gguf, name, name);
    agrees_from(checkpoint_of(model), name, name);
    free(model);
    free(gguf);
}

static void family_agrees(void **state)
{
    const char *name = *state;
    char *gguf = xasprintf("tests/model/golden/%s.gguf", name), *dir = xasprintf("tests/model/golden/%s", name), *bf16 = xasprintf("%s-bf16", name);
    agrees_from(gguf, name, name);
    agrees_from(dir, name, bf16);
    free(gguf);
    free(dir);
    free(bf16);
}

/* ---- adapters of random models, as GGUF files ---- */

enum { N_KINDS = 7 };
static const char *const kinds[N_KINDS] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

struct random_adapter {
    const struct random_model *base;
    int32_t rank;
    enum dtype type;
    uint32_t which;   /* bit i: kinds[i] */
    int32_t layers;   /* the first so many; 0: all */
    uint64_t seed;
};

static void encode(enum dtype t, const float *from, int64_t n, void *to)
{
    for (int64_t i = 0; i < n; i++)
        if (t == DTYPE_F32) memcpy((float *)to + i, from + i, sizeof *from);
        else ((uint16_t *)to)[i] = t == DTYPE_F16 ? half_f32_to_f16(from[i]) : half_f32_to_bf16(from[i]);
}

/* One matrix; the bytes stay until the file is saved. */
static void *put_matrix(struct gguf_write *w, const struct random_adapter *a, const char *name, int64_t cols, int64_t rows, uint64_t key, float scale)
{
    int64_t n = cols * rows, dims[] = {cols, rows};
    float *f = xmalloc((size_t)n * sizeof *f);
    void *to = xmalloc((size_t)n * sizeof *f);
    random_fill(f, n, key, 0, scale);
    encode(a->type, f, n, to);
    gguf_write_tensor(w, name, a->type, 2, dims, to);
    free(f);
    return to;
}

static const char *write_adapter(const struct random_adapter *a, const char *file)
{
    const struct random_model *m = a->base;
    const int64_t hd = m->head_dim ? m->head_dim : m->d_model / m->n_head, d = m->d_model, nq = m->n_head * hd, nkv = m->n_kv_head * hd, f = m->d_ffn;
    const int64_t cols[N_KINDS] = {d, d, d, nq, d, d, f}, rows[N_KINDS] = {nq, nkv, nkv, d, f, f, d};
    struct gguf_write *w = gguf_write_open();
    void *kept[2 * N_KINDS * 16];
    int32_t n = 0, layers = a->layers ? a->layers : m->n_layer;
    gguf_write_str(w, "general.type", "adapter");
    gguf_write_str(w, "general.architecture", m->arch);
    gguf_write_str(w, "adapter.type", "lora");
    gguf_write_f32(w, "adapter.lora.alpha", 2.0f * (float)a->rank);
    for (int32_t l = 0; l < layers; l++)
        for (int32_t k = 0; k < N_KINDS; k++) {
            if (!(a->which >> k & 1)) continue;
            char name[64];
            uint64_t key = a->seed * 1000 + (uint64_t)(l * N_KINDS + k) * 2;
            snprintf(name, sizeof name, "blk.%d.%s.weight.lora_a", l, kinds[k]);
            kept[n++] = put_matrix(w, a, name, cols[k], a->rank, key, 1 / sqrtf((float)cols[k]));
            name[strlen(name) - 1] = 'b';
            kept[n++] = put_matrix(w, a, name, a->rank, rows[k], key + 1, 0.4f / sqrtf((float)a->rank));
        }
    const char *path = scratch_path(file);
    if (gguf_write_save(w, path)) fail_msg("%s", err_text());
    gguf_write_close(w);
    while (n) free(kept[--n]);
    return path;
}

/* ---- every cut, every neighbour ---- */

enum { N_SEQ = 5, N_GEN = 4, N_ADAPTERS = 3 };
static const int32_t lengths[N_SEQ] = {7, 37, 1, 18, 40}, uses[N_SEQ] = {1, 2, 0, 3, 1};

struct variant {
    const char *what;
    int32_t tp, pp, threads, chunk;
    bool together;
    const char *isa;
};

static const struct variant variants[] = {
    {"2 threads", 1, 1, 2, 0, true, "auto"},       {"3 threads, chunks of 5", 1, 1, 3, 5, true, "auto"},
    {"chunks of 1", 1, 1, 1, 1, false, "auto"},    {"together", 1, 1, 1, 0, true, "auto"},
    {"tp 2", 2, 1, 1, 0, true, "auto"},            {"tp 2, alone, chunks of 9", 2, 1, 1, 9, false, "auto"},
    {"tp 3, 2 threads", 3, 1, 2, 0, true, "auto"}, {"tp 4, chunks of 16", 4, 1, 1, 16, true, "auto"},
    {"tp 8", 8, 1, 1, 0, true, "auto"},            {"pp 2", 1, 2, 1, 0, true, "auto"},
    {"tp 2 x pp 2, 2 threads, chunks of 3", 2, 2, 2, 3, true, "auto"},
    {"ref", 1, 1, 1, 0, true, "ref"},              {"avx2, tp 2", 2, 1, 1, 0, true, "avx2"},
    {"ref, tp 4, chunks of 11", 4, 1, 1, 11, true, "ref"},
};

static bool run(const char *path, const struct eng_adapters *a, const struct variant *v, enum kv_type kv, struct sequence s[N_SEQ], int32_t prompts[N_SEQ][64],
                bool with_adapters)
{
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .tp = v->tp, .pp = v->pp, .n_threads = v->threads, .isa = v->isa, .context = 64, .n_blocks = 24, .kv_type = kv,
                                   .max_step_tokens = 120};
    if (with_adapters) c.adapters = *a;
    enum err e = local_replica_open(&r, &c);
    if (e == ERR_UNSUPPORTED || e == ERR_BAD_CONFIG) return false;
    if (e) fail_msg("%s: %s", v->what, err_text());
    for (int32_t i = 0; i < N_SEQ; i++) {
        for (int32_t k = 0; k < lengths[i]; k++) prompts[i][k] = (k * 37 + i * 11 + 5) % 250;
        s[i] = (struct sequence){.prompt = prompts[i], .n_prompt = lengths[i], .n_gen = N_GEN, .chunk = v->chunk, .sampling = sampling_default(),
                                 .adapter = with_adapters ? uses[i] : 0};
        s[i].sampling.temperature = 0;
        s[i].sampling.max_tokens = N_GEN;
    }
    if (v->together) e = sequence_run(r, s, N_SEQ, true);
    for (int32_t i = 0; i < N_SEQ && !v->together && !e; i++) e = sequence_run(r, &s[i], 1, true);
    if (e) fail_msg("%s: %s", v->what, err_text());
    local_replica_close(r);
    return true;
}

static size_t bytes_of(const struct sequence *s, int32_t n_vocab) { return (size_t)(s->n_prompt + N_GEN - 1) * (size_t)n_vocab * sizeof(float); }

static void free_all(struct sequence s[N_SEQ])
{
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&s[i]);
}

static void check(const char *name, const char *path, const struct eng_adapters *a, int32_t n_vocab, enum kv_type kv)
{
    const struct variant plain = {"plain", 1, 1, 1, 0, false, "auto"};
    struct sequence base[N_SEQ], without[N_SEQ], s[N_SEQ];
    int32_t pb[N_SEQ][64], pw[N_SEQ][64], ps[N_SEQ][64], n = 0;
    if (!run(path, a, &plain, kv, base, pb, true)) fail_msg("%s: %s", name, err_text());
    if (!run(path, a, &plain, kv, without, pw, false)) fail_msg("%s: %s", name, err_text());
    for (int32_t i = 0; i < N_SEQ; i++) { /* who uses none has the model's own bits; who uses one has others */
        bool same = !memcmp(base[i].logits, without[i].logits, bytes_of(&base[i], n_vocab));
        if (same != !uses[i]) fail_msg("%s: sequence %d, which uses adapter %d, has %s bits as without any", name, i, uses[i], same ? "the same" : "other");
    }
    for (size_t v = 0; v < COUNT_OF(variants); v++) {
        if (!run(path, a, &variants[v], kv, s, ps, true)) continue;
        n++;
        for (int32_t i = 0; i < N_SEQ; i++)
            if (memcmp(base[i].logits, s[i].logits, bytes_of(&base[i], n_vocab))) fail_msg("%s, %s: sequence %d has other bits", name, variants[v].what, i);
        free_all(s);
    }
    assert_true(n > 6);
    free_all(base);
    free_all(without);
}

static void every_cut_and_neighbour(void **state)
{
    static const struct random_model models[] = {
        {.arch = "llama", .n_layer = 2, .type = DTYPE_Q4_0},
        {.arch = "qwen2", .n_layer = 3, .type = DTYPE_Q8_0},
        {.arch = "qwen3", .n_layer = 2, .type = DTYPE_BF16},
        {.arch = "gemma2", .n_layer = 2, .window = 9, .type = DTYPE_F16},
        {.arch = "olmo2", .n_layer = 2, .type = DTYPE_Q8_0},
        {.arch = "command-r", .n_layer = 2, .type = DTYPE_F32},
        {.arch = "qwen3moe", .n_layer = 2, .n_expert = 6, .n_used = 2, .d_expert = 288, .type = DTYPE_Q8_0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct random_model m = models[i];
        m.d_model = 64, m.n_head = 8, m.n_kv_head = 4, m.head_dim = 32, m.d_ffn = 544, m.vocab = 300, m.embd_type = DTYPE_Q8_0, m.seed = 700 + i;
        const uint32_t all = m.n_expert ? 0xf : 0x7f;
        const struct random_adapter adapters[N_ADAPTERS] = {
            {&m, 8, DTYPE_F32, all, 0, 1 + i}, {&m, 19, DTYPE_F16, all & 0x59, 0, 100 + i}, {&m, 3, DTYPE_BF16, all & 0x6e, 1, 200 + i}};
        const char *paths[N_ADAPTERS];
        char file[64];
        for (int32_t k = 0; k < N_ADAPTERS; k++) {
            snprintf(file, sizeof file, "%s-%d.lora.gguf", m.arch, k);
            paths[k] = write_adapter(&adapters[k], file);
        }
        const char *path = scratch_path(m.arch);
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        check(m.arch, path, &(struct eng_adapters){N_ADAPTERS, paths, NULL}, m.vocab, (enum kv_type)(i % KV_TYPES));
    }
}

/* PEFT's rows of q and k, which a GGUF file of a Llama has in another order, come out the same from a GGUF file of the adapter. */
static void a_gguf_file_is_the_same_adapter(void **state)
{
    static const char peft[] = "tests/model/golden/lora/llama-gqa";
    static const char *const from[N_KINDS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                                              "mlp.down_proj"};
    struct eng_model_file *f;
    struct gguf_write *w = gguf_write_open();
    void *kept[64];
    int32_t n = 0;
    struct golden g;
    struct sequence s[2];
    (void)state;
    if (eng_model_file_open(&f, peft)) fail_msg("%s", err_text());
    gguf_write_str(w, "general.type", "adapter");
    gguf_write_str(w, "general.architecture", "llama");
    gguf_write_str(w, "adapter.type", "lora");
    gguf_write_f32(w, "adapter.lora.alpha", 8);
    for (int32_t l = 0; l < 2; l++)
        for (int32_t k = 0; k < 2 * N_KINDS; k++) {
            char name[128], to[64];
            const int32_t half = 4; /* of a head of 8 */
            snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_%c.weight", l, from[k / 2], k % 2 ? 'B' : 'A');
            const struct model_tensor *t = eng_model_file_tensor_find(f, name);
            assert_non_null(t);
            float *x = xmalloc((size_t)t->bytes), *y = kept[n++] = xmalloc((size_t)t->bytes);
            if (eng_model_file_read(f, t, 0, t->bytes, x)) fail_msg("%s", err_text());
            for (int64_t r = 0; r < t->dims[1]; r++) {
                int64_t at = k % 2 && k / 2 < 2 ? r / 8 * 8 + r % 8 % half * 2 + r % 8 / half : r;
                memcpy(y + at * t->dims[0], x + r * t->dims[0], (size_t)t->dims[0] * sizeof *x);
            }
            free(x);
            snprintf(to, sizeof to, "blk.%d.%s.weight.lora_%c", l, kinds[k / 2], k % 2 ? 'b' : 'a');
            gguf_write_tensor(w, to, DTYPE_F32, 2, t->dims, y);
        }
    const char *path = scratch_path("same.gguf"), *paths[] = {peft, path};
    if (gguf_write_save(w, path)) fail_msg("%s", err_text());
    gguf_write_close(w);
    while (n) free(kept[--n]);
    eng_model_file_close(f);
    read_golden(&g, "llama-gqa");
    for (int32_t i = 0; i < 2; i++) { /* a base of each order */
        struct local_replica *r;
        struct local_replica_conf c = {.path = i ? checkpoint_of("llama-gqa") : "tests/model/golden/llama-gqa.gguf", .context = 112,
                                       .adapters = {2, paths, NULL}};
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        for (int32_t k = 0; k < 2; k++)
            s[k] = (struct sequence){.prompt = g.prompt, .n_prompt = g.n_prompt, .n_gen = 1, .sampling = sampling_default(), .adapter = 1 + k};
        if (sequence_run(r, s, 2, true)) fail_msg("%s", err_text());
        assert_memory_equal(s[0].logits, s[1].logits, (size_t)g.n_prompt * (size_t)g.n_vocab * sizeof(float));
        sequence_free(&s[0]);
        sequence_free(&s[1]);
        local_replica_close(r);
    }
    buf_free(&g.file);
}

/* ---- files that only some ranks have; what is counted ---- */

static void ranks_without_the_files_get_them_from_others(void **state)
{
    static const char base[] = "tests/model/golden/qwen3.gguf", *const paths[] = {"tests/model/golden/lora/qwen3", "tests/model/golden/lora/qwen3-second"};
    struct golden g;
    struct sequence s[2];
    (void)state;
    read_golden(&g, "qwen3");
    for (int32_t i = 0; i < 2; i++) {
        struct local_replica *r;
        struct local_replica_conf c = {.path = base, .tp = 2, .context = 112, .adapters = {2, paths, NULL}, .without_file = i ? 2 : 0};
        if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
        s[i] = (struct sequence){.prompt = g.prompt, .n_prompt = g.n_prompt, .n_gen = 1, .sampling = sampling_default(), .adapter = 2};
        if (sequence_run(r, &s[i], 1, true)) fail_msg("%s", err_text());
        local_replica_close(r);
    }
    assert_memory_equal(s[0].logits, s[1].logits, (size_t)g.n_prompt * (size_t)g.n_vocab * sizeof(float));
    for (int32_t i = 0; i < 2; i++) sequence_free(&s[i]);
    buf_free(&g.file);
}

static void what_it_needs_is_what_is_counted(void **state)
{
    static const char base[] = "tests/model/golden/qwen3.gguf", *const paths[] = {"tests/model/golden/lora/qwen3", "tests/model/golden/lora/qwen3-second"};
    const struct eng_adapters a = {2, paths, NULL};
    (void)state;
    for (int32_t tp = 1; tp <= 2; tp++) {
        struct local_replica *r;
        struct grid g;
        struct local_replica_conf c = {.path = base, .tp = tp, .adapters = a};
        if (local_replica_open(&r, &c) || eng_engine_grid(base, tp, 1, &g)) fail_msg("%s", err_text());
        for (int32_t i = 0; i < tp; i++) {
            struct eng_engine_need model, more;
            if (eng_engine_need(base, &g, i, KV_F16, 512, 512, &model) || eng_engine_adapters_need(base, &a, &g, i, 512, &more)) fail_msg("%s", err_text());
            assert_int_equal(local_replica_weight_bytes(r, i), model.weight_bytes + more.weight_bytes);
            assert_true(more.weight_bytes > 0 && more.buffer_bytes > 0);
        }
        local_replica_close(r);
    }
    struct model_weights before, after;
    int64_t sum = 0;
    struct grid whole;
    struct eng_engine_need more;
    if (eng_engine_weights(base, &before) || eng_engine_grid(base, 1, 1, &whole) || eng_engine_adapters_need(base, &a, &whole, 0, 1, &more))
        fail_msg("%s", err_text());
    after = before;
    if (eng_engine_adapters_weigh(base, &a, &after)) fail_msg("%s", err_text());
    for (int32_t l = 0; l < after.n_layers; l++) {
        const struct model_layer *x = &before.layers[l], *y = &after.layers[l];
        sum += y->q.mem - x->q.mem + y->kv.mem - x->kv.mem + y->ffn.mem - x->ffn.mem + y->rest.mem - x->rest.mem;
    }
    assert_int_equal(sum, more.weight_bytes);
}

/* ---- refusals ---- */

/* A copy of a golden adapter whose adapter_config.json has `to` instead of `from`, and whose matrices are called otherwise where `name` is to become `as`
 * (of the same length). */
static const char *changed(const char *from, const char *to, const char *name, const char *as)
{
    struct buf config = {0}, weights = {0};
    assert_true(scratch_read("tests/model/golden/lora/qwen3/adapter_config.json", &config));
    assert_true(scratch_read("tests/model/golden/lora/qwen3/adapter_model.safetensors", &weights));
    char *text = xstrdup(buf_str(&config)), *at = from ? strstr(text, from) : NULL;
    if (from) assert_non_null(at);
    if (at) {
        *at = 0;
        char *all = xasprintf("%s%s%s", text, to, at + strlen(from));
        free(text);
        text = all;
    }
    const char *files[] = {"adapter_config.json", text, NULL}, *dir = hf_write_dir(files);
    for (uint8_t *p = weights.data; name && (p = memmem(p, weights.len - (size_t)(p - weights.data), name, strlen(name))); p++) memcpy(p, as, strlen(as));
    char *path = xasprintf("%s/adapter_model.safetensors", dir);
    scratch_write(path, weights.data, weights.len);
    free(path);
    free(text);
    buf_free(&config);
    buf_free(&weights);
    return dir;
}

static enum err open_with(const char *base, const char *adapter)
{
    struct grid g;
    struct eng_engine_need n;
    const char *paths[] = {adapter};
    if (eng_engine_grid(base, 1, 1, &g)) fail_msg("%s", err_text());
    return eng_engine_adapters_need(base, &(struct eng_adapters){1, paths, NULL}, &g, 0, 1, &n);
}

static void refused(const char *base, const char *adapter, enum err e, const char *why)
{
    enum err is = open_with(base, adapter);
    if (is != e) fail_msg("%s, not %s: %s", err_name(is), err_name(e), is ? err_text() : "taken");
    if (!strstr(err_text(), why)) fail_msg("'%s' is not in: %s", why, err_text());
}

static void what_is_not_computed_is_refused_by_name(void **state)
{
    static const char qwen3[] = "tests/model/golden/qwen3.gguf";
    static const struct { const char *from, *to, *why; } configs[] = {
        {"\"use_dora\": false", "\"use_dora\": true", "'use_dora': DoRA"},
        {"\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "'modules_to_save'"},
        {"\"bias\": \"none\"", "\"bias\": \"all\"", "'bias'"},
        {"\"lora_bias\": false", "\"lora_bias\": true", "'lora_bias'"},
        {"\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true", "'fan_in_fan_out'"},
        {"\"alpha_pattern\": {}", "\"alpha_pattern\": {\"q_proj\": 3}", "'alpha_pattern'"},
        {"\"target_parameters\": null", "\"target_parameters\": [\"mlp.experts.gate_up_proj\"]", "'target_parameters'"},
        {"\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_4\"", "'init_lora_weights'"},
        {"\"peft_type\": \"LORA\"", "\"peft_type\": \"IA3\"", "peft_type is 'IA3'"},
    };
    (void)state;
    assert_int_equal(open_with(qwen3, changed(NULL, NULL, NULL, NULL)), OK);
    for (size_t i = 0; i < COUNT_OF(configs); i++) refused(qwen3, changed(configs[i].from, configs[i].to, NULL, NULL), ERR_UNSUPPORTED, configs[i].why);
    refused(qwen3, changed("\"lora_alpha\": 16", "\"lora_alpha\": 0", NULL, NULL), ERR_BAD_FILE, "alpha is 0");
    refused(qwen3, changed(NULL, NULL, "self_attn.v_proj", "self_attn.z_proj"), ERR_UNSUPPORTED,
            "self_attn.z_proj is not one of a model of architecture qwen3");
    refused(qwen3, changed(NULL, NULL, "v_proj.lora_B.weight", "v_proj.lora_C.weight"), ERR_BAD_FILE, "is there without the B");
    refused(qwen3, changed(NULL, NULL, "layers.1.", "layers.7."), ERR_BAD_FILE, "the model has 2 layers");
    refused("tests/model/golden/qwen2.gguf", "tests/model/golden/lora/qwen3", ERR_BAD_FILE, "it is the adapter of another base");
    refused("tests/model/golden/phi2.gguf", "tests/model/golden/lora/falcon-40b", ERR_UNSUPPORTED, "is it the adapter of another base?");
    refused("tests/model/golden/mixtral.gguf", "tests/model/golden/lora/llama-gqa", ERR_UNSUPPORTED, "adapters of experts");
    refused(qwen3, "tests/model/golden/qwen3", ERR_UNSUPPORTED, "is not a LoRA adapter");
    refused(qwen3, qwen3, ERR_UNSUPPORTED, "is not a LoRA adapter");
    struct model_info info;
    assert_int_equal(eng_engine_model_info("tests/model/golden/lora/qwen3", &info), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "--lora"));
}

static void ranks_experts_and_latents_are_refused_by_name(void **state)
{
    struct random_model dense = {.arch = "qwen3", .n_layer = 1, .d_model = 1024, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 544, .vocab = 300,
                                 .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0};
    struct random_model experts = dense, latent = dense;
    experts.arch = "qwen3moe", experts.n_expert = 4, experts.n_used = 2, experts.d_expert = 544;
    latent.arch = "deepseek2", latent.n_kv_head = 1, latent.latent = 64, latent.rope_part = 16;
    const char *base = scratch_path("dense"), *moe = scratch_path("experts"), *mla = scratch_path("latent");
    (void)state;
    if (random_model_write(&dense, base) || random_model_write(&experts, moe) || random_model_write(&latent, mla)) fail_msg("%s", err_text());
    refused(base, write_adapter(&(struct random_adapter){&dense, 513, DTYPE_F16, 1, 0, 1}, "wide.gguf"), ERR_UNSUPPORTED,
            "has rank 513, at most 512 are computed");
    refused(moe, write_adapter(&(struct random_adapter){&experts, 4, DTYPE_F16, 0x10, 0, 1}, "moe.gguf"), ERR_UNSUPPORTED,
            "the feed-forward of layer 0 is experts");
    refused(mla, write_adapter(&(struct random_adapter){&latent, 4, DTYPE_F16, 8, 0, 1}, "mla.gguf"), ERR_UNSUPPORTED, "over a latent");
    refused(moe, write_adapter(&(struct random_adapter){&dense, 4, DTYPE_F16, 1, 0, 1}, "other.gguf"), ERR_UNSUPPORTED, "of another architecture");
    refused(base, write_adapter(&(struct random_adapter){&dense, 32, DTYPE_Q8_0, 0, 0, 1}, "empty.gguf"), ERR_BAD_FILE, "no matrices");
}

#define BOTH(name, claim) {claim, both_agree, NULL, NULL, (char[]){name}}
#define FAMILY(name, claim) {claim, family_agrees, NULL, NULL, (char[]){name}}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH("llama-gqa", "llama_agrees_with_peft"),
        BOTH("llama-odd", "llama_of_odd_sizes_and_scale_by_the_root_agrees_with_peft"),
        BOTH("mistral", "mistral_agrees_with_peft"),
        BOTH("qwen2", "qwen2_in_some_matrices_agrees_with_peft"),
        BOTH("qwen3", "qwen3_agrees_with_peft"),
        BOTH("qwen3-second", "qwen3_with_another_agrees_with_peft"),
        FAMILY("gemma2", "gemma2_agrees_with_peft"),
        FAMILY("phi3", "phi3_with_fused_matrices_agrees_with_peft"),
        FAMILY("phi2", "phi2_without_gates_agrees_with_peft"),
        FAMILY("falcon-40b", "falcon_with_grouped_matrices_agrees_with_peft"),
        FAMILY("olmo2", "olmo2_agrees_with_peft"),
        FAMILY("smollm3", "smollm3_agrees_with_peft"),
        FAMILY("granite", "granite_agrees_with_peft"),
        FAMILY("glm4", "glm4_agrees_with_peft"),
        FAMILY("qwen3moe", "attention_of_a_model_with_experts_agrees_with_peft"),
        cmocka_unit_test(a_gguf_file_is_the_same_adapter),
        cmocka_unit_test(every_cut_and_neighbour),
        cmocka_unit_test(ranks_without_the_files_get_them_from_others),
        cmocka_unit_test(what_it_needs_is_what_is_counted),
        cmocka_unit_test(what_is_not_computed_is_refused_by_name),
        cmocka_unit_test(ranks_experts_and_latents_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
