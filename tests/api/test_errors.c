/* errors: body -> status, type, param, message: the rows of what clients match on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rng.h"
#include "tests/api/support.h"
#include "tests/support/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MSG       "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define BAD       "BadRequestError"
#define MALFORMED "Bad Request"

struct row {
    enum crd_endpoint ep;
    const char *body;
    int status;
    const char *type, *param, *message; /* message: a part of it; param NULL: null */
};
#define C ENDPOINT_CHAT
#define P ENDPOINT_COMPLETIONS

static const struct row rows[] = {
    /* the document */
    {C, "", 400, MALFORMED, NULL, "Invalid JSON"},
    {C, "{\"messages\":", 400, MALFORMED, NULL, "Invalid JSON: line 1"},
    {C, "[1,2]", 400, MALFORMED, NULL, "should be a JSON object"},
    {C, "{" MSG "} trailing", 400, MALFORMED, NULL, "Invalid JSON"},
    {C, "{" MSG ",\"n\":1,\"n\":2}", 400, MALFORMED, NULL, "duplicate"},
    {C, "{" MSG ",\"seed\":99999999999999999999}", 400, MALFORMED, NULL, "Invalid JSON"},
    {P, "{\"prompt\":\"a\\u0000b\"}", 400, MALFORMED, NULL, "a text with a NUL character (\\u0000), which is not supported"},
    {P, "{\"prompt\":\"a\",\"top_p\":1e20}", 400, BAD, "top_p", "top_p must be in (0, 1], got 1e+20."},
    {C, "{\"a\":\"\xFF\"}", 400, MALFORMED, NULL, "Invalid JSON"},
    /* the model */
    {C, "{" MSG ",\"model\":\"gpt-4\"}", 404, "NotFoundError", "model",
     "The model `gpt-4` does not exist."},
    {P, "{\"prompt\":\"a\",\"model\":\"gpt-4\"}", 404, "NotFoundError", "model",
     "The model `gpt-4` does not exist."},
    {C, "{" MSG ",\"model\":1}", 400, MALFORMED, "model", "valid string"},
    /* messages */
    {C, "{}", 400, MALFORMED, "messages", "messages: Field required"},
    {C, "{\"messages\":\"hi\"}", 400, MALFORMED, "messages", "valid list"},
    {C, "{\"messages\":[]}", 400, MALFORMED, "messages", "at least 1 item"},
    {C, "{\"messages\":[\"hi\"]}", 400, MALFORMED, "messages", "messages.0"},
    {C, "{\"messages\":[{\"content\":\"hi\"}]}", 400, MALFORMED, "messages",
     "messages.0.role: Field required"},
    {C, "{\"messages\":[{\"role\":1,\"content\":\"hi\"}]}", 400, MALFORMED, "messages",
     "messages.0.role"},
    {C, "{\"messages\":[{\"role\":\"user\"}]}", 400, MALFORMED, "messages",
     "messages.0.content: Field required"},
    {C, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", 400, MALFORMED, "messages",
     "messages.0.content"},
    {C,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
     400, BAD, "messages", "'image_url' are not supported"},
    {C, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", 400, MALFORMED,
     "messages", "messages.0.content.0.text"},
    {C, "{\"messages\":[{\"role\":\"user\",\"content\":[{}]}]}", 400, MALFORMED, "messages",
     "messages.0.content.0.type"},
    /* prompts */
    {P, "{}", 400, BAD, "prompt", "prompt must be provided and non-empty."},
    {P, "{\"prompt\":\"\"}", 400, BAD, "prompt", "prompt must be provided and non-empty."},
    {P, "{\"prompt\":[]}", 400, BAD, "prompt", "prompt must be provided and non-empty."},
    {P, "{\"prompt\":[[]]}", 400, BAD, "prompt", "prompt must be provided and non-empty."},
    {P, "{\"prompt\":5}", 400, MALFORMED, "prompt", "prompt: Input should be"},
    {P, "{\"prompt\":[1,\"a\"]}", 400, MALFORMED, "prompt", "prompt: Input should be"},
    {P, "{\"prompt\":[\"a\",[{}]]}", 400, MALFORMED, "prompt", "prompt: Input should be"},
    {P, "{\"prompt\":[99999]}", 400, BAD, "prompt", "Token id 99999 is out of vocabulary"},
    {P, "{\"prompt\":[-1]}", 400, BAD, "prompt", "Token id -1 is out of vocabulary"},
    /* numbers */
    {C, "{" MSG ",\"temperature\":-1}", 400, BAD, "temperature",
     "temperature must be non-negative, got -1.0."},
    {C, "{" MSG ",\"temperature\":\"hot\"}", 400, MALFORMED, "temperature", "valid number"},
    {C, "{" MSG ",\"top_p\":0}", 400, BAD, "top_p", "top_p must be in (0, 1], got 0.0."},
    {C, "{" MSG ",\"top_p\":1.5}", 400, BAD, "top_p", "top_p must be in (0, 1], got 1.5."},
    {C, "{" MSG ",\"top_k\":-2}", 400, BAD, "top_k",
     "top_k must be 0 (disable), or at least 1, got -2."},
    {C, "{" MSG ",\"top_k\":1.5}", 400, MALFORMED, "top_k", "valid integer"},
    {C, "{" MSG ",\"min_p\":2}", 400, BAD, "min_p", "min_p must be in [0, 1]"},
    {C, "{" MSG ",\"max_tokens\":0}", 400, BAD, "max_tokens",
     "max_tokens must be at least 1, got 0."},
    {P, "{\"prompt\":\"a\",\"max_tokens\":0}", 400, BAD, "max_tokens",
     "max_tokens must be at least 1, got 0."},
    {P, "{\"prompt\":\"a\",\"max_tokens\":-5}", 400, BAD, "max_tokens",
     "max_tokens must be at least 1, got -5."},
    {C, "{" MSG ",\"min_tokens\":-1}", 400, BAD, "min_tokens",
     "min_tokens must be greater than or equal to 0, got -1."},
    {C, "{" MSG ",\"min_tokens\":9,\"max_tokens\":5}", 400, BAD, "min_tokens",
     "min_tokens must be less than or equal to max_tokens=5, got 9."},
    {C, "{" MSG ",\"presence_penalty\":3}", 400, BAD, "presence_penalty",
     "presence_penalty must be in [-2, 2]"},
    {C, "{" MSG ",\"frequency_penalty\":-3}", 400, BAD, "frequency_penalty",
     "frequency_penalty must be in [-2, 2]"},
    {C, "{" MSG ",\"repetition_penalty\":0}", 400, BAD, "repetition_penalty",
     "repetition_penalty must be greater than zero"},
    {C, "{" MSG ",\"n\":0}", 400, BAD, "n", "n must be at least 1, got 0."},
    {C, "{" MSG ",\"n\":9}", 400, BAD, "n", "n must be at most 8, got 9."},
    {C, "{" MSG ",\"n\":true}", 400, MALFORMED, "n", "valid integer"},
    {C, "{" MSG ",\"seed\":1.5}", 400, MALFORMED, "seed", "valid integer"},
    {C, "{" MSG ",\"stream\":\"yes\"}", 400, MALFORMED, "stream", "valid boolean"},
    /* stops and biases */
    {C, "{" MSG ",\"stop\":\"\"}", 400, BAD, "stop", "stop cannot contain an empty string."},
    {C, "{" MSG ",\"stop\":[\"a\",\"\"]}", 400, BAD, "stop",
     "stop cannot contain an empty string."},
    {C, "{" MSG ",\"stop\":[1]}", 400, MALFORMED, "stop", "list of strings"},
    {C,
     "{" MSG ",\"stop\":[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\","
             "\"a\",\"a\",\"a\",\"a\",\"a\"]}",
     400, BAD, "stop", "at most 16"},
    {C, "{" MSG ",\"stop_token_ids\":[259]}", 400, BAD, "stop_token_ids", "out of vocabulary"},
    {C, "{" MSG ",\"stop_token_ids\":[\"a\"]}", 400, MALFORMED, "stop_token_ids",
     "stop_token_ids.0"},
    {C, "{" MSG ",\"logit_bias\":{\"x\":1}}", 400, BAD, "logit_bias",
     "logit_bias contains key(s) that cannot be converted to integer token IDs"},
    {C, "{" MSG ",\"logit_bias\":{\"500\":1}}", 400, BAD, "logit_bias",
     "token_id(s) [500] in logit_bias contain out-of-vocab token ids. Vocabulary size: 259"},
    {C, "{" MSG ",\"logit_bias\":{\"5\":\"x\"}}", 400, MALFORMED, "logit_bias", "valid number"},
    {C, "{" MSG ",\"logit_bias\":[]}", 400, MALFORMED, "logit_bias", "valid dictionary"},
    /* one field and another */
    {C, "{" MSG ",\"stream_options\":{\"include_usage\":true}}", 400, BAD, "stream_options",
     "Stream options can only be defined when `stream=True`."},
    {C, "{" MSG ",\"top_logprobs\":3}", 400, BAD, "top_logprobs",
     "when using `top_logprobs`, `logprobs` must be set to true."},
    {C, "{" MSG ",\"logprobs\":true,\"top_logprobs\":21}", 400, BAD, "top_logprobs",
     "top_logprobs must be in [0, 20], got 21."},
    {P, "{\"prompt\":\"a\",\"logprobs\":21}", 400, BAD, "logprobs",
     "logprobs must be in [0, 20], got 21."},
    {C, "{" MSG ",\"continue_final_message\":true,\"add_generation_prompt\":true}", 400, BAD,
     "continue_final_message",
     "Cannot set both `continue_final_message` and `add_generation_prompt` to True."},
    {C, "{" MSG ",\"tools\":[]}", 400, BAD, "tools", "`tools` must not be an empty array."},
    {C, "{" MSG ",\"tool_choice\":\"auto\"}", 400, BAD, "tool_choice",
     "When using `tool_choice`, `tools` must be set."},
    {C, "{" MSG ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":{\"function\":{"
        "\"name\":\"g\"}}}",
     400, BAD, "tool_choice", "does not match any of the specified `tools`"},
    {C, "{" MSG ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"some\"}", 400,
     MALFORMED, "tool_choice", "'none', 'auto', 'required' or an object"},
    {C,
     "{" MSG ",\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{"
     "\"uniqueItems\":true}}}}}],\"tool_choice\":\"required\"}",
     400, BAD, "tools", "tools.0.function.parameters: JSON Schema, #/properties/a/uniqueItems"},
    {C,
     "{" MSG ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"required\","
     "\"max_tokens\":9}",
     400, BAD, "max_tokens", "max_tokens is 9, but the shortest call"},
    {C, "{" MSG ",\"cache_salt\":\"\"}", 400, BAD, "cache_salt", "cache_salt"},
    {C, "{" MSG ",\"cache_salt\":\"a/b\"}", 400, BAD, "cache_salt", "cache_salt"},
    /* not yet */
    {C, "{" MSG ",\"response_format\":{\"type\":\"json_schema\"}}", 400, BAD, "response_format",
     "When response_format type is 'json_schema', the 'json_schema' field must be provided."},
    {C, "{" MSG ",\"response_format\":{\"type\":\"structural_tag\"}}", 400, BAD, "response_format",
     "response_format.format: a format, an object with a type, is needed"},
    {C, "{" MSG ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}}", 400,
     MALFORMED, "response_format", "response_format.json_schema.schema: Field required"},
    {C,
     "{" MSG ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":"
     "{\"properties\":{\"a\":{\"uniqueItems\":true}}}}}}",
     400, BAD, "response_format", "#/properties/a/uniqueItems"},
    {C, "{" MSG ",\"response_format\":{}}", 400, MALFORMED, "response_format",
     "response_format.type: Field required"},
    {C, "{" MSG ",\"structured_outputs\":{\"regex\":\"a(?=b)\"}}", 400, BAD, "structured_outputs",
     "byte 4: look-around"},
    {C, "{" MSG ",\"structured_outputs\":{\"regex\":\"a\",\"choice\":[\"b\"]}}", 400, BAD,
     "structured_outputs", "only use one kind"},
    {C, "{" MSG ",\"structured_outputs\":{\"whitespace_pattern\":\" \"}}", 400, BAD,
     "structured_outputs", "whitespace_pattern is not supported"},
    {C, "{" MSG ",\"structured_outputs\":[]}", 400, MALFORMED, "structured_outputs", "dictionary"},
    {C, "{" MSG ",\"guided_json\":{\"type\":\"strange\"}}", 400, BAD, "guided_json", "#/type"},
    {C, "{" MSG ",\"guided_json\":7}", 400, MALFORMED, "guided_json", "JSON schema"},
    {C, "{" MSG ",\"guided_choice\":[1]}", 400, MALFORMED, "guided_choice", "guided_choice.0"},
    {C, "{" MSG ",\"guided_regex\":[]}", 400, MALFORMED, "guided_regex", "valid string"},
    {C, "{" MSG ",\"guided_grammar\":\"root ::= x\"}", 400, BAD, "guided_grammar",
     "the rule 'x' is used"},
    {C, "{" MSG ",\"grammar\":\"root ::= root\"}", 400, BAD, "grammar", "no text satisfies"},
    {C, "{" MSG ",\"chat_template\":\"x\"}", 400, BAD, "chat_template", "not supported"},
    {P, "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, BAD, "suffix", "suffix is not supported yet."},
    {P, "{\"prompt\":\"a\",\"best_of\":1,\"n\":2}", 400, BAD, "best_of",
     "best_of must be greater than or equal to n, got n=2 and best_of=1."},
    {P, "{\"prompt\":\"a\",\"best_of\":9}", 400, BAD, "best_of", "best_of must be at most 8, got 9."},
    {P, "{\"prompt\":\"a\",\"best_of\":2,\"stream\":true}", 400, BAD, "best_of", "cannot be streamed"},
    {C, "{" MSG ",\"best_of\":2}", 400, BAD, "best_of", "not supported here"},
    {C, "{" MSG ",\"prompt_logprobs\":1,\"stream\":true}", 400, BAD, "prompt_logprobs",
     "`prompt_logprobs` are not available when `stream=True`."},
    {C, "{" MSG ",\"prompt_logprobs\":21}", 400, BAD, "prompt_logprobs",
     "prompt_logprobs must be in [0, 20], got 21."},
    {C, "{" MSG ",\"bad_words\":[\"a\",\"\"]}", 400, BAD, "bad_words",
     "bad_words cannot contain an empty string."},
    {C, "{" MSG ",\"bad_words\":[7]}", 400, MALFORMED, "bad_words", "bad_words.0"},
    {C, "{" MSG ",\"allowed_token_ids\":[]}", 400, BAD, "allowed_token_ids",
     "allowed_token_ids is not None and empty!"},
    {C, "{" MSG ",\"allowed_token_ids\":[300]}", 400, BAD, "allowed_token_ids",
     "allowed_token_ids contains out-of-vocab token id!"},
    {C, "{" MSG ",\"typical_p\":0}", 400, BAD, "typical_p", "typical_p must be in (0, 1], got 0.0."},
    {C, "{" MSG ",\"xtc_probability\":1.5}", 400, BAD, "xtc_probability", "must be in [0, 1]"},
    {C, "{" MSG ",\"dry_base\":0.5}", 400, BAD, "dry_base", "dry_base must be at least 1, got 0.5."},
    {C, "{" MSG ",\"dry_sequence_breakers\":[\"\"]}", 400, MALFORMED, "dry_sequence_breakers",
     "dry_sequence_breakers.0"},
    {C, "{" MSG ",\"thinking_token_budget\":-1}", 400, BAD, "thinking_token_budget",
     "must be non-negative"},
    {C, "{" MSG ",\"mirostat\":2}", 400, BAD, "mirostat", "mirostat is not supported yet."},
    {C, "{" MSG ",\"top_n_sigma\":1}", 400, BAD, "top_n_sigma", "not supported"},
    /* of other dialects */
    {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"top_logprobs\":21}", 400, BAD, "top_logprobs",
     "top_logprobs must be in [0, 20], got 21."},
    {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"truncation\":\"auto\"}", 400, BAD, "truncation",
     "'auto' is not supported"},
    {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"text\":{\"verbosity\":\"low\"}}", 400, BAD, "text",
     "chat template does not know of it"},
    {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"text\":{\"verbosity\":\"x\"}}", 400, MALFORMED, "text",
     "'low', 'medium' or 'high'"},
    {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"reasoning\":{\"summary\":\"detailed\"}}", 400, BAD,
     "reasoning", "thoughts are given as they are"},
    {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"top_k\":-2}", 400, BAD, "top_k",
     "top_k must be 0 (disable), or at least 1, got -2."},
    {C, "{" MSG ",\"verbosity\":\"high\"}", 400, BAD, "verbosity", "chat template does not know of it"},
    /* too long */
    {C, "{" MSG ",\"max_tokens\":1000}", 400, BAD, "max_tokens",
     "max_tokens is too large: 1000. This model's maximum context length is 300 tokens"},
    {C, "{" MSG ",\"max_completion_tokens\":1000}", 400, BAD, "max_completion_tokens",
     "max_completion_tokens is too large: 1000."},
};

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

