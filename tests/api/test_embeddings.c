/* embeddings: inputs understood, vectors as each endpoint shows them, whatever was asked of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/api/request.h"
#include "tests/api/support.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static struct test_api t;

static int setup(void **state)
{
    (void)state;
    test_api_open(&t, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_api_close(&t);
    return 0;
}

static json_t *ask(enum crd_endpoint ep, const char *body, int status)
{
    struct outcome o;
    test_api_run(&t, ep, body, &o);
    if (o.status != status) printf("%s\n -> %d %s\n", body, o.status, buf_str(&o.bytes));
    assert_int_equal(o.status, status);
    json_t *j = json_loadb((char *)o.bytes.data, o.bytes.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    outcome_free(&o);
    return j;
}

static const json_t *vector_of(const json_t *answer, size_t i)
{
    return json_object_get(json_array_get(json_object_get(answer, "data"), i), "embedding");
}

/* What is shown of this prompt of single-byte tokens. */
static void expected(enum step_pool pool, const char *text, int32_t n, bool unit, float *v)
{
    int32_t ids[64];
    for (int32_t i = 0; text[i]; i++) ids[i] = (unsigned char)text[i];
    fake_vector(pool, ids, (int32_t)strlen(text), v);
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    for (int32_t i = 0; i < n && unit; i++) v[i] = (float)((double)v[i] / sqrt(sum));
}

static void check(const json_t *got, const float *want, size_t n)
{
    assert_int_equal(json_array_size(got), n);
    for (size_t i = 0; i < n; i++) { /* nine digits give back every float */
        float x = (float)json_number_value(json_array_get(got, i));
        assert_memory_equal(&x, &want[i], sizeof x);
    }
}

#define IN "\"add_special_tokens\":false,\"input\":"

static void an_answer_has_openais_form(void **state)
{
    (void)state;
    float want[FAKE_DIM];
    json_t *j = ask(ENDPOINT_EMBEDDINGS, "{" IN "[\"ab\",\"xyz\"]}", 200);
    const json_t *data = json_object_get(j, "data"), *usage = json_object_get(j, "usage");
    assert_string_equal(json_str(j, "object"), "list");
    assert_string_equal(json_str(j, "model"), "test-model");
    assert_int_equal(json_array_size(data), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *e = json_array_get(data, i);
        assert_string_equal(json_str(e, "object"), "embedding");
        assert_int_equal(json_num(e, "index"), i);
        expected(POOL_LAST, i ? "xyz" : "ab", FAKE_DIM, true, want);
        check(vector_of(j, i), want, FAKE_DIM);
    }
    assert_int_equal(json_num(usage, "prompt_tokens"), 5);
    assert_int_equal(json_num(usage, "total_tokens"), 5);
    json_decref(j);
}

static void every_shape_of_input_is_understood(void **state)
{
    (void)state;
    static const char *const shapes[] = {"\"ab\"", "[\"ab\"]", "[97,98]", "[[97,98]]"};
    float want[FAKE_DIM];
    expected(POOL_LAST, "ab", FAKE_DIM, true, want);
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        char body[128];
        snprintf(body, sizeof body, "{" IN "%s}", shapes[i]);
        json_t *j = ask(ENDPOINT_EMBEDDINGS, body, 200);
        check(vector_of(j, 0), want, FAKE_DIM);
        json_decref(j);
    }
    struct gen_request r = fake_last(t.fake);
    assert_int_equal(r.pool, POOL_LAST);
    assert_int_equal(r.n, 1);
    assert_false(r.prompt_logits || r.sample_logits);
}

