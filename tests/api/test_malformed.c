/* malformed: every field of every endpoint, wrong in every way. Each request is refused with the
 * status and the field at fault; none reaches the service, none is a 500.
 *
 * A case is (endpoint, field, what is wrong with it), and no two are the same: another value that is
 * wrong in the same way is tried, but does not count. All go over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/api/access.h"
#include "coordinator/api/api.h"
#include "tests/api/support.h"
#include "tests/gateway/client.h"
#include "tests/support/scratch.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

/* What a field may not be, as bits. */
enum {
    NO_STR = 1,
    NO_INT = 2,
    NO_REAL = 4,
    NO_BOOL = 8,
    NO_LIST = 16,
    NO_OBJ = 32,
    NUMBER = NO_STR | NO_BOOL | NO_LIST | NO_OBJ,
    INTEGER = NUMBER | NO_REAL,
    FLAG = NO_STR | NO_INT | NO_LIST | NO_OBJ,
    STRING = NO_INT | NO_BOOL | NO_LIST | NO_OBJ,
    LIST = NO_STR | NO_INT | NO_BOOL | NO_OBJ,
    OBJECT = NO_STR | NO_INT | NO_BOOL | NO_LIST,
    STRING_OR_LIST = NO_INT | NO_BOOL | NO_OBJ,
};
static const struct {
    int bit;
    const char *value;
} wrong[] = {{NO_STR, "\"a string\""}, {NO_INT, "7"},       {NO_REAL, "1.5"},
             {NO_BOOL, "true"},        {NO_LIST, "[true]"}, {NO_OBJ, "{\"a\":1}"}};

/* One field. cases: "WHAT=VALUE~WHAT=VALUE"; VALUE is JSON, or nothing (the field is missing), or
 * *N*X (a list of N times X), or $N (a string of N letters). A field "a.b" stands in object a. */
struct field {
    const char *name;
    int type;
    const char *cases;
    const char *also; /* further members of the body that the case needs */
};

#define NUMBERS                                                                                    \
    {"temperature", NUMBER, "below=-0.1", NULL}, {"top_p", NUMBER, "below=0~above=1.1", NULL},     \
        {"top_k", INTEGER, "below=-2", NULL}, {"min_p", NUMBER, "below=-0.1~above=1.1", NULL},     \
        {"presence_penalty", NUMBER, "below=-2.1~above=2.1", NULL},                                \
        {"frequency_penalty", NUMBER, "below=-2.1~above=2.1", NULL},                               \
        {"repetition_penalty", NUMBER, "below=0", NULL}, {"n", INTEGER, "below=0~above=9", NULL},  \
        {"max_tokens", INTEGER, "below=-1~above=100000", NULL},                                    \
        {"max_completion_tokens", INTEGER, "below=0~above=100000", NULL},                          \
        {"min_tokens", INTEGER, "below=-1~more than max_tokens=299", NULL},                        \
        {"truncate_prompt_tokens", INTEGER, "below=-2", NULL}, {"priority", INTEGER, NULL, NULL},  \
        {"seed", INTEGER, NULL, NULL}, {"best_of", INTEGER, "below=0~above=99", NULL},             \
        {"repeat_penalty", NUMBER, "below=0", NULL}, {"repeat_last_n", INTEGER, "below=-2", NULL}, \
        {"typical_p", NUMBER, "below=0~above=1.1", NULL},                                          \
        {"xtc_probability", NUMBER, "below=-0.1~above=1.1", NULL},                                 \
        {"xtc_threshold", NUMBER, "below=-0.1~above=1.1", NULL},                                   \
        {"dry_multiplier", NUMBER, "below=-1", NULL}, {"dry_base", NUMBER, "below=0.9", NULL},     \
        {"dry_allowed_length", INTEGER, "below=-1", NULL},                                         \
        {"dry_penalty_last_n", INTEGER, "below=-2", NULL},                                         \
        {"prompt_logprobs", INTEGER, "below=-1~above=21", NULL},                                   \
    {                                                                                              \
        "length_penalty", NUMBER, NULL, NULL                                                       \
    }
#define FLAGS                                                                                      \
    {"ignore_eos", FLAG, NULL, NULL}, {"stream", FLAG, NULL, NULL},                                \
        {"return_token_ids", FLAG, NULL, NULL}, {"return_tokens_as_token_ids", FLAG, NULL, NULL},  \
        {"include_stop_str_in_output", FLAG, NULL, NULL},                                          \
        {"skip_special_tokens", FLAG, NULL, NULL}, {"add_special_tokens", FLAG, NULL, NULL},       \
        {"spaces_between_special_tokens", FLAG, NULL, NULL},                                       \
    {                                                                                              \
        "store", FLAG, NULL, NULL                                                                  \
    }
