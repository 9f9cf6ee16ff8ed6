/* hf_write.h: a GGUF file's weights as a Hugging Face checkpoint, for tests that compare the two.
 * Reads with the product's own reader; writes safetensors on its own. Thr: one. */
#ifndef TESTS_SUPPORT_HF_WRITE_H
#define TESTS_SUPPORT_HF_WRITE_H

#include "base/base.h"

/* A fresh directory (in scratch_dir) with these bytes as files; names NULL-terminated, pairs of
 * name and NUL-terminated content. Valid until the program ends. */
const char *hf_write_dir(const char *const files[]);

/* DIR/model.safetensors from a GGUF file of the llama, qwen2 or qwen3 family: names translated, the
 * rows of llama's q and k put back from adjacent pairs into halves. Any failure ends the test. */
void hf_write_weights(const char *dir, const char *gguf);

/* DIR/config.json saying what the GGUF file's keys say (rope scaling left out). */
void hf_write_config(const char *dir, const char *gguf);

#endif
