/* responses_check.c: the fields of /v1/responses that have no counterpart in our form: they are what
 * they must be, and what would change the answer and is not done here is refused. */
#include "coordinator/api/translate.h"

#include <string.h>

static const json_t *get(const json_t *object, const char *name)
{
    const json_t *j = json_object_get(object, name);
    return json_is_null(j) ? NULL : j;
}

static enum err types(const json_t *given, struct crd_api_error *e)
{
    static const struct {
        const char *name, *inside, *what; /* inside: of this object; NULL: at the top */
        json_type type;
    } fields[] = {
        {"reasoning", NULL, "an object", JSON_OBJECT},
        {"effort", "reasoning", "a valid string", JSON_STRING},
        {"summary", "reasoning", "a valid string", JSON_STRING},
        {"generate_summary", "reasoning", "a valid string", JSON_STRING},
        {"context", "reasoning", "a valid string", JSON_STRING},
        {"mode", "reasoning", "a valid string", JSON_STRING},
        {"text", NULL, "an object", JSON_OBJECT},
        {"include", NULL, "a list of strings", JSON_ARRAY},
        {"stream_options", NULL, "an object", JSON_OBJECT},
        {"include_obfuscation", "stream_options", "a valid boolean", JSON_TRUE},
        {"background", NULL, "a valid boolean", JSON_TRUE},
        {"truncation", NULL, "'auto' or 'disabled'", JSON_STRING},
        {"max_tool_calls", NULL, "a valid integer", JSON_INTEGER},
        {"safety_identifier", NULL, "a valid string", JSON_STRING},
        {"prompt_cache_key", NULL, "a valid string", JSON_STRING},
        {"prompt_cache_retention", NULL, "a valid string", JSON_STRING},
        {"prompt_cache_options", NULL, "an object", JSON_OBJECT},
    };
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        const char *in = fields[i].inside, *name = fields[i].name;
        const json_t *j = get(in ? json_object_get(given, in) : given, name);
        json_type t = j ? json_typeof(j) : fields[i].type;
        if (t == JSON_FALSE) t = JSON_TRUE;
        if (t == fields[i].type) continue;
        return crd_api_malformed(e, in ? in : name, "%s%s%s: Input should be %s", in ? in : "",
                                 in ? "." : "", name, fields[i].what);
    }
    return OK;
}

static bool is(const json_t *j, const char *word)
{
    return json_is_string(j) && !strcmp(json_string_value(j), word);
}

static enum err stored(const json_t *given, struct crd_api_error *e)
{
    static const char *const refused[] = {"previous_response_id", "conversation", "prompt"};
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        if (get(given, refused[i]))
            return crd_api_refuse(e, 400, refused[i],
                                  "%s is not supported: nothing is stored here. Send the whole "
                                  "conversation as input.",
                                  refused[i]);
    return OK;
}

static enum err not_here(const json_t *given, struct crd_api_error *e)
{
    const json_t *reasoning = get(given, "reasoning"), *truncation = get(given, "truncation");
    static const char *const summaries[] = {"summary", "generate_summary"};
    if (json_is_true(json_object_get(given, "background")))
        return crd_api_refuse(e, 400, "background", "background is not supported.");
    if (get(given, "moderation"))
        return crd_api_refuse(e, 400, "moderation", "moderation is not supported.");
    if (json_array_size(json_object_get(given, "context_management")) ||
        (get(given, "context_management") && !json_is_array(get(given, "context_management"))))
        return crd_api_refuse(e, 400, "context_management",
                              "context_management is not supported: what is sent as input is what "
                              "the model reads.");
    if (truncation && !is(truncation, "disabled"))
        return crd_api_refuse(e, 400, "truncation",
                              "truncation: '%.64s' is not supported; 'disabled' is: an input that "
                              "is too long is refused.",
                              json_string_value(truncation));
    for (size_t i = 0; i < COUNT_OF(summaries); i++) {
        const json_t *s = get(reasoning, summaries[i]);
        if (s && !is(s, "auto"))
            return crd_api_refuse(e, 400, "reasoning",
                                  "reasoning.%s: '%.64s' is not supported: thoughts are given as "
                                  "they are.",
                                  summaries[i], json_string_value(s));
    }
    if (is(get(reasoning, "context"), "all_turns"))
        return crd_api_refuse(e, 400, "reasoning",
                              "reasoning.context: 'all_turns' is not supported: thoughts of earlier "
                              "turns are not read again.");
    if (get(reasoning, "mode") && !is(get(reasoning, "mode"), "standard"))
        return crd_api_refuse(e, 400, "reasoning", "reasoning.mode: only 'standard' is supported.");
    return OK;
}

static enum err stream_options(const json_t *given, struct crd_api_error *e)
{
    const json_t *o = get(given, "stream_options");
    if (!o) return OK;
    if (!json_is_true(json_object_get(given, "stream")))
        return crd_api_refuse(e, 400, "stream_options",
                              "Stream options can only be defined when `stream=True`.");
    if (json_is_true(json_object_get(o, "include_obfuscation")))
        return crd_api_refuse(e, 400, "stream_options",
                              "stream_options.include_obfuscation is not supported.");
    return OK;
}

/* Items of built-in tools never occur here, so there is nothing of theirs to include; nor are
 * thoughts encrypted. */
static enum err include(const json_t *given, struct crd_api_error *e)
{
    static const char *const known[] = {"message.output_text.logprobs",
                                        "reasoning.encrypted_content",
                                        "file_search_call.results",
                                        "web_search_call.results",
                                        "web_search_call.action.sources",
                                        "message.input_image.image_url",
                                        "computer_call_output.output.image_url",
                                        "code_interpreter_call.outputs"};
    const json_t *list = get(given, "include"), *what;
    size_t i, k;
    json_array_foreach((json_t *)(uintptr_t)list, i, what)
    {
        for (k = 0; k < COUNT_OF(known) && !is(what, known[k]); k++) continue;
        if (k == COUNT_OF(known))
            return crd_api_malformed(e, "include",
                                     "include.%zu: '%.64s' is none of the known values", i,
                                     json_is_string(what) ? json_string_value(what) : "?");
    }
    return OK;
}

enum err crd_responses_check(const json_t *given, struct crd_api_error *e)
{
    enum err rc;
    TRY(types(given, e));
    TRY(stored(given, e));
    TRY(not_here(given, e));
    TRY(stream_options(given, e));
    TRY(include(given, e));
out:
    return rc;
}