/* Is this outcome such an error? Says why not. */
static bool matches(const struct row *r, const struct outcome *o)
{
    json_t *j = json_loadb((const char *)o->bytes.data, o->bytes.len, 0, NULL),
           *e = json_object_get(j, "error");
    const char *param = json_string_value(json_object_get(e, "param")),
               *type = json_string_value(json_object_get(e, "type"));
    const char *message = json_string_value(json_object_get(e, "message"));
    bool good = o->status == r->status && type && !strcmp(type, r->type) && message &&
                strstr(message, r->message) &&
                (r->param ? param && !strcmp(param, r->param)
                          : json_is_null(json_object_get(e, "param"))) &&
                (json_is_null(json_object_get(e, "code")) || json_is_string(json_object_get(e, "code")));
    json_decref(j);
    return good;
}

static void every_row_is_refused_in_its_words(void **state)
{
    int failed = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct outcome o;
        test_api_run(&t, rows[i].ep, rows[i].body, &o);
        if (!matches(&rows[i], &o)) {
            printf("row %zu: %s\n  -> %d %s\n", i, rows[i].body, o.status,
                   o.bytes.data ? (char *)o.bytes.data : "");
            failed++;
        }
        outcome_free(&o);
    }
    assert_int_equal(failed, 0);
    assert_int_equal(fake_submitted(t.fake), 0);
}