#define OTHERS                                                                                     \
    {"stop", STRING_OR_LIST, "empty=\"\"~an empty one=[\"\"]~a list in it=[[]]~many=*17*\"a\"",    \
     NULL},                                                                                        \
        {"stop_token_ids", LIST,                                                                   \
         "above=[259]~below=[-1]~a string in it=[\"a\"]~a fraction in it=[1.5]~many=*65*1", NULL}, \
        {"dry_sequence_breakers", LIST, "a number in it=[1]~an empty one=[\"\"]", NULL},           \
        {"bad_words", LIST, "a number in it=[1]~an empty one=[\"\"]", NULL},                       \
        {"allowed_token_ids", LIST, "empty=[]~above=[259]~a string in it=[\"a\"]", NULL},          \
        {"logit_bias", OBJECT,                                                                     \
         "no number as key={\"a\":1}~above={\"300\":1}~below={\"-1\":1}~a string in "              \
         "it={\"1\":\"x\"}~an empty key={\"\":1}", NULL},                                          \
        {"stream_options", OBJECT, "without stream={}", NULL},                                     \
        {"stream_options", 0, "include_usage no flag={\"include_usage\":1}~"                       \
                              "continuous_usage_stats no flag={\"continuous_usage_stats\":\"a\"}", \
         "\"stream\":true"},                                                                       \
        {"model", STRING, NULL, NULL},                                                             \
        {"cache_salt", STRING, "empty=\"\"~a bad letter=\"a@b\"~long=$129", NULL},                 \
        {"response_format", OBJECT,                                                                \
         "no type={}~type no string={\"type\":7}~unknown={\"type\":\"nonsense\"}~"                 \
         "no schema={\"type\":\"json_schema\"}~schema in it "                                      \
         "missing={\"type\":\"json_schema\",\"json_schema\":{}}~"                                  \
         "a bad schema={\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"type\":\"x\"}}}~"  \
         "a schema that is none={\"type\":\"json_schema\",\"json_schema\":{\"schema\":7}}", NULL}, \
        {"structured_outputs", OBJECT,                                                             \
         "a bad regex={\"regex\":\"(\"}~regex no string={\"regex\":7}~choice no "                  \
         "list={\"choice\":7}~choice empty={\"choice\":[]}~a number to choose={\"choice\":[7]}~"   \
         "a bad grammar={\"grammar\":\"root ::= (\"}~grammar no string={\"grammar\":[]}~"          \
         "two kinds={\"regex\":\"a\",\"choice\":[\"a\"]}~unknown={\"x\":1}~json a "                \
         "number={\"json\":7}", NULL},                                                             \
        {"guided_json", NO_INT | NO_LIST, "a bad schema={\"type\":\"x\"}", NULL},                  \
        {"guided_regex", STRING, "bad=\"[\"", NULL},                                               \
        {"guided_choice", LIST, "empty=[]", NULL},                                                 \
        {"guided_grammar", STRING, "bad=\"root\"", NULL},                                          \
        {"grammar", STRING, "without root=\"a ::= \\\"x\\\"\"", NULL},                             \
        {"json_schema", NO_INT | NO_LIST, "a dead reference={\"$ref\":\"#/x\"}", NULL},            \
        {"user", STRING, NULL, NULL}, {"service_tier", STRING, NULL, NULL},                        \
        {"request_id", STRING, NULL, NULL}, {"session_id", STRING, NULL, NULL},                    \
        {"metadata", OBJECT, NULL, NULL}, {"use_beam_search", 0, "not done=true", NULL},           \
        {"prompt_embeds", 0, "not done=\"x\"", NULL},                                              \
    {                                                                                              \
        "kv_transfer_params", 0, "not done={\"a\":1}", NULL                                        \
    }
#define USER(content) "[{\"role\":\"user\",\"content\":" content "}]"
/* What is wrong with a list of messages, in every dialect that has one. */
#define MESSAGES                                                                                   \
    "empty=[]~no role=[{}]~a list in it=[[]]~no content=[{\"role\":\"user\"}]~content a "          \
    "number=" USER("7") "~a number in content=" USER("[7]")

