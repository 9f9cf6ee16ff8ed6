/* translate.h: requests of other dialects into the one form we understand, that of OpenAI's chat.
 *
 * Pure: a parsed body in, a parsed body out. What is malformed is passed on where the reader of our
 * form will refuse it, so that there is one place that knows what is right. */
#ifndef COORDINATOR_API_TRANSLATE_H
#define COORDINATOR_API_TRANSLATE_H

#include "coordinator/api/api_error.h"
#include "coordinator/api/generation.h"

#include <jansson.h>

/* Fields that only have another name; ends with NULL. */
struct crd_field_name {
    const char *theirs, *ours;
};

struct crd_dialect_in {
    /* Add to body what is no mere renaming. */
    enum err (*translate)(const json_t *given, json_t *body, struct crd_api_error *e);
    const struct crd_field_name *names;
    const char *inside;               /* these stand in an object of this name; NULL: at the top */
    const struct crd_field_name *top; /* and these at the top; NULL: none */
};
/* NULL for an endpoint whose bodies are in our form. */
const struct crd_dialect_in *crd_dialect_in_of(enum crd_endpoint ep);
extern const struct crd_dialect_in crd_messages_in, crd_responses_in, crd_ollama_chat_in,
    crd_ollama_generate_in, crd_ollama_embed_in, crd_ollama_embeddings_in;

/* *out: Own: caller. Err BAD_REQUEST, *e filled. */
MUST_USE enum err crd_translate(const struct crd_dialect_in *d, const json_t *given, json_t **out,
                                struct crd_api_error *e);
/* The field at fault, by the name the client knows it by. */
void crd_translate_error(const struct crd_dialect_in *d, struct crd_api_error *e);

/* responses_check.c: fields of /v1/responses that have no counterpart in our form. Err BAD_REQUEST,
 * *e filled. */
MUST_USE enum err crd_responses_check(const json_t *given, struct crd_api_error *e);

/* {"role":role,"content":content}; content is borrowed. Own: caller. */
json_t *crd_translate_message(const char *role, const json_t *content);
/* {"type":"function","function":{name, description, parameters}} of fields of a tool. Own: caller.
 */
json_t *crd_translate_tool(const json_t *tool, const char *parameters);
/* {"id","type","function":{"name","arguments"}}. Own: caller. */
json_t *crd_translate_call(const json_t *id, const json_t *name, const json_t *arguments);
/* chat_template_kwargs.enable_thinking. */
void crd_translate_thinking(json_t *body, bool on);

#endif
