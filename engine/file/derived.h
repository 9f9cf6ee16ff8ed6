/* derived.h: tensors that a checkpoint holds in another form than the kernels': codes of one tensor, scales of another, zero
 * points of a third. To everybody else such a tensor is one like all others, of a type the kernels know; its bytes are made
 * when they are read, from rows of the raw tensors (eng_model_file.raw). The same file gives the same bytes to whoever reads,
 * so cuts, caches and what ranks hand on to each other know nothing of it. Private to engine/file. */
#ifndef ENGINE_FILE_DERIVED_H
#define ENGINE_FILE_DERIVED_H

#include "engine/file/format.h"

enum {
    DERIVED_ROWS = 32,            /* rows are made so many at a time, or a multiple: codes may lie packed along them */
    DERIVED_BAND_BYTES = 1 << 19, /* and about so many bytes, */
    DERIVED_BAND_ROWS = 128,      /* but no fewer than so many: what is packed across rows is read in pieces of a band's width */
};

/* How the rows of one kind are made. */
struct eng_recipe {
    const char *name; /* "FP8" */
    /* Rows [row0, row0 + n) of t, whole. row0 is a multiple of DERIVED_ROWS. Thr any. Err IO, NO_MEMORY, BAD_FILE. */
    enum err (*rows)(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out);
    int32_t band_rows; /* instead of DERIVED_BAND_ROWS; 0: those */
};

/* Where integers lie: codes of [rows][cols], zero points of [rows][groups]. Packed ones follow each other in words of 32 bits, lowest
 * bits first, a value across two words where the width asks for it. */
enum eng_int_layout {
    INT_NONE,        /* zero points: all are zero_add */
    INT_ALONG_ROWS,  /* a row's values one after the other, in words of its own (compressed-tensors' codes) */
    INT_ACROSS,      /* codes: a word has values of one row, words are [cols * bits / 32][rows] (GPTQ);
                      * zero points: a group's values one after the other, [groups][rows * bits / 32] (GPTQ) */
    INT_AWQ,         /* values of eight rows in a word, in AWQ's order: [cols][rows / 8], zero points [groups][rows / 8] */
    INT_DOWN,        /* zero points: words are [rows * bits / 32][groups] (compressed-tensors) */
    INT_BYTES,       /* signed bytes, [rows][cols], [rows][groups] */
};

/* What is made of what. Shapes have been checked against each other when it was written. */
struct eng_derived {
    const struct eng_recipe *recipe;
    const struct model_tensor *codes, *scales, *zeros, *order, *shape; /* of f->raw (derived_heads.c: or itself derived); NULL: none */
    int64_t scale_rows, scale_cols;   /* one scale holds for so many rows and columns */
    int64_t n_scale_rows, n_scale_cols;
    /* integers: value = scale * (code - zero), zero = what is stored + zero_add */
    int32_t bits, zero_add;
    enum eng_int_layout code_layout, zero_layout;
    bool scales_across;               /* scales are [groups][rows] */
    /* four-bit codes (derived_nibbles.c); scale_cols: values of a block */
    const struct model_tensor *factor;       /* NVFP4: one for all scales, by which they are divided or multiplied */
    bool factor_divides;
    const struct model_tensor *table, *state, *nested, *nested_table; /* bitsandbytes; nested: NULL where scales are not quantised */
    /* experts: row r of what is made is row r % rows_each * stride + turn of expert r / rows_each */
    int64_t rows_each, turn;
    int32_t stride;
    bool by_column;                   /* order[k] is the group of column k; else it is k / scale_cols, also where an order is given */
};

extern const struct eng_recipe eng_recipe_fp8, eng_recipe_gptq, eng_recipe_awq, eng_recipe_int, eng_recipe_mxfp4, eng_recipe_turned, eng_recipe_spaced,
    eng_recipe_nvfp4, eng_recipe_bnb;

/* eng_model_file_read of a derived tensor. */
MUST_USE enum err eng_derived_read(const struct eng_model_file *f, const struct model_tensor *t, int64_t offset, int64_t bytes, void *dst);

/* Rows [row0, row0 + n), bytes [b0, b0 + bytes) of each, of a raw tensor. Err IO. */
MUST_USE enum err eng_raw_read(const struct eng_model_file *f, const struct model_tensor *raw, int64_t row0, int64_t n, int64_t b0, int64_t bytes,
                               void *dst);
/* n values of a raw tensor of F32, F16, BF16, F8_E8M0 or F8_E4M3, from the first'th on. Err IO, NO_MEMORY. */
MUST_USE enum err eng_raw_floats(const struct eng_model_file *f, const struct model_tensor *raw, int64_t first, int64_t n, float *dst);
bool eng_raw_is_float(const struct model_tensor *raw); /* F8_E4M3 not: it is a code elsewhere */
/* What an FP8 code means. */
float eng_fp8_value(bool e5m2, uint8_t code);
/* x as t->type (F32, F16, BF16), rounded to nearest even. */
void eng_raw_put(enum dtype type, const float *x, int64_t n, uint8_t *dst);

/* The made bands of a file, the newest of them kept. NULL-safe close. */
struct eng_bands;
struct eng_bands *eng_bands_open(void);
void eng_bands_close(struct eng_bands *b);

#endif
