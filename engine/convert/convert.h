/* convert.h: a model as a GGUF file of other types: read tensor by tensor, rows in parallel, written as they come.
 *
 * Not here: which type a tensor gets (engine/file/qmix.h), how it is encoded (engine/file/encode.h). */
#ifndef ENGINE_CONVERT_CONVERT_H
#define ENGINE_CONVERT_CONVERT_H

#include "engine/backend/team.h"
#include "engine/convert/imatrix.h"
#include "engine/file/model_file.h"
#include "engine/file/qmix.h"

struct eng_convert_conf {
    const struct eng_model_file *in;
    const char *out;
    const struct eng_qmix *mix;
    const struct eng_imatrix *imatrix; /* or NULL */
    const char *imatrix_path;          /* noted in the file */
    struct eng_team *team;
    /* Called now and then; may be NULL. Returns false to stop. */
    bool (*progress)(void *user, int64_t done, int64_t total, const char *tensor);
    void *user;
};

struct eng_convert_stats {
    int64_t n_tensors, in_bytes, out_bytes;
    int64_t n_requantised;             /* tensors that were quantised already */
    int64_t n_without_importance;      /* quantised ones of which the matrix says nothing */
    bool no_words;                     /* the checkpoint had no tokenizer: neither has the file */
    double squares, errors;            /* of all quantised values: sum of x^2, of (x - y)^2 */
};

/* Err UNSUPPORTED, BAD_FILE (what cannot be written as GGUF, a value that is not finite), BAD_CONFIG (an importance
 * matrix of another model), IO, CANCELLED. On an error there is no file at `out`. */
MUST_USE enum err eng_convert(const struct eng_convert_conf *c, struct eng_convert_stats *out);

#endif
