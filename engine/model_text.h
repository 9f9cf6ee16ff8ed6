/* model_text.h: the words of a model file: its tokenizer and its chat template. Joins file/ and text/, which do not know each other. */
#ifndef ENGINE_MODEL_TEXT_H
#define ENGINE_MODEL_TEXT_H

#include "engine/file/model_file.h"
#include "engine/text/tokenizer.h"

/* From any file with a vocabulary, whatever its architecture. Err BAD_FILE (no vocabulary, inconsistent), UNSUPPORTED. */
MUST_USE enum err eng_model_tokenizer(struct eng_tokenizer **out, const struct eng_model_file *f);
/* A checkpoint's vocabulary as data (engine/text/hf_tokenizer.h); `take` may use it until it returns. sentencepiece: tokenizer.model's,
 * where there is one, also beside a tokenizer.json. Err as above. */
MUST_USE enum err eng_model_vocab(const struct eng_model_file *f, bool sentencepiece, enum err (*take)(void *user, const struct eng_vocab_src *src), void *user);
/* The file's chat template source, or NULL when it has none. Own: caller, free(). */
MUST_USE enum err eng_model_template(char **out, const struct eng_model_file *f);

#endif