static const struct field chat[] = {
    NUMBERS, FLAGS, OTHERS,
    {"max_tokens", 0, "none=0", NULL},
    {"messages", LIST,
     MESSAGES "~missing=~null=null~role a number=[{\"role\":7,\"content\":\"a\"}]~an image="
     USER("[{\"type\":\"image_url\"}]") "~text a list=" USER("[{\"type\":\"text\",\"text\":[]}]"), NULL},
    {"logprobs", FLAG, NULL, NULL},
    {"top_logprobs", INTEGER, "below=-1~above=21~without logprobs=3", NULL},
    {"add_generation_prompt", FLAG, NULL, NULL},
    {"continue_final_message", FLAG, "with a generation prompt=true", NULL},
    {"chat_template_kwargs", OBJECT, NULL, NULL},
    {"documents", LIST, NULL, NULL},
    {"reasoning_effort", STRING, NULL, NULL},
    {"modalities", LIST, "sound=[\"text\",\"audio\"]", NULL},
    {"audio", 0, "not done={\"voice\":\"a\"}", NULL},
    {"prediction", OBJECT,
     "no type={}~another type={\"type\":\"x\",\"content\":\"a\"}~no content={\"type\":\"content\"}~"
     "a number={\"type\":\"content\",\"content\":7}~a string in it={\"type\":\"content\",\"content\":[\"a\"]}~"
     "an image={\"type\":\"content\",\"content\":[{\"type\":\"image\",\"text\":\"a\"}]}", NULL},
    {"verbosity", STRING, "unknown=\"much\"~unknown to the template=\"low\"", NULL},
    {"safety_identifier", STRING, NULL, NULL},
    {"prompt_cache_key", STRING, NULL, NULL},
    {"include_reasoning", FLAG, NULL, NULL},
    {"parallel_tool_calls", FLAG, NULL, NULL},
    {"functions", 0, "not done=[{\"name\":\"f\"}]", NULL},
    {"tools", LIST,
     "empty=[]~no function=[{}]~type a number=[{\"type\":7}]~unknown type=[{\"type\":\"web\"}]~"
     "function a number=[{\"function\":7}]~no name=[{\"function\":{}}]~name a number="
     "[{\"function\":{\"name\":7}}]~name empty=[{\"function\":{\"name\":\"\"}}]~a space in the "
     "name=[{\"function\":{\"name\":\"a b\"}}]~parameters a number="
     "[{\"function\":{\"name\":\"f\",\"parameters\":7}}]~many=*513*{\"function\":{\"name\":\"f\"}}", NULL},
    {"tool_choice", NO_INT | NO_BOOL | NO_LIST,
     "auto without tools=\"auto\"~required without tools=\"required\"~named without "
     "tools={\"type\":\"function\"}", NULL},
    {"tool_choice", 0,
     "unknown word=\"sometimes\"~no function={}~function without a name={\"function\":{}}~"
     "not offered={\"function\":{\"name\":\"g\"}}~allowed is no object={\"allowed_tools\":7}~allowed without a mode={\"allowed_tools\":{\"tools\":[]}}~"
     "another mode={\"allowed_tools\":{\"mode\":\"none\"}}~none allowed={\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[]}}~allowed without a "
     "name={\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[{}]}}~allowed and not "
     "offered={\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[{\"function\":{\"name\":\"g\"}}]}}",
     "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"},
    {0},
};
static const struct field completions[] = {
    NUMBERS, FLAGS, OTHERS,
    {"prompt", NO_BOOL | NO_OBJ | NO_INT | NO_REAL,
     "missing=~null=null~empty=\"\"~no prompts=[]~an empty one=[\"\"]~no ids=[[]]~above=[259]~"
     "below=[-1]~a string among ids=[1,\"a\"]~a string in ids=[[\"a\"]]~an object in it=[{}]~"
     "a flag in it=[true]~many=*257*\"a\"", NULL},
    {"max_tokens", 0, "none without echo=0", NULL},
    {"logprobs", INTEGER, "below=-1~above=21", NULL},
    {"echo", FLAG, NULL, NULL},
    {"suffix", 0, "not done=\"a\"", NULL},
    {0},
};
static const struct field messages[] = {
    {"max_tokens", INTEGER, "missing=~none=0~below=-1~above=100000~null=null", NULL},
    {"temperature", NUMBER, "below=-1", NULL},
    {"top_p", NUMBER, "below=0~above=2", NULL},
    {"top_k", INTEGER, "below=-2", NULL},
    {"stop_sequences", NO_INT | NO_BOOL | NO_OBJ, "an empty one=[\"\"]~a number in it=[7]~many=*17*\"a\"", NULL},
    {"stream", FLAG, NULL, NULL},
    {"model", STRING, NULL, NULL},
    {"output_config", OBJECT,
     "effort a number={\"effort\":7}~format a number={\"format\":7}~no schema={\"format\":{\"type\":\"json_schema\"}}~another "
     "format={\"format\":{\"type\":\"text\"}}~a bad schema={\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"x\"}}}", NULL},
    {"output_format", OBJECT, "no schema={\"type\":\"json_schema\"}", NULL},
    {"mcp_servers", 0, "not done=[{\"type\":\"url\"}]", NULL},
    {"container", 0, "not done=\"c\"", NULL},
    {"context_management", 0, "not done={\"edits\":[]}", NULL},
    {"metadata", OBJECT, NULL, NULL},
    {"thinking", OBJECT, "no type={}~unknown={\"type\":\"maybe\"}~type a number={\"type\":7}", NULL},
    {"tools", LIST,
     "no name=[{}]~a server's=[{\"type\":\"bash\"}]~name a number=[{\"name\":7}]~schema a number="
     "[{\"name\":\"f\",\"input_schema\":7}]~many=*513*{\"name\":\"f\"}~a space in the name="
     "[{\"name\":\"a b\"}]", NULL},
    {"tool_choice", OBJECT,
     "no type={}~unknown={\"type\":\"x\"}~any without tools={\"type\":\"any\"}~named without tools="
     "{\"type\":\"tool\",\"name\":\"g\"}", NULL},
    {"tool_choice", 0, "not offered={\"type\":\"tool\",\"name\":\"g\"}~no name={\"type\":\"tool\"}",
     "\"tools\":[{\"name\":\"f\"}]"},
    {"messages", LIST,
     MESSAGES "~missing=~an image=" USER("[{\"type\":\"image\"}]") "~a block without type=" USER("[{}]")
     "~a result a number=" USER("[{\"type\":\"tool_result\",\"content\":7}]"), NULL},
    {"system", NO_INT | NO_BOOL | NO_OBJ, "an image=[{\"type\":\"image\"}]", NULL},
    {0},
};
static const struct field responses[] = {
    {"max_output_tokens", INTEGER, "none=0~below=-1~above=100000", NULL},
    {"temperature", NUMBER, "below=-1", NULL},
    {"top_p", NUMBER, "below=0~above=2", NULL},
    {"top_logprobs", INTEGER, "below=-1~above=21", NULL},
    {"stream", FLAG, NULL, NULL},
    {"model", STRING, NULL, NULL},
    {"user", STRING, NULL, NULL},
    {"seed", INTEGER, NULL, NULL},
    {"store", FLAG, NULL, NULL},
    {"metadata", OBJECT, NULL, NULL},
    {"chat_template_kwargs", OBJECT, NULL, NULL},
    {"parallel_tool_calls", FLAG, NULL, NULL},
    {"instructions", STRING, NULL, NULL},
    {"reasoning", OBJECT,
     "effort a number={\"effort\":7}~summary a number={\"summary\":7}~a short summary={\"summary\":"
     "\"concise\"}~old summary a number={\"generate_summary\":7}~context a number={\"context\":7}~all "
     "turns={\"context\":\"all_turns\"}~mode a number={\"mode\":7}~another mode={\"mode\":\"pro\"}", NULL},
    {"include", LIST, "a number in it=[7]~unknown=[\"everything\"]", NULL},
    {"stream_options", OBJECT, "without stream={}~a number={\"include_obfuscation\":7}", NULL},
    {"stream_options", 0, "not done={\"include_obfuscation\":true}", "\"stream\":true"},
    {"truncation", STRING, "not done=\"auto\"", NULL},
    {"max_tool_calls", INTEGER, NULL, NULL},
    {"safety_identifier", STRING, NULL, NULL},
    {"prompt_cache_key", STRING, NULL, NULL},
    {"prompt_cache_retention", STRING, NULL, NULL},
    {"prompt_cache_options", OBJECT, NULL, NULL},
    {"moderation", 0, "not done={\"model\":\"m\"}", NULL},
    {"context_management", 0, "not done=[{\"type\":\"compaction\"}]", NULL},
    {"presence_penalty", NUMBER, "below=-2.1~above=2.1", NULL},
    {"min_p", NUMBER, "below=-0.1~above=1.1", NULL},
    {"stop", STRING_OR_LIST, "an empty one=[\"\"]", NULL},
    {"structured_outputs", OBJECT, "a bad regex={\"regex\":\"(\"}", NULL},
    {"cache_salt", STRING, "empty=\"\"", NULL},
    {"text", OBJECT,
     "verbosity a number={\"verbosity\":7}~verbosity unknown={\"verbosity\":\"much\"}~format a number={\"format\":7}~no "
     "type={\"format\":{}}~type a number={\"format\":{\"type\":7}}~"
     "unknown={\"format\":{\"type\":\"x\"}}~no schema={\"format\":{\"type\":\"json_schema\"}}~a bad "
     "schema={\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"x\"}}}", NULL},
    {"tools", LIST,
     "no type=[{}]~not here=[{\"type\":\"web_search\"}]~no name=[{\"type\":\"function\"}]~a space in "
     "the name=[{\"type\":\"function\",\"name\":\"a b\"}]~parameters a list="
     "[{\"type\":\"function\",\"name\":\"f\",\"parameters\":[]}]", NULL},
    {"tool_choice", NO_INT | NO_LIST | NO_BOOL, "required without tools=\"required\"", NULL},
    {"tool_choice", 0, "unknown word=\"sometimes\"~not offered={\"type\":\"function\",\"name\":\"g\"}~no "
                       "name={\"type\":\"function\"}~allowed without tools={\"type\":\"allowed_tools\",\"mode\":\"auto\"}~allowed and not "
                       "offered={\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[{\"type\":\"function\",\"name\":\"g\"}]}",
     "\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]"},
    {"previous_response_id", 0, "not here=\"resp_1\"", NULL},
    {"conversation", 0, "not here=\"conv_1\"", NULL},
    {"prompt", 0, "not here={\"id\":\"p\"}", NULL},
    {"background", FLAG, "not here=true", NULL},
    {"input", NO_INT | NO_BOOL | NO_OBJ,
     "missing=~empty=[]~a number in it=[7]~no role=[{}]~no content=[{\"role\":\"user\"}]~a "
     "reference=[{\"type\":\"item_reference\"}]~an image=" USER("[{\"type\":\"input_image\"}]") "~null=null", NULL},
    {0},
};
#define OLLAMA_OPTIONS                                                                             \
    {"options", OBJECT, NULL, NULL}, {"options.temperature", NUMBER, "below=-1", NULL},            \
        {"options.num_predict", INTEGER, "above=100000", NULL},                                    \
        {"options.top_k", INTEGER, "below=-2", NULL},                                              \
        {"options.top_p", NUMBER, "below=0~above=2", NULL},                                        \
        {"options.min_p", NUMBER, "below=-1~above=2", NULL},                                       \
        {"options.seed", INTEGER, NULL, NULL},                                                     \
        {"options.stop", STRING_OR_LIST, "empty=\"\"~many=*17*\"a\"", NULL},                       \
        {"options.repeat_penalty", NUMBER, "below=0", NULL},                                       \
        {"options.presence_penalty", NUMBER, "below=-3~above=3", NULL},                            \
        {"options.frequency_penalty", NUMBER, "below=-3~above=3", NULL},                           \
        {"logprobs", FLAG, NULL, NULL},                                                            \
        {"top_logprobs", INTEGER, "below=-1~above=21", "\"logprobs\":true"},                       \
        {"stream", FLAG, NULL, NULL}, {"think", NO_INT | NO_LIST | NO_OBJ, NULL, NULL},            \
        {"format", NO_INT | NO_LIST | NO_BOOL | NO_STR, "a bad schema={\"type\":\"x\"}", NULL},    \
    {                                                                                              \
        "model", STRING, NULL, NULL                                                                \
    }
