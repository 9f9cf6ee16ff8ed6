/* http: the endpoints on a real socket, gateway and api together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"
#include "tests/api/support.h"
#include "tests/gateway/client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct test_api t;
static struct gw *gw;

static int setup(void **state)
{
    struct gw_conf conf = {.host = "127.0.0.1",
                           .max_body = 1 << 20,
                           .header_timeout_s = 5,
                           .idle_timeout_s = 30,
                           .ping_ms = 100,
                           .max_connections = 256};
    (void)state;
    test_api_open(&t, 2);
    assert_int_equal(
        gw_open(&gw, &conf, crd_api_routes, crd_api_n_routes, crd_api_fallback, crd_access_gate,
                &t.api), OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gw_close(gw);
    test_api_close(&t);
    return 0;
}

static json_t *fetch(const char *method, const char *path, const char *body, int status)
{
    struct answer a;
    client_fetch(gw_port(gw), method, path, body, &a);
    if (a.status != status) printf("%s %s -> %d %s\n", method, path, a.status, buf_str(&a.body));
    assert_int_equal(a.status, status);
    json_t *j = json_loads(buf_str(&a.body), JSON_ALLOW_NUL, NULL);
    assert_non_null(j);
    answer_free(&a);
    return j;
}

static const char *str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}
static const char *error_of(const json_t *o)
{
    return str(json_object_get(o, "error"), "message");
}

#define CHAT "/v1/chat/completions"
#define MSG  "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void chat_streams_over_a_socket(void **state)
{
    struct client c;
    struct answer a;
    (void)state;
    test_api_say(&t, "Good morning", 12);
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, "X-Request-Id: abc\r\n", "{" MSG ",\"stream\":true}");
    client_answer(&c, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Content-Type"), "text/event-stream; charset=utf-8");
    assert_string_equal(answer_header(&a, "X-Request-Id"), "abc");
    json_t *j = stream_assemble(buf_str(&a.body), ENDPOINT_CHAT);
    assert_string_equal(str(json_array_get(json_object_get(j, "choices"), 0), "text"),
                        "Good morning");
    assert_string_equal(str(j, "id"), "chatcmpl-abc");
    json_decref(j);
    answer_free(&a);
    client_request(&c, "POST", CHAT, NULL, "{" MSG "}"); /* the same connection */
    client_answer(&c, &a);
    assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
    assert_non_null(strstr(buf_str(&a.body), "\"content\":\"Good morning\""));
    answer_free(&a);
    client_close(&c);
}

static void errors_come_before_the_stream(void **state)
{
    struct answer a;
    (void)state;
    test_api_plan(
        &t, (struct fake_plan){.refuse = ERR_QUEUE_FULL, .refusal = "256 requests wait already"});
    client_fetch(gw_port(gw), "POST", CHAT, "{" MSG ",\"stream\":true}", &a);
    assert_int_equal(a.status, 503);
    assert_string_equal(answer_header(&a, "Retry-After"), "1");
    assert_non_null(strstr(buf_str(&a.body), "256 requests wait already"));
    answer_free(&a);
    json_decref(fetch("POST", CHAT, "{" MSG ",\"temperature\":-1}", 400));
}

static bool eventually_cancelled(int32_t n)
{
    for (int64_t end = clock_us() + 5000000; clock_us() < end; clock_sleep_us(1000))
        if (fake_cancelled(t.fake) == n && !fake_live(t.fake)) return true;
    return false;
}

static void a_client_that_leaves_cancels(void **state)
{
    struct client c;
    (void)state;
    test_api_say(&t, "abc", 3);
    test_api_plan(&t, (struct fake_plan){.token_us = 5000});
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, NULL, "{" MSG ",\"stream\":true,\"ignore_eos\":true}");
    assert_true(client_until(&c, "\"content\":\"a\"", 5000));
    client_close(&c);
    assert_true(eventually_cancelled(1));
    test_api_plan(&t,
                  (struct fake_plan){.hold = true}); /* nothing was said yet: not even a header */
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, NULL, "{" MSG "}");
    for (int64_t end = clock_us() + 5000000; !fake_live(t.fake) && clock_us() < end;)
        clock_sleep_us(1000);
    client_close(&c);
    assert_true(eventually_cancelled(2));
    assert_int_equal(gw_active(gw), 0);
}

static void silence_is_filled_with_pings(void **state)
{
    struct client c;
    struct answer a;
    (void)state;
    test_api_say(&t, "late", 4);
    test_api_plan(&t, (struct fake_plan){.hold = true});
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, NULL, "{" MSG ",\"stream\":true}");
    assert_true(client_until(&c, ": ping\n\n", 5000));
    fake_release(t.fake);
    client_answer(&c, &a);
    json_t *j = stream_assemble(buf_str(&a.body), ENDPOINT_CHAT);
    assert_string_equal(str(json_array_get(json_object_get(j, "choices"), 0), "text"), "late");
    json_decref(j);
    answer_free(&a);
    client_close(&c);
}