static void a_prompt_over_the_context_is_refused_in_the_known_words(void **state)
{
    struct outcome o;
    struct buf body = {0};
    (void)state;
    buf_puts(&body, "{\"add_special_tokens\":false,\"prompt\":\"");
    for (int i = 0; i < TEST_CONTEXT; i++) buf_putc(&body, 'a');
    buf_puts(&body, "\"}");
    test_api_run(&t, ENDPOINT_COMPLETIONS, buf_str(&body), &o);
    struct row want = {
        P,
        NULL,
        400,
        BAD,
        "input_tokens",
        "This model's maximum context length is 300 tokens. However, your "
        "request has 300 input tokens. Please reduce the length of the input messages."};
    assert_true(matches(&want, &o));
    outcome_free(&o);
    body.len -= 3; /* one fewer leaves room for one token: the default of 16 shrinks to it */
    buf_puts(&body, "\"}");
    test_api_run(&t, ENDPOINT_COMPLETIONS, buf_str(&body), &o);
    assert_int_equal(o.status, 200);
    assert_int_equal(fake_last(t.fake).sampling.max_tokens, 1);
    outcome_free(&o);
    buf_clear(&body);
    buf_puts(&body, "{\"truncate_prompt_tokens\":5,\"prompt\":\"0123456789\"}");
    test_api_run(&t, ENDPOINT_COMPLETIONS, buf_str(&body), &o);
    assert_int_equal(fake_last(t.fake).n_prompt, 5);
    outcome_free(&o);
    buf_free(&body);
}