static const struct field ollama_chat[] = {
    OLLAMA_OPTIONS,
    {"messages", LIST, MESSAGES "~missing=~an image=[{\"role\":\"user\",\"content\":\"a\",\"images\":[\"x\"]}]", NULL},
    {"tools", NO_STR | NO_INT | NO_BOOL | NO_OBJ, "no function=[{}]~no name=[{\"function\":{}}]", NULL},
    {0},
};
static const struct field ollama_generate[] = {
    OLLAMA_OPTIONS,
    {"prompt", STRING, "missing=~empty=\"\"~null=null", NULL},
    {"system", NO_INT | NO_BOOL | NO_OBJ, NULL, NULL},
    {"raw", FLAG, NULL, NULL},
    {"context", 0, "not done=[1,2]", NULL},
    {"images", 0, "not here=[\"x\"]", NULL},
    {"suffix", 0, "not done=\"a\"", NULL},
    {0},
};
#define INPUTS                                                                                     \
    "missing=~null=null~empty=\"\"~no inputs=[]~an empty one=[\"\"]~no ids=[[]]~above=[259]~"      \
    "below=[-1]~a string among ids=[1,\"a\"]~a string in ids=[[\"a\"]]~an object in it=[{}]~"      \
    "a flag in it=[true]~many=*2049*\"a\""