static void health_follows_the_service(void **state)
{
    (void)state;
    json_t *j = fetch("GET", "/health", NULL, 200);
    assert_string_equal(str(j, "status"), "ok");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "cluster"), "replicas")),
                     1);
    json_decref(j);
    fake_set_state(t.fake, SERVICE_DEGRADED, "rank 1 on \"hostB\" has not answered for 12.4 s");
    j = fetch("GET", "/health", NULL, 503);
    assert_string_equal(str(j, "status"), "degraded");
    assert_string_equal(error_of(j), "rank 1 on \"hostB\" has not answered for 12.4 s");
    json_decref(j);
}

static void models_are_listed(void **state)
{
    (void)state;
    json_t *j = fetch("GET", "/v1/models", NULL, 200),
           *first = json_array_get(json_object_get(j, "data"), 0);
    assert_int_equal(json_array_size(json_object_get(j, "data")), 2);
    assert_string_equal(str(first, "id"), "test-model");
    assert_int_equal(json_integer_value(json_object_get(first, "max_model_len")), TEST_CONTEXT);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(first, "meta"), "n_vocab")),
                     TEST_VOCAB);
    /* as Anthropic's clients want it */
    assert_string_equal(str(first, "type"), "model");
    assert_string_equal(str(first, "display_name"), "test-model");
    assert_int_equal(strlen(str(first, "created_at")), strlen("2026-01-31T12:00:00Z"));
    assert_string_equal(str(j, "last_id"), "alias");
    json_t *slash = fetch("GET", "/v1/models/", NULL, 200);
    assert_true(json_equal(j, slash));
    json_decref(slash);
    json_decref(j);
    j = fetch("GET", "/v1/models/alias", NULL, 200);
    assert_string_equal(str(j, "id"), "alias");
    json_decref(j);
    j = fetch("GET", "/v1/models/other", NULL, 404);
    assert_string_equal(error_of(j), "The model `other` does not exist. This server serves `test-model`.");
    json_decref(j);
}

static void adapters_are_models_with_a_parent(void **state)
{
    static const char *const names[] = {"first", "second", NULL};
    struct answer a;
    (void)state;
    t.api.adapter_names = names;
    json_t *j = fetch("GET", "/v1/models", NULL, 200), *data = json_object_get(j, "data");
    assert_int_equal(json_array_size(data), 4);
    assert_true(json_is_null(json_object_get(json_array_get(data, 0), "parent")));
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(str(json_array_get(data, 2 + i), "id"), names[i]);
        assert_string_equal(str(json_array_get(data, 2 + i), "parent"), "test-model");
    }
    assert_string_equal(str(j, "last_id"), "second");
    json_decref(j);
    j = fetch("GET", "/v1/models/second", NULL, 200);
    assert_string_equal(str(j, "parent"), "test-model");
    json_decref(j);
    j = fetch("GET", "/api/tags", NULL, 200);
    assert_int_equal(json_array_size(json_object_get(j, "models")), 4);
    json_decref(j);
    static const struct { const char *model; int32_t adapter; const char *says; } asked[] = {
        {"second", 2, "second"}, {"first", 1, "first"}, {"test-model", 0, "test-model"}, {"alias", 0, "test-model"}, {"", 0, "test-model"}};
    for (size_t i = 0; i < COUNT_OF(asked); i++) {
        char *body = xasprintf("{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":2}", asked[i].model);
        j = fetch("POST", CHAT, body, 200);
        assert_string_equal(str(j, "model"), asked[i].says);
        assert_int_equal(fake_last(t.fake).adapter, asked[i].adapter);
        json_decref(j);
        free(body);
    }
    json_decref(fetch("POST", CHAT, "{\"model\":\"First\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", 404));
    j = fetch("POST", "/v1/load_lora_adapter", "{\"lora_name\":\"x\",\"lora_path\":\"/x\"}", 404);
    assert_non_null(strstr(error_of(j), "--lora NAME=PATH"));
    json_decref(j);
    client_fetch(gw_port(gw), "GET", "/metrics", NULL, &a);
    assert_non_null(strstr(buf_str(&a.body), "vllm:lora_requests_info{model_name=\"test-model\",engine=\"0\",max_lora=\"2\",waiting_lora_adapters=\"\","
                                             "running_lora_adapters=\"\"}"));
    answer_free(&a);
    t.api.adapter_names = NULL;
}