static void accepted_though_unusual(void **state)
{
    static const char *const bodies[] = {
        "{" MSG ",\"model\":\"\"}",
        "{" MSG ",\"model\":null}",
        "{" MSG ",\"temperature\":5}",
        "{" MSG ",\"temperature\":1e300}",
        "{" MSG ",\"top_k\":-1}",
        "{" MSG ",\"temperature\":0,\"n\":2}",
        "{" MSG ",\"max_tokens\":3.0}",
        "{" MSG ",\"stop\":null,\"n\":null}",
        "{" MSG ",\"response_format\":{\"type\":\"text\"}}",
        "{" MSG ",\"response_format\":{\"type\":\"json_object\"}}",
        "{" MSG ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\","
                "\"strict\":true,\"schema\":{\"type\":\"object\"}}}}",
        "{" MSG ",\"structured_outputs\":{\"choice\":[\"a\",\"b\"],\"disable_any_whitespace\":true}}",
        "{" MSG ",\"guided_json\":\"{\\\"type\\\":\\\"null\\\"}\",\"guided_regex\":null}",
        "{" MSG ",\"guided_grammar\":\"root ::= [a-z]+\"}",
        "{" MSG ",\"tools\":null,\"tool_choice\":\"none\"}",
        "{" MSG ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_"
                "choice\":\"none\"}",
        "{" MSG ",\"use_beam_search\":false,\"bad_words\":[],\"structured_outputs\":null}",
        "{" MSG ",\"whatever\":[1,{}]}",
        "{" MSG ",\"top_p\":1e-300}",
        "{" MSG ",\"user\":\"me\",\"parallel_tool_calls\":true,\"reasoning_effort\":\"low\"}",
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        struct outcome o;
        test_api_run(&t, ENDPOINT_CHAT, bodies[i], &o);
        if (o.status != 200) printf("%s\n  -> %s\n", bodies[i], buf_str(&o.bytes));
        assert_int_equal(o.status, 200);
        outcome_free(&o);
    }
}

