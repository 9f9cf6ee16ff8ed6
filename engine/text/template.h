/* template.h: chat templates: the Jinja that model files carry, rendered with Hugging Face's settings
 * (trim_blocks, lstrip_blocks, loop controls, tojson without ASCII escapes, raise_exception, strftime_now).
 *
 * Values are jansson JSON in, text out. Bounded in steps, depth and output size. A compiled template is
 * immutable. Thr: any. */
#ifndef ENGINE_TEXT_TEMPLATE_H
#define ENGINE_TEXT_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>

struct eng_template;

/* Compile source[n]. Err BAD_FILE naming line and what was expected; UNSUPPORTED naming the construct. */
MUST_USE enum err eng_template_compile(struct eng_template **out, const char *source, size_t n);
void eng_template_close(struct eng_template *t);

/* Render with the object `context` as global variables (messages, tools, add_generation_prompt, bos_token, ...).
 * now_unix: what strftime_now sees (UTC). Err BAD_REQUEST (raise_exception's text, or undefined/type errors in
 * the template's words), TOO_LONG (a bound was hit). Appends to *out only on success. */
MUST_USE enum err eng_template_render(const struct eng_template *t, json_t *context, int64_t now_unix, struct buf *out);

/* A built-in template by name ("chatml", "llama-2", "llama-3", "zephyr", ...), or NULL. */
const char *eng_template_builtin(const char *name);
/* Their names, for sentences: "chatml, llama-2, ...". */
const char *eng_template_builtin_names(void);

#endif