static void unknown_places_are_said(void **state)
{
    struct answer a;
    (void)state;
    json_t *o = fetch("POST", "/api/pull", "{\"name\":\"m\"}", 404); /* Ollama's form */
    assert_non_null(strstr(json_string_value(json_object_get(o, "error")), "tessera pull"));
    json_decref(o);
    json_t *j = fetch("GET", "/nothing", NULL, 404);
    assert_string_equal(str(json_object_get(j, "error"), "type"), "NotFoundError");
    json_decref(j);
    client_fetch(gw_port(gw), "GET", CHAT, NULL, &a);
    assert_int_equal(a.status, 405);
    assert_string_equal(answer_header(&a, "Allow"), "POST");
    answer_free(&a);
    j = fetch("GET", "/version", NULL, 200);
    assert_non_null(str(j, "version"));
    json_decref(j);
}

static void texts_and_tokens(void **state)
{
    (void)state;
    json_t *j = fetch("POST", "/tokenize", "{\"prompt\":\"ab\",\"return_token_strs\":true}", 200);
    assert_int_equal(json_integer_value(json_object_get(j, "count")), 3); /* <s> a b */
    assert_int_equal(json_integer_value(json_object_get(j, "max_model_len")), TEST_CONTEXT);
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "token_strs"), 1)),
                        "a");
    json_t *ids = json_incref(json_object_get(j, "tokens"));
    json_decref(j);
    json_t *body = json_pack("{s:o}", "tokens", ids);
    char *text = json_dumps(body, 0);
    j = fetch("POST", "/detokenize", text, 200);
    assert_string_equal(str(j, "prompt"), "<s>ab");
    json_decref(j);
    json_decref(body);
    free(text);
    j = fetch("POST", "/tokenize", "{\"content\":\"ab\",\"add_special_tokens\":false}", 200);
    assert_int_equal(json_integer_value(json_object_get(j, "count")), 2);
    json_decref(j);
    j = fetch("POST", "/tokenize", "{" MSG "}", 200);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(j, "tokens"), 0)),
                     TOKEN_IM_START);
    json_decref(j);
    json_decref(fetch("POST", "/tokenize", "{}", 400));
    json_decref(fetch("POST", "/tokenize", "{\"prompt\":[1]}", 400));
    json_decref(fetch("POST", "/detokenize", "{\"tokens\":[99999]}", 400));
    json_decref(fetch("POST", "/detokenize", "[", 400));
}