static void depth_is_bounded(void **state)
{
    struct outcome o;
    struct buf body = {0};
    (void)state;
    buf_puts(&body, "{\"a\":");
    for (int i = 0; i < 1000000; i++) buf_putc(&body, '[');
    test_api_run(&t, ENDPOINT_CHAT, buf_str(&body), &o);
    assert_int_equal(o.status, 400);
    assert_non_null(strstr(buf_str(&o.bytes), "nested deeper than 100 levels"));
    outcome_free(&o);
    buf_free(&body);
}

/* A valid body with a few bytes changed, removed or doubled. */
static void damaged_bodies_are_answered(void **state)
{
    static const char good[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"h\\u00e9\"}]}"
        ",{\"role\":\"assistant\",\"content\":null,"
        "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":[1]}\"}}]}],"
        "\"temperature\":0.5,\"n\":2,\"stop\":[\"a\",\"bc\"],"
        "\"logit_bias\":{\"3\":1},\"logprobs\":true,\"top_logprobs\":2,\"max_tokens\":3,\"seed\":-"
        "5,\"stream\":true,\"tools\":[{\"function\":{\"name\":\"f\"}}],"
        "\"stream_options\":{\"include_usage\":true},\"stop_token_ids\":[7],\"cache_salt\":\"x\","
        "\"chat_template_kwargs\":{\"k\":[]}}";
    uint64_t seed = test_seed();
    (void)state;
    for (uint64_t i = 0; i < 2000; i++) {
        char body[sizeof good];
        struct outcome o;
        memcpy(body, good, sizeof good);
        for (uint64_t k = 0; k <= rng_at(seed, i, 0, 0) % 3; k++) {
            uint64_t r = rng_at(seed, i, 1, k);
            body[r % (sizeof good - 1)] = "{}[]\",:0-9ae\\ \xC3"[r >> 32 & 15];
        }
        test_api_run(&t, i & 1 ? ENDPOINT_CHAT : ENDPOINT_COMPLETIONS, body, &o);
        assert_true(o.status == 200 || o.status == 400 || o.status == 404);
        outcome_free(&o);
    }
}

