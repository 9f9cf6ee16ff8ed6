/* plan.h: what a converted file will hold: its keys, and each tensor with where its rows come from. A GGUF file's are its
 * own; a checkpoint's become what llama.cpp's converter makes of them (from_hf.c). Internal to engine/convert. */
#ifndef ENGINE_CONVERT_PLAN_H
#define ENGINE_CONVERT_PLAN_H

#include "base/arena.h"
#include "engine/file/gguf_out.h"
#include "engine/file/qmix.h"

struct conv_tensor {
    const char *name;
    enum dtype type;                   /* to be written */
    int32_t n_dims;
    int64_t dims[MODEL_MAX_DIMS];
    const struct model_tensor **parts; /* [n_parts], stacked row after row; NULL: values */
    int64_t n_parts;
    int32_t pair_heads;                /* > 0: rows of so many heads, halves to be interleaved (rope) */
    /* > 0: rows of so many groups, each of so many query heads, a key and a value: to be all queries, all keys, all values */
    int32_t group_heads, n_groups;
    float plus;                        /* added to every value */
    const float *values;               /* F32 that no file has */
};

struct conv_plan {
    struct arena arena;
    struct eng_gguf_out *out;
    struct conv_tensor *at;            /* Own */
    int64_t n, cap;
    struct eng_qmix_model model;
    bool no_words;                     /* a checkpoint without a tokenizer */
};

struct conv_tensor *conv_add(struct conv_plan *p, const char *name, int32_t n_dims, const int64_t dims[]);
static inline int64_t conv_rows(const struct conv_tensor *t) { return t->dims[1] * t->dims[2] * t->dims[3]; }

/* The tensors and keys of IN. general.file_type and the like are the caller's. Err UNSUPPORTED, BAD_FILE. */
MUST_USE enum err conv_plan_gguf(struct conv_plan *p, const struct eng_model_file *in);
MUST_USE enum err conv_plan_hf(struct conv_plan *p, const struct eng_model_file *in);

#endif
