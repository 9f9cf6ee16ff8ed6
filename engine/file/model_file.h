/* model_file.h: a model on disk: key-value metadata and named tensors, whatever the format.
 *
 * Opening reads headers only and checks every count, offset and string against the file's size; no tensor
 * byte is touched. Formats are an ops table: GGUF v2/v3 incl. split files; the directory of a Hugging Face
 * checkpoint (config.json, safetensors in one file or shards), whose keys and tensor names are given as GGUF
 * would name them (hf_config.h). A model file is read-only after open. Thr: any. */
#ifndef ENGINE_FILE_MODEL_FILE_H
#define ENGINE_FILE_MODEL_FILE_H

#include "base/buf.h"
#include "base/err.h"
#include "engine/file/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum { MODEL_MAX_DIMS = 4 };

/* A tensor's place. Shape as the mathematics sees it: dims[0] is the fastest-varying (row length K),
 * dims[1] the number of rows N; unused dims are 1. */
struct model_tensor {
    const char *name;      /* Own: the file */
    enum dtype type;       /* DTYPE_COUNT: a type we do not compute with; listed, but reading it is refused */
    uint32_t ggml_type;    /* ggml's number, also of foreign types (dtype_ggml_name) */
    int32_t n_dims;
    int64_t dims[MODEL_MAX_DIMS];
    int32_t part;          /* which split file */
    int64_t offset;        /* absolute, in that part */
    int64_t bytes;         /* 0 when the size of the type is unknown */
    bool part_of;          /* another tensor of the list has its values too: it is only there so that they can be read in its shape */
    const struct eng_derived *derived; /* private: its bytes are made of other tensors' when they are read (offset is 0 then); NULL: they lie there */
};

enum model_kv_kind { KV_INT, KV_FLOAT, KV_BOOL, KV_STRING, KV_ARRAY };

struct model_str { const char *p; uint64_t n; }; /* not NUL-terminated; Own: the file */

/* A metadata value. Integers of all widths arrive as int64 (u64 above INT64_MAX: BAD_FILE). */
struct model_kv {
    struct model_str key;
    enum model_kv_kind kind;
    union {
        int64_t i;
        double f;
        bool b;
        struct model_str s;
        struct {
            enum model_kv_kind kind; /* of the elements; never KV_ARRAY (nested arrays: BAD_FILE) */
            uint64_t n;
            const void *at;          /* private: use eng_model_file_array_* */
            uint32_t elem;           /* private: the file's element type */
        } a;
    };
    const void *raw;       /* private: type and value as a GGUF file has them; NULL: not from one */
    uint64_t raw_n;
};

struct eng_model_file;

/* Open PATH: a GGUF file, or the first part of a split one (all parts are opened), or a checkpoint's directory.
 * Err IO (no such file, unreadable), BAD_FILE (one sentence with the byte offset and the value seen),
 *     UNSUPPORTED (format or version named with what is supported). Own: caller closes. */
MUST_USE enum err eng_model_file_open(struct eng_model_file **out, const char *path);
void eng_model_file_close(struct eng_model_file *f);

const char *eng_model_file_format(const struct eng_model_file *f);  /* "GGUF v3" */
const char *eng_model_file_path(const struct eng_model_file *f);           /* as given to open */
bool eng_model_file_is_dir(const struct eng_model_file *f);         /* its tokenizer lies in files beside the weights */
int32_t eng_model_file_parts(const struct eng_model_file *f);
int64_t eng_model_file_bytes(const struct eng_model_file *f);       /* all parts */

/* The whole file NAME of a checkpoint's directory into *out; *there is false (and *out empty) when there is none.
 * Err IO, BAD_FILE (more than `most` bytes). */
MUST_USE enum err eng_model_file_beside(const struct eng_model_file *f, const char *name, int64_t most, struct buf *out,
                                        bool *there);

int64_t eng_model_file_n_kv(const struct eng_model_file *f);
const struct model_kv *eng_model_file_kv(const struct eng_model_file *f, int64_t i);
const struct model_kv *eng_model_file_find(const struct eng_model_file *f, const char *key); /* or NULL */
/* Typed look-ups. When the key is absent they write `def` and return OK; a wrong type or a value outside
 * [min,max] is BAD_FILE naming the key. */
MUST_USE enum err eng_model_file_int(const struct eng_model_file *f, const char *key, int64_t def, int64_t min,
                                     int64_t max, int64_t *out);
MUST_USE enum err eng_model_file_float(const struct eng_model_file *f, const char *key, double def, double *out);
MUST_USE enum err eng_model_file_bool(const struct eng_model_file *f, const char *key, bool def, bool *out);
/* The string as a NUL-terminated copy (embedded NULs: BAD_FILE), or NULL when absent. Own: caller, free(). */
MUST_USE enum err eng_model_file_string(const struct eng_model_file *f, const char *key, char **out);
/* Element i of an array value; the caller has checked kind and i < n. */
struct model_str eng_model_file_array_str(const struct model_kv *kv, uint64_t i); /* O(1) */
int64_t eng_model_file_array_int(const struct model_kv *kv, uint64_t i);
double eng_model_file_array_float(const struct model_kv *kv, uint64_t i);

/* What a tensor's bytes are made of ("FP8"), or NULL: they lie in the file. */
const char *eng_model_tensor_made_of(const struct model_tensor *t);
int64_t eng_model_file_n_tensors(const struct eng_model_file *f);
const struct model_tensor *eng_model_file_tensor(const struct eng_model_file *f, int64_t i);
const struct model_tensor *eng_model_file_tensor_find(const struct eng_model_file *f, const char *name); /* or NULL; O(1) */

/* Read `bytes` of tensor t from `offset` inside it with pread. Err IO naming file, tensor and offset,
 * UNSUPPORTED when the tensor's type is foreign; asserts that the range is inside the tensor. */
MUST_USE enum err eng_model_file_read(const struct eng_model_file *f, const struct model_tensor *t, int64_t offset,
                                      int64_t bytes, void *dst);

#endif