static void codes_are_those_that_clients_look_for(void **state)
{
    char long_text[TEST_CONTEXT + 1];
    memset(long_text, 'a', TEST_CONTEXT);
    long_text[TEST_CONTEXT] = 0;
    const struct {
        const char *format, *more, *code;
        int status;
    } cases[] = {
        {"{\"model\":\"gpt-4\"," MSG "%s}", "", "model_not_found", 404},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", long_text, "context_length_exceeded", 400},
        {"{" MSG "%s}", ",\"temperature\":-1", NULL, 400},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *j = test_api_ask(&t, ENDPOINT_CHAT, cases[i].format, cases[i].more, cases[i].status),
               *code = json_object_get(json_object_get(j, "error"), "code");
        if (cases[i].code)
            assert_string_equal(json_string_value(code), cases[i].code);
        else
            assert_true(json_is_null(code));
        json_decref(j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_row_is_refused_in_its_words, setup, teardown),
        cmocka_unit_test_setup_teardown(a_prompt_over_the_context_is_refused_in_the_known_words,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(accepted_though_unusual, setup, teardown),
        cmocka_unit_test_setup_teardown(codes_are_those_that_clients_look_for, setup, teardown),
        cmocka_unit_test_setup_teardown(depth_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_bodies_are_answered, setup, teardown),
    };
    return cmocka_run_group_tests_name("errors", tests, NULL, NULL);
}
