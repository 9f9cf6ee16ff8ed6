/* The default modes (q8 activations, every type of KV) say nearly what the oracle mode (f32 everywhere) says: the mean negative log-likelihood of a text
 * is within 0.5 % of the oracle's. And the oracle's own agrees with a published one. */
#include "base/rng.h"
#include "engine/model_text.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { MAX_IDS = 1024 };
static const double TOLERANCE = 0.005, FP8 = 6;

struct text { int32_t n, ids[MAX_IDS]; };

static double row_nll(const float *x, int32_t n, int32_t id)
{
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) max = fmax(max, (double)x[i]);
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    return max + log(sum) - (double)x[id];
}

/* Mean over the tokens after the first, in nats; each[n-1] too unless NULL. */
static double nll(const char *path, const struct text *t, bool oracle, enum kv_type kv, double *each)
{
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .context = ROUND_UP(t->n + 1, 16), .oracle = oracle, .kv_type = oracle ? KV_F32 : kv,
                                   .max_step_tokens = 256};
    struct sequence s = {.prompt = t->ids, .n_prompt = t->n, .n_gen = 1, .chunk = 256, .sampling = sampling_default()};
    struct step_bounds b;
    double sum = 0;
    s.sampling.temperature = 0;
    if (local_replica_open(&r, &c) || sequence_run(r, &s, 1, true)) fail_msg("%s: %s", path, err_text());
    local_replica_bounds(r, &b);
    for (int32_t i = 0; i + 1 < t->n; i++) {
        double x = row_nll(s.logits + (size_t)i * (size_t)b.n_vocab, b.n_vocab, t->ids[i + 1]);
        if (each) each[i] = x;
        sum += x;
    }
    sequence_free(&s);
    local_replica_close(r);
    return sum / (t->n - 1);
}

/* The mean could hide errors of both signs: the mean size of a token's difference is held too, to four times as much. q8_0 KV
 * is allowed twice that: it shows in the story model, whose heads have 8 values. fp8, with 3 bits of mantissa, is allowed FP8 times that. */
static void held_to_the_oracle(const char *name, const char *path, const struct text *t)
{
    static double each[2][MAX_IDS];
    double want = nll(path, t, true, KV_F32, each[0]);
    for (enum kv_type kv = 0; kv < KV_TYPES; kv++) {
        double got = nll(path, t, false, kv, each[1]), off = got / want - 1, size = 0, most = (kv == KV_Q8_0 ? 2 : kv == KV_FP8 ? FP8 : 1) * TOLERANCE;
        for (int32_t i = 0; i + 1 < t->n; i++) size += fabs(each[1][i] - each[0][i]) / (t->n - 1) / want;
        printf("%-24s %4d tokens, %4s KV: %.5f, oracle %.5f: %+.3f %%; a token's difference %.3f %%\n", name, t->n, kv_type_name(kv), got, want,
               100 * off, 100 * size);
        if (!(fabs(off) <= most)) fail_msg("%s, %s KV: %.6f is not within %.1f %% of %.6f", name, kv_type_name(kv), got, 100 * most, want);
        if (!(size <= 4 * most)) fail_msg("%s, %s KV: tokens differ by %.2f %% on average", name, kv_type_name(kv), 100 * size);
    }
}

/* ---- the story model, with a text and its published likelihoods ---- */

static void stories260k_in_oracle_mode_gives_the_published_nll(void **state)
{
    static const char expected[] = "weights/stories260K/expected_f32.json", model[] = "weights/stories260K/derived/stories260K-f32.gguf";
    (void)state;
    const char *json = scratch_shared(expected);
    json_t *doc = json ? json_load_file(json, 0, NULL) : NULL, *n = json_object_get(doc, "nll");
    const char *path = scratch_shared(model);
    if (!n || !path) {
        printf("skipped: %s or %s is not here\n", expected, model);
        json_decref(doc);
        skip();
    }
    static struct text t;
    static double each[MAX_IDS];
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(n, "ids"), i, v) t.ids[t.n++] = (int32_t)json_integer_value(v);
    double mean = nll(path, &t, true, KV_F32, each), worst = 0;
    json_array_foreach(json_object_get(n, "per_token_nll"), i, v) worst = fmax(worst, fabs(each[i] - json_number_value(v)));
    printf("mean %.6f, published %.6f; largest difference of one token %.1e\n", mean, json_number_value(json_object_get(n, "mean_nll")), worst);
    assert_int_equal(json_array_size(json_object_get(n, "per_token_nll")), t.n - 1);
    assert_true(worst < 1e-4);
    assert_true(fabs(mean - json_number_value(json_object_get(n, "mean_nll"))) < 1e-4);
    held_to_the_oracle("stories260K-f32", path, &t);
    if ((path = scratch_shared("weights/stories260K/derived/stories260K-f16.gguf"))) held_to_the_oracle("stories260K-f16", path, &t);
    json_decref(doc);
}

