/* words.h: a checkpoint's tokenizer and chat template as GGUF's keys. Internal to engine/convert. */
#ifndef ENGINE_CONVERT_WORDS_H
#define ENGINE_CONVERT_WORDS_H

#include "engine/file/gguf_out.h"

/* A checkpoint without a tokenizer gives no keys, and *there is false. Err BAD_FILE, UNSUPPORTED: a tokenizer that GGUF's keys cannot say, which
 * is found out by trying: the ids of a text must be the same. */
MUST_USE enum err conv_words(struct eng_gguf_out *out, const struct eng_model_file *in, bool *there);

#endif