static void vectors_are_as_asked(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        enum step_pool pool;
        int32_t n;
        bool unit;
    } rows[] = {
        {"", POOL_LAST, FAKE_DIM, true},
        {"\"pooling\":\"mean\",", POOL_MEAN, FAKE_DIM, true},
        {"\"pooling\":\"last\",", POOL_LAST, FAKE_DIM, true},
        {"\"normalize\":false,", POOL_LAST, FAKE_DIM, false},
        {"\"dimensions\":2,", POOL_LAST, 2, true}, /* shortened, then made of length 1 again */
        {"\"dimensions\":3,\"normalize\":false,\"pooling\":\"mean\",", POOL_MEAN, 3, false},
        {"\"encoding_format\":\"float\",\"user\":\"u\",\"whatever\":1,", POOL_LAST, FAKE_DIM, true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char body[256];
        float want[FAKE_DIM];
        snprintf(body, sizeof body, "{%s" IN "\"abz\"}", rows[i].more);
        json_t *j = ask(ENDPOINT_EMBEDDINGS, body, 200);
        expected(rows[i].pool, "abz", rows[i].n, rows[i].unit, want);
        check(vector_of(j, 0), want, (size_t)rows[i].n);
        json_decref(j);
    }
}

static void base64_is_the_same_floats(void **state)
{
    (void)state;
    float want[FAKE_DIM], got[FAKE_DIM];
    size_t n;
    json_t *j = ask(ENDPOINT_EMBEDDINGS, "{\"encoding_format\":\"base64\"," IN "\"abz\"}", 200);
    const char *text = json_string_value(vector_of(j, 0));
    assert_non_null(text);
    assert_int_equal(sodium_base642bin((unsigned char *)got, sizeof got, text, strlen(text), NULL, &n,
                                       NULL, sodium_base64_VARIANT_ORIGINAL),
                     0);
    expected(POOL_LAST, "abz", FAKE_DIM, true, want);
    assert_int_equal(n, sizeof got);
    assert_memory_equal(got, want, sizeof got);
    json_decref(j);
}

static void the_servers_pooling_is_the_default(void **state)
{
    (void)state;
    t.api.pooling = POOL_MEAN;
    json_decref(ask(ENDPOINT_EMBEDDINGS, "{\"input\":\"a\"}", 200));
    assert_int_equal(fake_last(t.fake).pool, POOL_MEAN);
    t.api.pooling = POOL_NONE; /* the model was made for a way that we do not have */
    json_t *j = ask(ENDPOINT_EMBEDDINGS, "{\"input\":\"a\"}", 400);
    assert_non_null(strstr(json_str(json_object_get(j, "error"), "message"), "pooling"));
    json_decref(j);
    json_decref(ask(ENDPOINT_EMBEDDINGS, "{\"input\":\"a\",\"pooling\":\"last\"}", 200));
}

/* A prompt may fill the context: nothing is generated behind it. */
static void lengths(void **state)
{
    (void)state;
    char text[TEST_CONTEXT + 2], body[TEST_CONTEXT + 200];
    memset(text, 'a', sizeof text);
    text[TEST_CONTEXT] = 0;
    snprintf(body, sizeof body, "{" IN "\"%s\"}", text);
    json_t *j = ask(ENDPOINT_EMBEDDINGS, body, 200);
    assert_int_equal(json_num(json_object_get(j, "usage"), "prompt_tokens"), TEST_CONTEXT);
    json_decref(j);
    text[TEST_CONTEXT] = 'z', text[TEST_CONTEXT + 1] = 0;
    snprintf(body, sizeof body, "{" IN "[\"b\",\"%s\"]}", text);
    j = ask(ENDPOINT_EMBEDDINGS, body, 400);
    const json_t *e = json_object_get(j, "error");
    assert_string_equal(json_str(e, "param"), "input_tokens");
    assert_non_null(strstr(json_str(e, "message"), "This model's maximum context length is 300"));
    json_decref(j);
    snprintf(body, sizeof body, "{\"truncate_prompt_tokens\":-1," IN "\"%s\"}", text);
    json_decref(ask(ENDPOINT_EMBEDDINGS, body, 200));
    assert_int_equal(fake_last(t.fake).n_prompt, TEST_CONTEXT);
    assert_int_equal(fake_last(t.fake).prompt[TEST_CONTEXT - 1], 'z'); /* its end is kept */
    snprintf(body, sizeof body, "{\"input\":\"%s\"}", text);
    json_decref(ask(ENDPOINT_OLLAMA_EMBED, body, 200));
    assert_int_equal(fake_last(t.fake).n_prompt, TEST_CONTEXT); /* and Ollama keeps the beginning */
    assert_int_equal(fake_last(t.fake).prompt[TEST_CONTEXT - 1], 'a');
    snprintf(body, sizeof body, "{\"truncate\":false,\"input\":\"%s\"}", text);
    json_decref(ask(ENDPOINT_OLLAMA_EMBED, body, 400));
}