static void metrics_count_what_happened(void **state)
{
    static const char *const lines[] = {
        "vllm:num_requests_running{model_name=\"test-model\",engine=\"0\"} 3\n",
        "vllm:num_requests_waiting{model_name=\"test-model\",engine=\"0\"} 2\n",
        "vllm:kv_cache_usage_perc{model_name=\"test-model\",engine=\"0\"} 0.25\n",
        "vllm:request_success_total{model_name=\"test-model\",engine=\"0\",finished_reason="
        "\"stop\"} 2\n",
        "vllm:request_success_total{model_name=\"test-model\",engine=\"0\",finished_reason="
        "\"length\"} 1\n",
        "vllm:generation_tokens_total{model_name=\"test-model\",engine=\"0\"} 8\n",
        "vllm:prompt_tokens_total{model_name=\"test-model\",engine=\"0\"} 4\n",
        "vllm:prompt_tokens_cached_total{model_name=\"test-model\",engine=\"0\"} 2\n",
        "vllm:time_to_first_token_seconds_count{model_name=\"test-model\",engine=\"0\"} 3\n",
        "vllm:inter_token_latency_seconds_count{model_name=\"test-model\",engine=\"0\"} 5\n",
        "vllm:request_queue_time_seconds_bucket{model_name=\"test-model\",engine=\"0\",le=\"0.3\"} "
        "3\n",
        /* each replica has its own */
        "vllm:generation_tokens_total{model_name=\"test-model\",engine=\"1\"} 2\n",
        "vllm:request_success_total{model_name=\"test-model\",engine=\"1\",finished_reason="
        "\"length\"} 1\n",
        "vllm:request_params_n_count{model_name=\"test-model\",engine=\"0\"} 2\n",
        "vllm:request_params_n_count{model_name=\"test-model\",engine=\"1\"} 1\n",
        "vllm:time_to_first_token_seconds_count{model_name=\"test-model\",engine=\"1\"} 1\n",
        "# TYPE vllm:e2e_request_latency_seconds histogram\n",
        "# TYPE vllm:num_requests_waiting_by_reason gauge\n"
        "vllm:num_requests_waiting_by_reason{model_name=\"test-model\",engine=\"0\",reason=\"capacity\"} 0\n"
        "vllm:num_requests_waiting_by_reason{model_name=\"test-model\",engine=\"0\",reason=\"deferred\"} 2\n",
        "vllm:engine_sleep_state{model_name=\"test-model\",engine=\"0\",sleep_state=\"awake\"} 1\n",
        "vllm:prompt_tokens_recomputed_total{model_name=\"test-model\",engine=\"0\"} 0\n",
        "http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"2xx\"} 3\n",
        "http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"4xx\"} 1\n",
        "http_requests_total{handler=\"none\",method=\"GET\",status=\"4xx\"} 1\n",
        "http_request_duration_seconds_bucket{handler=\"/v1/completions\",method=\"POST\",le=\"+Inf\"} 4\n",
        "http_request_size_bytes_sum{handler=\"/v1/completions\",method=\"POST\"} 80\n",
        "http_response_size_bytes_count{handler=\"none\",method=\"GET\"} 1\n",
        "tessera:ranks 2\n",
    };
    struct answer a;
    (void)state;
    test_api_say(&t, "ab", 2);
    test_api_plan(&t, (struct fake_plan){.n_cached = 1});
    json_decref(fetch("POST", "/v1/completions", "{\"prompt\":\"x\",\"n\":2}", 200));
    json_decref(fetch("POST", "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":2}", 200));
    test_api_plan(&t, (struct fake_plan){.engine = 1});
    json_decref(fetch("POST", "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":2}", 200));
    json_decref(fetch("POST", "/v1/completions", "{}", 400));
    json_decref(fetch("GET", "/nothing", NULL, 404));
    client_fetch(gw_port(gw), "GET", "/metrics", NULL, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Content-Type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    for (size_t i = 0; i < COUNT_OF(lines); i++) {
        if (!strstr(buf_str(&a.body), lines[i]))
            printf("missing: %s in\n%s", lines[i], buf_str(&a.body));
        assert_non_null(strstr(buf_str(&a.body), lines[i]));
    }
    answer_free(&a);
}

static void *one_user(void *arg)
{
    long good = 0;
    (void)arg;
    for (int i = 0; i < 10; i++) {
        struct answer a;
        client_fetch(gw_port(gw), "POST", CHAT, "{" MSG ",\"stream\":true}", &a);
        json_t *j = a.status == 200 ? stream_assemble(buf_str(&a.body), ENDPOINT_CHAT) : NULL;
        const char *text = str(json_array_get(json_object_get(j, "choices"), 0), "text");
        good += text && !strcmp(text, "the same for everyone");
        json_decref(j);
        answer_free(&a);
    }
    return (void *)good;
}

static void sixteen_users_at_once(void **state)
{
    pthread_t users[16];
    (void)state;
    test_api_say(&t, "the same for everyone", 21);
    test_api_plan(&t, (struct fake_plan){.jitter = 1});
    for (size_t i = 0; i < COUNT_OF(users); i++) pthread_create(&users[i], NULL, one_user, NULL);
    for (size_t i = 0; i < COUNT_OF(users); i++) {
        void *good;
        pthread_join(users[i], &good);
        assert_int_equal((long)good, 10);
    }
}

/* A request of Ollama's that asks for nothing loads the model, which it is; everything else is read as ever. */
static void ollama_loads_ahead(void **state)
{
    static const struct {
        const char *path, *body, *reason;
        int status;
    } rows[] = {
        {"/api/chat", "{\"model\":\"test-model\"}", "load", 200},
        {"/api/chat", "{\"model\":\"test-model:latest\",\"messages\":[]}", "load", 200},
        {"/api/generate", "{\"model\":\"alias\",\"prompt\":\"\",\"keep_alive\":-1}", "load", 200},
        {"/api/generate", "{\"model\":\"other\"}", NULL, 404},
        {"/api/generate", "{\"prompt\":\"\"}", NULL, 400},
        {"/api/chat", "{", NULL, 400},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        json_t *j = fetch("POST", rows[i].path, rows[i].body, rows[i].status);
        if (rows[i].reason)
            assert_string_equal(str(j, "done_reason"), rows[i].reason);
        else
            assert_non_null(str(j, "error"));
        json_decref(j);
    }
    assert_int_equal(fake_submitted(t.fake), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(chat_streams_over_a_socket),   CASE(errors_come_before_the_stream),
        CASE(a_client_that_leaves_cancels), CASE(silence_is_filled_with_pings),
        CASE(health_follows_the_service),   CASE(models_are_listed),
        CASE(adapters_are_models_with_a_parent), CASE(unknown_places_are_said),      CASE(texts_and_tokens),
        CASE(metrics_count_what_happened),  CASE(sixteen_users_at_once),
        CASE(ollama_loads_ahead),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