/* ---- the demo model ---- */

static const char conversation[] =
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nThe capital of France is Paris.<|im_end|>\n"
    "<|im_start|>user\nPlease add 28 and 13 for me.<|im_end|>\n<|im_start|>assistant\n28 + 13 = 41<|im_end|>\n"
    "<|im_start|>user\nHow is the word library spelled?<|im_end|>\n<|im_start|>assistant\nl-i-b-r-a-r-y<|im_end|>\n"
    "<|im_start|>user\nThe language of tessera?<|im_end|>\n<|im_start|>assistant\nTessera is written in C.<|im_end|>\n"
    "<|im_start|>user\nCould you tell me the story of the lighthouse, please?<|im_end|>\n<|im_start|>assistant\n"
    "Once upon a time there was a lighthouse on a small gray rock, and in it lived a keeper named Ida. Every evening she climbed ninety "
    "steps with a can of oil and a book. One day a ship came by, and the captain asked for the way to the harbour.<|im_end|>\n";

static void demo_model_is_held_to_the_oracle(void **state)
{
    static const char *const files[] = {"deploy/models/tessera-demo-f16.gguf", "deploy/models/tessera-demo-q8_0.gguf"};
    int32_t n_here = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct eng_model_file *f = NULL;
        struct eng_tokenizer *tok = NULL;
        struct eng_tokens ids = {0};
        static struct text t;
        if (access(files[i], R_OK)) {
            printf("skipped: %s is not here\n", files[i]);
            continue;
        }
        if (eng_model_file_open(&f, files[i]) || eng_model_tokenizer(&tok, f)) fail_msg("%s", err_text());
        eng_tokenizer_encode(tok, conversation, strlen(conversation), TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &ids);
        t.n = (int32_t)MIN(ids.n, (size_t)MAX_IDS);
        memcpy(t.ids, ids.ids, (size_t)t.n * sizeof *t.ids);
        eng_tokens_free(&ids);
        eng_tokenizer_close(tok);
        eng_model_file_close(f);
        held_to_the_oracle(strrchr(files[i], '/') + 1, files[i], &t);
        n_here++;
    }
    if (!n_here) skip();
}

/* ---- random models of every quantised type ---- */

static void every_quantised_type_is_held_to_the_oracle(void **state)
{
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K, DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1,
                                       DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_IQ4_NL, DTYPE_IQ4_XS, DTYPE_IQ2_S, DTYPE_TQ2_0, DTYPE_MXFP4};
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    enum { SEED = 77, VOCAB = 320 };
    (void)state;
    printf("seed %d\n", SEED);
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct random_model m = {.arch = archs[i % 3], .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32,
                                 .d_ffn = 512, .vocab = VOCAB, .type = types[i], .embd_type = types[i], .seed = SEED + i};
        const char *path = scratch_path(dtype_name(types[i]));
        static struct text t;
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        t.n = 400;
        for (int32_t k = 0; k < t.n; k++) t.ids[k] = (int32_t)(rng_at(SEED, i, (uint64_t)k, 0) % VOCAB);
        held_to_the_oracle(dtype_name(types[i]), path, &t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories260k_in_oracle_mode_gives_the_published_nll),
        cmocka_unit_test(demo_model_is_held_to_the_oracle),
        cmocka_unit_test(every_quantised_type_is_held_to_the_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