static const struct field embeddings[] = {
    {"input", NO_BOOL | NO_OBJ | NO_INT | NO_REAL, INPUTS, NULL},
    {"model", STRING, NULL, NULL},
    {"user", STRING, NULL, NULL},
    {"encoding_format", STRING, "unknown=\"hex\"", NULL},
    {"dimensions", INTEGER, "none=0~below=-1~above=5", NULL},
    {"pooling", STRING, "unknown=\"max\"", NULL},
    {"normalize", FLAG, NULL, NULL},
    {"add_special_tokens", FLAG, NULL, NULL},
    {"truncate_prompt_tokens", INTEGER, "none=0~below=-2", NULL},
    {"priority", INTEGER, "above=3000000000", NULL},
    {"cache_salt", STRING, "empty=\"\"~a bad letter=\"a/b\"~long=$129", NULL},
    {0},
};
static const struct field ollama_embed[] = {
    {"input", NO_BOOL | NO_OBJ | NO_INT | NO_REAL, INPUTS, NULL},
    {"model", STRING, NULL, NULL},
    {"dimensions", INTEGER, "none=0~above=5", NULL},
    {"truncate", FLAG, NULL, NULL},
    {"options", OBJECT, NULL, NULL},
    {0},
};
static const struct field ollama_embeddings[] = {
    {"prompt", STRING, "missing=~null=null~empty=\"\"", NULL},
    {"model", STRING, NULL, NULL},
    {"options", OBJECT, NULL, NULL},
    {0},
};
static const struct field tokenize[] = {
    {"prompt", STRING, "missing=", NULL},
    {"model", STRING, NULL, NULL},
    {"add_special_tokens", FLAG, NULL, NULL},
    {"return_token_strs", FLAG, NULL, NULL},
    {0},
};
static const struct field content[] = {{"content", 0, "a number=7", NULL}, {0}}; /* llama-server's */
static const struct field render[] = { /* also /tokenize with messages */
    {"messages", LIST, MESSAGES, NULL},
    {"add_generation_prompt", FLAG, NULL, NULL},
    {"continue_final_message", FLAG, "with a generation prompt=true", "\"add_generation_prompt\":true"},
    {"tools", LIST, "empty=[]~no function=[{}]", NULL},
    {"chat_template_kwargs", OBJECT, NULL, NULL},
    {"model", STRING, NULL, NULL},
    {0},
};
static const struct field detokenize[] = {
    {"tokens", NO_STR | NO_INT | NO_OBJ | NO_BOOL,
     "missing=~null=null~above=[259]~below=[-1]~a string in it=[\"a\"]~a fraction in it=[1.5]~a list in it=[[1]]", NULL},
    {"model", STRING, NULL, NULL},
    {0},
};
static const struct field count_tokens[] = {
    {"messages", LIST, MESSAGES "~missing=", NULL},
    {"tools", LIST, "no name=[{}]", NULL},
    {"thinking", OBJECT, "unknown={\"type\":\"maybe\"}", NULL},
    {"tool_choice", OBJECT, "unknown={\"type\":\"x\"}", NULL},
    {"system", NO_INT | NO_BOOL | NO_OBJ, NULL, NULL},
    {"model", STRING, NULL, NULL},
    {0},
};
static const struct field show[] = {{"model", STRING, NULL, NULL}, {0}};