static void ollamas_two_endpoints(void **state)
{
    (void)state;
    float want[FAKE_DIM];
    json_t *j = ask(ENDPOINT_OLLAMA_EMBED,
                    "{\"model\":\"test-model:latest\",\"input\":[\"a\",\"b\"],\"keep_alive\":5}", 200);
    assert_int_equal(json_array_size(json_object_get(j, "embeddings")), 2);
    fake_vector(POOL_LAST, fake_last(t.fake).prompt, fake_last(t.fake).n_prompt, want);
    assert_true(json_num(j, "prompt_eval_count") >= 2);
    assert_true(json_is_integer(json_object_get(j, "total_duration")));
    double sum = 0;
    for (size_t i = 0; i < FAKE_DIM; i++) {
        const json_t *v = json_array_get(json_object_get(j, "embeddings"), 1);
        sum += pow(json_number_value(json_array_get(v, i)), 2);
    }
    assert_true(fabs(sum - 1) < 1e-6);
    json_decref(j);
    j = ask(ENDPOINT_OLLAMA_EMBEDDINGS, "{\"prompt\":\"b\"}", 200);
    check(json_object_get(j, "embedding"), want, FAKE_DIM); /* as it is */
    json_decref(j);
}

static void a_refusal_is_one_for_all_inputs(void **state)
{
    (void)state;
    test_api_plan(&t, (struct fake_plan){.refuse = ERR_QUEUE_FULL, .refusal = "too many wait"});
    json_t *j = ask(ENDPOINT_EMBEDDINGS, "{\"input\":[\"a\",\"b\",\"c\"]}", 503);
    assert_non_null(json_object_get(j, "error"));
    json_decref(j);
}

static void many_inputs_keep_their_order(void **state)
{
    (void)state;
    struct buf body = {0};
    buf_puts(&body, "{\"normalize\":false,\"input\":[");
    for (int i = 0; i < EMBEDDINGS_MAX_INPUTS; i++) buf_printf(&body, "%s[%d]", i ? "," : "", i % 200);
    buf_puts(&body, "]}");
    json_t *j = ask(ENDPOINT_EMBEDDINGS, buf_str(&body), 200);
    for (size_t i = 0; i < EMBEDDINGS_MAX_INPUTS; i++)
        assert_int_equal(json_number_value(json_array_get(vector_of(j, i), 0)), i % 200);
    json_decref(j);
    body.len -= 2;
    buf_puts(&body, ",[1]]}");
    j = ask(ENDPOINT_EMBEDDINGS, buf_str(&body), 400);
    assert_string_equal(json_str(json_object_get(j, "error"), "param"), "input");
    json_decref(j);
    buf_free(&body);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(an_answer_has_openais_form), T(every_shape_of_input_is_understood),
        T(vectors_are_as_asked),       T(base64_is_the_same_floats),
        T(the_servers_pooling_is_the_default), T(lengths),
        T(ollamas_two_endpoints),      T(a_refusal_is_one_for_all_inputs),
        T(many_inputs_keep_their_order),
    };
    return cmocka_run_group_tests_name("embeddings", tests, NULL, NULL);
}
