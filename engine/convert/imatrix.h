/* imatrix.h: an importance matrix: for each weight matrix the mean square of what its columns are multiplied with, as
 * measured over a text (measure.h). Quantising with it puts the error where it matters least.
 *
 * Two formats are known: GGUF (tensors NAME.in_sum2 and NAME.counts; general.type "imatrix"), and the older .dat. Of
 * experts there is a row of columns for each. Source: llama.cpp's files (facts). Thr: its owner. */
#ifndef ENGINE_CONVERT_IMATRIX_H
#define ENGINE_CONVERT_IMATRIX_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct eng_imatrix_entry {
    char *name;     /* of the matrix: "blk.0.ffn_down.weight"; Own */
    int64_t cols, n_mat;
    float *sums;    /* [n_mat][cols] sums of squares; Own */
    float *counts;  /* [n_mat] rows that were summed; Own */
};

struct eng_imatrix {
    struct eng_imatrix_entry *at; /* Own */
    int64_t n, cap;
    int32_t chunks, chunk_size;   /* of the text it was measured over */
    char *dataset;                /* the text's name; Own, may be NULL */
};

struct eng_imatrix *eng_imatrix_open(void);
void eng_imatrix_close(struct eng_imatrix *m);
/* The entry of that name, made (all zero) when it is not there. */
struct eng_imatrix_entry *eng_imatrix_entry(struct eng_imatrix *m, const char *name, int64_t cols, int64_t n_mat);
const struct eng_imatrix_entry *eng_imatrix_find(const struct eng_imatrix *m, const char *name); /* or NULL */
/* Mean squares of matrix i into out[cols]; false (nothing written) when nothing of it was seen. */
bool eng_imatrix_means(const struct eng_imatrix_entry *e, int64_t i, float *out);

/* Err IO, BAD_FILE: what is wrong and where. */
MUST_USE enum err eng_imatrix_read(struct eng_imatrix **out, const char *path);
/* As GGUF, or as .dat when path ends so. Whole or not at all. Err IO. */
MUST_USE enum err eng_imatrix_write(const struct eng_imatrix *m, const char *path);

#endif