static const struct endpoint {
    const char *path;
    const struct field *fields;
    const char *base[3]; /* fields of a good request, in place of which a bad one is put */
    const char *values[3];
    bool said; /* an error is one string (Ollama's); the field is in it */
} endpoints[] = {
    {"/v1/chat/completions", chat, {"messages"}, {USER("\"a\"")}, false},
    {"/v1/completions", completions, {"prompt"}, {"\"a\""}, false},
    {"/v1/embeddings", embeddings, {"input"}, {"\"a\""}, false},
    {"/v1/responses", responses, {"input"}, {"\"a\""}, false},
    {"/v1/messages", messages, {"messages", "max_tokens"}, {USER("\"a\""), "5"}, false},
    {"/v1/messages/count_tokens", count_tokens, {"messages"}, {USER("\"a\"")}, false},
    {"/api/chat", ollama_chat, {"messages"}, {USER("\"a\"")}, true},
    {"/api/generate", ollama_generate, {"prompt"}, {"\"a\""}, true},
    {"/api/embed", ollama_embed, {"input"}, {"\"a\""}, true},
    {"/api/embeddings", ollama_embeddings, {"prompt"}, {"\"a\""}, true},
    {"/api/show", show, {NULL}, {NULL}, true},
    {"/tokenize", tokenize, {"prompt"}, {"\"a\""}, false},
    {"/tokenize", content, {NULL}, {NULL}, false},
    {"/tokenize", render, {"messages"}, {USER("\"a\"")}, false},
    {"/apply-template", render, {"messages"}, {USER("\"a\"")}, false},
    {"/detokenize", detokenize, {"tokens"}, {"[1]"}, false},
};

static struct test_api t;
static struct gw *gw;
static struct client conn;
static int n_requests, n_bad, n_cases;
static char *cases[4096];

static int setup(void **state)
{
    struct gw_conf conf = {.host = "127.0.0.1", .max_body = 1 << 20, .header_timeout_s = 20,
                           .idle_timeout_s = 60, .ping_ms = 1000,    .max_connections = 16};
    (void)state;
    test_api_open(&t, 1);
    test_api_say(&t, "x", 1);
    assert_int_equal(gw_open(&gw, &conf, crd_api_routes, crd_api_n_routes, crd_api_fallback,
                             crd_access_gate, &t.api),
                     OK);
    client_open(&conn, gw_port(gw));
    n_requests = n_bad = n_cases = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < n_cases; i++) free(cases[i]);
    client_close(&conn);
    gw_close(gw);
    test_api_close(&t);
    return 0;
}

/* One more case; the same one twice is a fault of the table. */
static void count(size_t ep, const char *field, const char *what, size_t n, bool again)
{
    char *key = xasprintf("%zu %s: %.*s", ep, field, (int)n, what);
    for (int i = 0; i < n_cases; i++)
        if (!strcmp(cases[i], key)) {
            if (!again) fail_msg("the case \"%s\" stands there twice", key);
            free(key);
            return;
        }
    assert_true(n_cases < (int)COUNT_OF(cases));
    cases[n_cases++] = key;
}

/* param: the field at fault; NULL: the body as a whole is. */
static bool is_named(const struct endpoint *ep, const json_t *e, const char *param)
{
    const char *got = json_str(e, "param"), *said = json_string_value(e);
    if (ep->said) return said && (!param || strstr(said, strchr(param, '.') ? strchr(param, '.') + 1 : param));
    if (!json_is_string(json_object_get(e, "message"))) return false;
    return param ? got && !strcmp(got, param) : !got;
}

static void expect(const struct endpoint *ep, const char *body, size_t n, const char *param)
{
    struct answer a;
    char head[200];
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", ep->path, n);
    assert_true(client_puts(&conn, head) && client_send(&conn, body, n));
    client_answer(&conn, &a);
    json_t *j = json_loadb((char *)a.body.data, a.body.len, JSON_ALLOW_NUL, NULL);
    n_requests++;
    if (a.status != 400 || !is_named(ep, json_object_get(j, "error"), param)) {
        printf("%s: %.300s\n  needed 400 and %s\n  -> %d %s\n", ep->path, body, param ? param : "no field", a.status, buf_str(&a.body));
        n_bad++;
    }
    json_decref(j);
    answer_free(&a);
}

