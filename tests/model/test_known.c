/* Known answers: the models at hand give the tokens and logits that their authors' programs gave. */
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

static const char *shared_path(const char *rel)
{
    static char path[4096];
    const char *root = getenv("TESSERA_SHARED");
    snprintf(path, sizeof path, "%s/data/%s", root ? root : "../shared", rel);
    if (access(path, R_OK)) {
        printf("skipped: %s is not here\n", rel);
        skip();
    }
    return path;
}

static void agrees_with(const char *model, const char *expected, bool logits, double tolerance)
{
    char path[4096];
    json_error_t je;
    snprintf(path, sizeof path, "%s", shared_path(model));
    json_t *doc = json_load_file(shared_path(expected), 0, &je);
    assert_non_null(doc);
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .oracle = true, .kv_type = KV_F32};
    enum err e = local_replica_open(&r, &c);
    if (e) fail_msg("%s", err_text());
    struct step_bounds b;
    local_replica_bounds(r, &b);
    size_t i;
    json_t *kase;
    json_array_foreach(json_object_get(doc, "cases"), i, kase) {
        json_t *pj = json_object_get(kase, "prompt_ids"), *gj = json_object_get(kase, "greedy_ids"),
               *margins = json_object_get(kase, "top2_margins"), *first = json_object_get(kase, "first_step_logits");
        if (!first) first = json_object_get(kase, "logits_first64");
        bool clear = margins || json_real_value(json_object_get(kase, "top2_margin_min")) >= 1e-3;
        int32_t prompt[512], n = (int32_t)json_array_size(pj);
        for (int32_t k = 0; k < n; k++) prompt[k] = (int32_t)json_integer_value(json_array_get(pj, (size_t)k));
        struct sequence s = {.prompt = prompt, .n_prompt = n, .n_gen = (int32_t)json_array_size(gj), .sampling = sampling_default()};
        s.sampling.temperature = 0;
        s.sampling.max_tokens = 1000;
        if (!s.n_gen) continue;
        e = sequence_run(r, &s, 1, true);
        if (e) fail_msg("%s", err_text());
        for (int32_t k = 0; clear && k < s.n_gen; k++) {
            if (margins && json_real_value(json_array_get(margins, (size_t)k)) < 1e-3) break;
            if (s.tokens[n + k] != (int32_t)json_integer_value(json_array_get(gj, (size_t)k)))
                fail_msg("%s case %zu: token %d is %d, expected %d", model, i, k, s.tokens[n + k],
                         (int32_t)json_integer_value(json_array_get(gj, (size_t)k)));
        }
        double worst = 0;
        for (size_t v = 0; logits && first && v < json_array_size(first); v++)
            worst = fmax(worst, fabs(json_number_value(json_array_get(first, v)) -
                                     (double)s.logits[(size_t)(n - 1) * (size_t)b.n_vocab + v]));
        if (worst > tolerance) fail_msg("%s case %zu: first logits differ by %g, allowed %g", model, i, worst, tolerance);
        if (logits) printf("%s case %zu: largest logit difference %.2e\n", model, i, worst);
        sequence_free(&s);
    }
    local_replica_close(r);
    json_decref(doc);
}

static void stories260k_f32_greedy_ids_are_the_published_ones(void **state)
{
    (void)state;
    agrees_with("weights/stories260K/derived/stories260K-f32.gguf", "weights/stories260K/expected_f32.json", true, 2e-3);
}

static void stories260k_f16_greedy_ids_are_the_published_ones(void **state)
{
    (void)state;
    agrees_with("weights/stories260K/derived/stories260K-f16.gguf", "weights/stories260K/derived/expected_f16.json", true, 2e-3);
}

static void llama2_tiny_random_logits_agree(void **state)
{
    (void)state;
    agrees_with("weights/llama-2-tiny-random.gguf", "weights/llama-2-tiny-random.expected.json", true, 2e-3);
}

static void stories260k_checkpoint_greedy_ids_are_the_published_ones(void **state)
{
    (void)state;
    agrees_with("weights/stories260K/derived/hf-f32", "weights/stories260K/expected_f32.json", true, 2e-3);
}

/* A third party's checkpoint: BF16, llama3 scaling, tensors in no order. */
static void tiny_llama3_checkpoint_logits_agree(void **state)
{
    (void)state;
    char path[4096];
    json_error_t je;
    snprintf(path, sizeof path, "%s", shared_path("weights/mlxd/tiny_llama3"));
    json_t *doc = json_load_file(shared_path("weights/mlxd/tiny_llama3/expected_logits.json"), 0, &je);
    assert_non_null(doc);
    json_t *ids = json_object_get(doc, "input_ids"), *last = json_object_get(doc, "last_logits"),
           *best = json_object_get(doc, "argmax_per_position");
    int32_t prompt[64], n = (int32_t)json_array_size(ids), n_vocab = (int32_t)json_array_size(last);
    for (int32_t i = 0; i < n; i++) prompt[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .oracle = true, .kv_type = KV_F32};
    if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
    struct sequence s = {.prompt = prompt, .n_prompt = n, .n_gen = 1, .sampling = sampling_default()};
    if (sequence_run(r, &s, 1, true)) fail_msg("%s", err_text());
    assert_true(n > 4 && n_vocab == 256);
    for (int32_t i = 0; i < n; i++) {
        const float *row = s.logits + (size_t)i * (size_t)n_vocab;
        int32_t top = 0;
        for (int32_t v = 1; v < n_vocab; v++)
            if (row[v] > row[top]) top = v;
        assert_int_equal(top, json_integer_value(json_array_get(best, (size_t)i)));
        for (int32_t v = 0; v < n_vocab && i == n - 1; v++)
            assert_true(fabs((double)row[v] - json_number_value(json_array_get(last, (size_t)v))) < 1e-5);
    }
    sequence_free(&s);
    local_replica_close(r);
    json_decref(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories260k_f32_greedy_ids_are_the_published_ones),
        cmocka_unit_test(stories260k_f16_greedy_ids_are_the_published_ones),
        cmocka_unit_test(llama2_tiny_random_logits_agree),
        cmocka_unit_test(stories260k_checkpoint_greedy_ids_are_the_published_ones),
        cmocka_unit_test(tiny_llama3_checkpoint_logits_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
