/* test_types.c: a model of a quantised type says in oracle mode, bit for bit, what a model of F32 with the same dequantised weights says:
 * so whatever is true of the values (tests/file/test_dequant.c) is true of the model. And its weights take what a plan counts. */
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_PROMPT = 24, N_GEN = 4, VOCAB = 320 };

/* Every row of logits of a short text. Own: free(). */
static float *logits_of(const char *path, size_t *n)
{
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .context = 64, .oracle = true, .kv_type = KV_F32};
    int32_t prompt[N_PROMPT];
    for (int32_t i = 0; i < N_PROMPT; i++) prompt[i] = i * 13 % VOCAB;
    struct sequence s = {.prompt = prompt, .n_prompt = N_PROMPT, .n_gen = N_GEN, .chunk = 7, .sampling = sampling_default()};
    struct step_bounds b;
    s.sampling.temperature = 0;
    if (local_replica_open(&r, &c) || sequence_run(r, &s, 1, true)) fail_msg("%s: %s", path, err_text());
    local_replica_bounds(r, &b);
    /* what a plan counts from the header is what was loaded */
    struct grid g;
    struct eng_engine_need need;
    if (eng_engine_grid(path, 1, 1, &g) || eng_engine_need(path, &g, 0, KV_F32, 512, 64, &need)) fail_msg("%s: %s", path, err_text());
    assert_int_equal(need.weight_bytes, local_replica_weight_bytes(r, 0));
    *n = (size_t)(N_PROMPT + N_GEN - 1) * (size_t)b.n_vocab;
    float *out = xmalloc(*n * sizeof *out);
    memcpy(out, s.logits, *n * sizeof *out);
    sequence_free(&s);
    local_replica_close(r);
    return out;
}

static void same_as_its_twin(struct random_model m, const char *name)
{
    size_t n[2];
    float *x[2];
    for (int i = 0; i < 2; i++) {
        char file[64];
        snprintf(file, sizeof file, "%s%s", name, i ? "-f32" : "");
        const char *path = scratch_path(file);
        m.as_f32 = i;
        if (random_model_write(&m, path)) fail_msg("%s", err_text());
        x[i] = logits_of(path, &n[i]);
    }
    assert_int_equal(n[0], n[1]);
    for (size_t i = 0; i < n[0]; i++)
        if (memcmp(x[0] + i, x[1] + i, sizeof **x)) fail_msg("%s: logit %zu is %a, not %a", name, i, (double)x[0][i], (double)x[1][i]);
    free(x[0]);
    free(x[1]);
}

static void every_type_gives_the_bits_of_its_f32_twin(void **state)
{
    (void)state;
    for (int t = 0; t < DTYPE_COUNT; t++) {
        if (dtype_block((enum dtype)t) == 1) continue;
        same_as_its_twin((struct random_model){.arch = "llama", .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32,
                                               .d_ffn = 512, .vocab = VOCAB, .type = (enum dtype)t, .embd_type = (enum dtype)t,
                                               .seed = 500 + (uint64_t)t},
                         dtype_name((enum dtype)t));
    }
}

/* As gpt-oss comes: experts of MXFP4, the rest of other types. */
static void experts_of_mxfp4_give_the_bits_of_their_f32_twin(void **state)
{
    (void)state;
    same_as_its_twin((struct random_model){.arch = "gpt-oss", .n_layer = 2, .d_model = 64, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 288,
                                           .n_expert = 6, .n_used = 2, .d_expert = 288, .window = 9, .vocab = VOCAB, .type = DTYPE_MXFP4,
                                           .embd_type = DTYPE_Q8_0, .seed = 600},
                     "gpt-oss");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_gives_the_bits_of_its_f32_twin),
        cmocka_unit_test(experts_of_mxfp4_give_the_bits_of_their_f32_twin),
    };
    return cmocka_run_group_tests_name("model_types", tests, NULL, NULL);
}
