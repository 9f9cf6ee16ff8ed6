/* pipeline.h: carries out the rules of a Hugging Face tokenizer: a text becomes added tokens and
 * words to be merged. Private to engine/text. Immutable after open. Thr: any. */
#ifndef ENGINE_TEXT_PIPELINE_H
#define ENGINE_TEXT_PIPELINE_H

#include "engine/text/rules.h"
#include "engine/text/vocab.h"

struct pipeline;

/* Everything in rules is copied; the texts of added tokens come from the vocabulary, which must
 * outlive the pipeline. Err UNSUPPORTED (an expression that does not compile). */
MUST_USE enum err pipeline_open(struct pipeline **out, const struct eng_text_rules *rules,
                                const struct vocab *v);
void pipeline_close(struct pipeline *p);

/* What a user-defined token stands for in an answer: its text as it is found in normalised text
 * (Llama 2's "<tool>" is " <tool>"); false: the vocabulary's. Own: the pipeline. */
bool pipeline_token_text(const struct pipeline *p, int32_t id, struct text_span *out);

/* Where the parts go, in the text's order. */
struct pipeline_sink {
    void *ctx;
    void (*token)(void *ctx, int32_t id);
    void (*word)(void *ctx, const char *p, size_t n);
};
/* Any bytes. control: control tokens are found too. */
void pipeline_run(const struct pipeline *p, const char *text, size_t n, bool control,
                  const struct pipeline_sink *sink);

#endif
