/* gguf_out.h: a GGUF file in the making: keys and tensors first, then the tensors' bytes in their order.
 *
 * The file is written beside its place under a name of its own and moved there whole (fsync, rename), so that nobody
 * ever finds half of one. Version 3, alignment 32. Not here: quantising (encode.h), what is written (convert.h).
 * Thr: its owner. Source: the GGUF specification. */
#ifndef ENGINE_FILE_GGUF_OUT_H
#define ENGINE_FILE_GGUF_OUT_H

#include "engine/file/model_file.h"

struct eng_gguf_out;
struct eng_gguf_out *eng_gguf_out_open(void);
/* Without a finish before it the unfinished file is removed. NULL-safe. */
void eng_gguf_out_close(struct eng_gguf_out *w);

/* ---- keys, each once ---- */

void eng_gguf_out_u32(struct eng_gguf_out *w, const char *key, uint32_t v);
void eng_gguf_out_f32(struct eng_gguf_out *w, const char *key, float v);
void eng_gguf_out_bool(struct eng_gguf_out *w, const char *key, bool v);
void eng_gguf_out_str(struct eng_gguf_out *w, const char *key, const char *s, size_t n);
void eng_gguf_out_strs(struct eng_gguf_out *w, const char *key, const struct model_str *s, uint64_t n);
void eng_gguf_out_f32s(struct eng_gguf_out *w, const char *key, const float *v, uint64_t n);
void eng_gguf_out_i32s(struct eng_gguf_out *w, const char *key, const int32_t *v, uint64_t n);
/* A key as another file has it: a GGUF file's bytes as they stand; of a checkpoint the value in the usual type. */
void eng_gguf_out_kv(struct eng_gguf_out *w, const struct model_kv *kv);

/* ---- tensors ---- */

/* In the order in which their bytes will come. Copies name. */
void eng_gguf_out_tensor(struct eng_gguf_out *w, const char *name, enum dtype t, int32_t n_dims, const int64_t dims[]);
int64_t eng_gguf_out_bytes(const struct eng_gguf_out *w); /* of the whole file, once all tensors are named */

/* Make the file and write its head. Err IO (with the reason; also: not enough room on the file system). */
MUST_USE enum err eng_gguf_out_begin(struct eng_gguf_out *w, const char *path);
/* The next n bytes of tensors, from the first tensor on; where one ends the next begins. Err IO. */
MUST_USE enum err eng_gguf_out_put(struct eng_gguf_out *w, const void *p, int64_t n);
/* All bytes are there: make them durable and give the file its name. Err IO. */
MUST_USE enum err eng_gguf_out_finish(struct eng_gguf_out *w);

#endif