/* A value as the table writes it. */
static void put_value(const char *v, size_t n, struct buf *out)
{
    if (*v == '*') {
        char *item;
        long many = strtol(v + 1, &item, 10);
        for (long i = 0; i < many; i++) {
            buf_putc(out, i ? ',' : '[');
            buf_put(out, item + 1, n - (size_t)(item + 1 - v));
        }
        buf_putc(out, ']');
    } else if (*v == '$') {
        buf_putc(out, '"');
        for (long i = strtol(v + 1, NULL, 10); i; i--) buf_putc(out, 'a');
        buf_putc(out, '"');
    } else {
        buf_put(out, v, n);
    }
}

/* The whole body with this value in that field; n 0: the field is missing. */
static void put_body(const struct endpoint *ep, const struct field *f, const char *v, size_t n, struct buf *out)
{
    const char *dot = strchr(f->name, '.');
    buf_putc(out, '{');
    if (n && dot) {
        buf_printf(out, "\"%.*s\":{\"%s\":", (int)(dot - f->name), f->name, dot + 1);
        put_value(v, n, out);
        buf_putc(out, '}');
    } else if (n) {
        buf_printf(out, "\"%s\":", f->name);
        put_value(v, n, out);
    }
    if (f->also) buf_printf(out, "%s%s", n ? "," : "", f->also);
    for (size_t i = 0; i < COUNT_OF(ep->base) && ep->base[i]; i++)
        if (strcmp(ep->base[i], f->name))
            buf_printf(out, "%s\"%s\":%s", out->len > 1 ? "," : "", ep->base[i], ep->values[i]);
    buf_putc(out, '}');
}

static void try_value(const struct endpoint *ep, const struct field *f, const char *v, size_t n)
{
    struct buf body = {0};
    put_body(ep, f, v, n, &body);
    expect(ep, buf_str(&body), body.len, !strcmp(f->name, "content") ? "prompt" : f->name);
    buf_free(&body);
}

static void try_field(size_t e, const struct field *f)
{
    const struct endpoint *ep = &endpoints[e];
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        if (!(f->type & wrong[i].bit)) continue;
        count(e, f->name, "of another type", 15, true);
        try_value(ep, f, wrong[i].value, strlen(wrong[i].value));
    }
    for (const char *p = f->cases; p && *p;) {
        size_t what = strcspn(p, "="), n = strcspn(p, "~");
        count(e, f->name, p, what, false);
        try_value(ep, f, p + what + 1, n - what - 1);
        p += n + (p[n] == '~');
    }
}

static void every_wrong_field_is_named(void **state)
{
    (void)state;
    for (size_t e = 0; e < COUNT_OF(endpoints); e++)
        for (const struct field *f = endpoints[e].fields; f->name; f++) try_field(e, f);
    printf("%d requests, %d different cases\n", n_requests, n_cases);
    assert_true(n_cases >= 300);
    assert_int_equal(n_bad, 0);
    assert_int_equal(fake_submitted(t.fake), 0);
}

/* Documents that are none, whatever the endpoint. Where one is about a field, the field at fault is
 * still not named: nobody can know which it was to be. */
static void no_endpoint_takes_what_is_no_document(void **state)
{
    (void)state;
    static const struct {
        const char *what, *body;
    } bodies[] = {
        {"empty", ""},
        {"blank", " "},
        {"null", "null"},
        {"a number", "7"},
        {"a string", "\"a\""},
        {"a list", "[]"},
        {"cut after the brace", "{"},
        {"cut in a key", "{\"a"},
        {"cut after a key", "{\"a\""},
        {"cut after a colon", "{\"a\":"},
        {"cut in a string", "{\"a\":\"b"},
        {"cut after a value", "{\"a\":1"},
        {"a comma too many", "{\"a\":1,}"},
        {"a brace too many", "{\"a\":1}}"},
        {"two documents", "{}{}"},
        {"a key twice", "{\"a\":1,\"a\":2}"},
        {"a key twice, further in", "{\"x\":{\"a\":1,\"a\":2}}"},
        {"single quotes", "{'a':1}"},
        {"no quotes", "{a:1}"},
        {"a leading zero", "{\"a\":01}"},
        {"half a word", "{\"a\":nul}"},
        {"a word that is none", "{\"a\":NaN}"},
        {"too large an exponent", "{\"a\":1e999}"},
        {"a raw tab", "{\"a\":\"\t\"}"},
        {"an unknown escape", "{\"a\":\"\\x\"}"},
        {"half a surrogate", "{\"a\":\"\\ud800\"}"},
        {"half a UTF-8 letter", "{\"a\":\"\xC3\"}"},
        {"a surrogate in UTF-8", "{\"a\":\"\xED\xA0\x80\"}"},
        {"UTF-8 above the last letter", "{\"a\":\"\xF4\x90\x80\x80\"}"},
        {"UTF-8 longer than needed", "{\"a\":\"\xC0\xAF\"}"},
        {"UTF-8 in a key", "{\"\xFF\":1}"},
        {"a byte order mark", "\xEF\xBB\xBF{}"},
        {"UTF-16", "{\0}\0"},
        {"an escaped NUL", "{\"a\":\"\\u0000\"}"},
        {"a number beyond 64 bits", "{\"a\":123456789012345678901234567890}"},
        {"a comment", "{/*a*/}"},
    };
    for (size_t e = 0; e < COUNT_OF(endpoints); e++) {
        if (e && !strcmp(endpoints[e].path, endpoints[e - 1].path)) continue;
        for (size_t i = 0; i < COUNT_OF(bodies); i++) {
            size_t n = !strcmp(bodies[i].what, "UTF-16") ? 4 : strlen(bodies[i].body);
            count(e, "", bodies[i].what, strlen(bodies[i].what), false);
            expect(&endpoints[e], bodies[i].body, n, NULL);
        }
        for (int k = 0; k < 2; k++) {
            struct buf deep = {0};
            for (int i = 0; i < 200; i++) buf_puts(&deep, k ? "{\"a\":" : "[");
            count(e, "", k ? "deep objects" : "deep lists", 12 - (size_t)!k * 2, false);
            expect(&endpoints[e], buf_str(&deep), deep.len, NULL);
            buf_free(&deep);
        }
    }
    printf("%d requests\n", n_requests);
    assert_int_equal(n_bad, 0);
    assert_int_equal(fake_submitted(t.fake), 0);
}

