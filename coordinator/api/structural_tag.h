/* structural_tag.h: formats composed of texts, schemas and free text with triggers, as vLLM, SGLang and XGrammar take them in
 * response_format and structured_outputs, translated to parts of a grammar (engine/grammar/parts.h).
 *
 *   {"structures": [{"begin", "schema", "end"}, ...], "triggers": [...]}     the older form
 *   {"format": {"type": ..., ...}}                                         the newer one
 *
 * Formats: const_string, json_schema (styles json, qwen_xml, glm_xml), grammar (GBNF), regex, any_text, sequence, or, optional, plus, star,
 * repeat, tag, triggered_tags, tags_with_separator, dispatch, token, any_tokens, token_triggered_tags, token_dispatch. What cannot be
 * honoured is refused with its path. A text that is a control token of the vocabulary is that token. Pure. */
#ifndef COORDINATOR_API_STRUCTURAL_TAG_H
#define COORDINATOR_API_STRUCTURAL_TAG_H

#include "base/err.h"
#include "engine/text/tokenizer.h"

#include <jansson.h>

enum { STRUCTURAL_DEEP = 16, STRUCTURAL_REPEAT = 256, STRUCTURAL_TAGS = 1024 /* of a list; triggers, ends and exclusions too: each is held against each */ };

/* *out: the parts. Own: caller. path: of `tag`, for the sentences. Err BAD_REQUEST, UNSUPPORTED. */
MUST_USE enum err crd_structural_tag(const json_t *tag, const char *path, const struct eng_tokenizer *t, json_t **out);

#endif
