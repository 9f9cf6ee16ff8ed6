/* Any bytes as an importance matrix, of either format: refused with a sentence, or numbers that are all 0 or more. Seeds: corpus/imatrix. */
#include "base/base.h"
#include "engine/convert/imatrix.h"
#include "tests/support/scratch.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct eng_imatrix *m = NULL;
    err_set_text("%s", "");
    if (eng_imatrix_read(&m, scratch_bytes(data, n))) {
        ASSERT(*err_text() && !m);
        return 0;
    }
    for (int64_t i = 0; i < m->n; i++) {
        const struct eng_imatrix_entry *e = &m->at[i];
        float *means = xmalloc((size_t)e->cols * sizeof *means);
        for (int64_t k = 0; k < e->n_mat; k++)
            if (eng_imatrix_means(e, k, means))
                for (int64_t c = 0; c < e->cols; c++) ASSERT(means[c] >= 0);
        free(means);
    }
    eng_imatrix_close(m);
    return 0;
}