/* A good request, cut off after each of its bytes, and with each of its bytes made a bad one. */
static void a_body_is_whole_or_refused(void **state)
{
    (void)state;
    for (size_t e = 0; e < COUNT_OF(endpoints); e++) {
        static const struct field none = {.name = ""};
        struct buf body = {0};
        put_body(&endpoints[e], &none, "", 0, &body);
        for (size_t n = 0; n < body.len; n++) expect(&endpoints[e], buf_str(&body), n, NULL);
        for (size_t i = 0; i < body.len; i++) {
            uint8_t was = body.data[i];
            body.data[i] = 0xFF;
            expect(&endpoints[e], buf_str(&body), body.len, NULL);
            body.data[i] = was;
        }
        buf_free(&body);
    }
    printf("%d requests\n", n_requests);
    assert_int_equal(n_bad, 0);
    assert_int_equal(fake_submitted(t.fake), 0);
}

/* Published documents: a number of them are no JSON; what is JSON is understood, but for two things
 * that we refuse on purpose, as servers before us may read them otherwise than we do. */
static bool refused_on_purpose(const char *name)
{
    return strstr(name, "duplicated_key") || strstr(name, "null_escape") || strstr(name, "escaped_null") ||
           strstr(name, "null_in_key");
}

static int ask_tokenize(const char *body, size_t n, bool *no_json)
{
    struct answer a;
    char head[200];
    snprintf(head, sizeof head, "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", n);
    assert_true(client_puts(&conn, head) && client_send(&conn, body, n));
    client_answer(&conn, &a);
    int status = a.status;
    *no_json = strstr(buf_str(&a.body), "Invalid JSON") != NULL;
    answer_free(&a);
    return status;
}

static void published_documents(void **state)
{
    (void)state;
    int n = 0, n_purpose = 0, n_wrong = 0;
    const char *where = scratch_shared("json/JSONTestSuite");
    char folder[4096];
    if (!where) {
        printf("skipped: JSONTestSuite is not here\n");
        skip();
    }
    snprintf(folder, sizeof folder, "%s", where);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct buf doc = {0}, inside = {0};
        char path[5000];
        bool yes = e->d_name[0] == 'y', no_json, no_json_inside;
        if (!strstr(e->d_name, ".json")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        assert_true(scratch_read(path, &doc));
        int status = ask_tokenize(buf_str(&doc), doc.len, &no_json);
        buf_puts(&inside, "{\"prompt\":\"a\",\"x\":");
        buf_put(&inside, doc.data, doc.len);
        buf_putc(&inside, '}');
        int status_inside = ask_tokenize(buf_str(&inside), inside.len, &no_json_inside);
        bool good = (status == 400 || status == 200) && (status_inside == 400 || status_inside == 200);
        if (yes && refused_on_purpose(e->d_name))
            good = good && no_json && status_inside == 400, n_purpose++;
        else if (yes)
            good = good && !no_json && status_inside == 200;
        else if (e->d_name[0] == 'n')
            good = good && status == 400 && no_json && status_inside == 400;
        if (!good) printf("%s: %d%s, inside %d\n", e->d_name, status, no_json ? " no JSON" : "", status_inside);
        n_wrong += !good;
        n++;
        buf_free(&doc);
        buf_free(&inside);
    }
    closedir(d);
    printf("%d documents, %d refused on purpose\n", n, n_purpose);
    assert_true(n > 100);
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_wrong_field_is_named),
        T(no_endpoint_takes_what_is_no_document),
        T(a_body_is_whole_or_refused),
        T(published_documents),
    };
    return cmocka_run_group_tests_name("malformed", tests, NULL, NULL);
}
