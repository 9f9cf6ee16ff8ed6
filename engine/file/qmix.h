/* qmix.h: which tensor becomes which type: the mixes that users know by llama.cpp's names ("Q4_K_M"), with the same
 * choice for each tensor, so that a file is as large and as good as its name says. Source: llama.cpp's choice (facts). */
#ifndef ENGINE_FILE_QMIX_H
#define ENGINE_FILE_QMIX_H

#include "engine/file/dtype.h"

struct eng_qmix {
    const char *name;
    enum dtype type;     /* of most matrices */
    uint32_t file_type;  /* general.file_type */
};

/* What a choice depends on besides the tensor. */
struct eng_qmix_model {
    const char *arch;
    int32_t n_layers, n_heads, n_kv_heads, n_expert;
    int32_t head_dim;    /* 0: not known */
    bool has_output;     /* a matrix of its own, not the embedding's */
    bool has_imatrix;
};

/* By name, whatever its case; "Q4_K" is Q4_K_M. NULL when nobody has that name. */
const struct eng_qmix *eng_qmix_find(const char *name);
const char *eng_qmix_names(void); /* "F32, F16, ...", for sentences */

/* The type of a tensor of dims[2]; `now` is what it has. Vectors, norms and routers are not quantised: F32. */
enum dtype eng_qmix_type(const struct eng_qmix *r, const struct eng_qmix_model *m, const char *name, const int64_t dims[2], enum dtype now);

#endif
