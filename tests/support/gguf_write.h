/* gguf_write.h: a small writer of GGUF files, for tests and tools.
 *
 * Put keys and tensors in the order in which they shall stand in the file, then save. It writes
 * what it is told: duplicates and nonsense included, so that tests can make bad files. Thr: its
 * owner. */
#ifndef TESTS_SUPPORT_GGUF_WRITE_H
#define TESTS_SUPPORT_GGUF_WRITE_H

#include "base/buf.h"
#include "base/err.h"
#include "engine/file/dtype.h"
#include "engine/file/model_file.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

struct gguf_write;
struct gguf_write *gguf_write_open(void); /* version 3, alignment 32 (without the key) */
void gguf_write_close(struct gguf_write *w);

void gguf_write_version(struct gguf_write *w, uint32_t version);
void gguf_write_alignment(struct gguf_write *w,
                          uint32_t alignment); /* also puts general.alignment */

/* Scalars; `type` is an integer type or GGUF_BOOL; v is cut to its width. */
void gguf_write_int(struct gguf_write *w, const char *key, enum gguf_type type, int64_t v);
void gguf_write_u32(struct gguf_write *w, const char *key, uint32_t v);
void gguf_write_bool(struct gguf_write *w, const char *key, bool v);
void gguf_write_f32(struct gguf_write *w, const char *key, float v);
void gguf_write_f64(struct gguf_write *w, const char *key, double v);
void gguf_write_str(struct gguf_write *w, const char *key, const char *s);
/* Arrays of n; copied. */
void gguf_write_ints(struct gguf_write *w, const char *key, enum gguf_type type, const int32_t *v,
                     uint64_t n);
void gguf_write_f32s(struct gguf_write *w, const char *key, const float *v, uint64_t n);
void gguf_write_strs(struct gguf_write *w, const char *key, const struct model_str *v, uint64_t n);
/* Any value as the bytes that follow the key. */
void gguf_write_raw(struct gguf_write *w, const char *key, uint32_t type, const void *value,
                    size_t n);

/* Encode rows [row, row + n) of the tensor into dst (n * bytes of a row). */
typedef void gguf_fill(void *ctx, int64_t row, int64_t n, void *dst);

/* A tensor of dims[n_dims] (dims[0]: the row length) whose bytes stand at data until the file is
 * saved. */
void gguf_write_tensor(struct gguf_write *w, const char *name, enum dtype t, int32_t n_dims,
                       const int64_t dims[], const void *data);
/* The same, made while saving: ctx must live until then. */
void gguf_write_tensor_by(struct gguf_write *w, const char *name, enum dtype t, int32_t n_dims,
                          const int64_t dims[], gguf_fill *fill, void *ctx);
/* Only an entry: any type number and data offset (relative to the data), no bytes. */
void gguf_write_tensor_entry(struct gguf_write *w, const char *name, uint32_t ggml_type,
                             int32_t n_dims, const int64_t dims[], uint64_t offset);

/* Write the file; may be called again. Err IO (the incomplete file is removed). */
MUST_USE enum err gguf_write_save(const struct gguf_write *w, const char *path);
void gguf_write_bytes(const struct gguf_write *w, struct buf *out); /* appended to *out */

#endif
