/* few.h: what is left of a few candidates, KRN_TOP at most, by typical_p, top_p, min_p and XTC (engine/sample/sampler.h): one text for the host
 * (engine/sample/cut.c) and for a card (engine/kernels/cuda/choose.cu), so that both leave the same.
 *
 * Sums are chains in double in the order in which the candidates stand. Nothing here depends on who sorted them: no two are equal. */
#ifndef ENGINE_KERNELS_FEW_H
#define ENGINE_KERNELS_FEW_H

#include "engine/kernels/table.h"

#include <math.h>

/* Candidates best first (larger z, of equals the lower id), and e^z of each. */
struct krn_few {
    int32_t n;
    struct krn_pick c[KRN_TOP];
    float e[KRN_TOP];
};

ON_DEVICE static inline double krn_few_sum(const struct krn_few *f)
{
    double total = 0;
    for (int32_t i = 0; i < f->n; i++) total += (double)f->e[i];
    return total;
}

/* Of equals the one that stands first. */
ON_DEVICE static inline bool krn_few_nearer(const struct krn_few *f, float mean, int32_t a, int32_t b)
{
    float da = fabsf(f->c[a].z - mean), db = fabsf(f->c[b].z - mean);
    return da < db || (da == db && a < b);
}

/* The most typical, those whose z is nearest to the mean, until they hold typical_p. */
ON_DEVICE static inline void krn_few_typical(struct krn_few *f, float typical_p)
{
    int8_t order[KRN_TOP];
    bool keep[KRN_TOP] = {false};
    double total = krn_few_sum(f), sum = 0, want = (double)typical_p * total;
    for (int32_t i = 0; i < f->n; i++) sum += (double)f->e[i] * (double)f->c[i].z;
    float mean = (float)(sum / total);
    for (int32_t i = 0; i < f->n; i++) {
        int32_t at = i;
        for (; at > 0 && krn_few_nearer(f, mean, i, order[at - 1]); at--) order[at] = order[at - 1];
        order[at] = (int8_t)i;
    }
    sum = 0;
    for (int32_t i = 0; i < f->n && (i == 0 || !(sum >= want)); i++) {
        sum += (double)f->e[order[i]];
        keep[order[i]] = true;
    }
    int32_t n = 0;
    for (int32_t i = 0; i < f->n; i++) {
        f->c[n] = f->c[i], f->e[n] = f->e[i];
        n += keep[i];
    }
    f->n = n;
}

/* Of those whose probability reaches the threshold only the last stays. */
ON_DEVICE static inline void krn_few_exclude_top(struct krn_few *f, float threshold)
{
    double want = (double)threshold * krn_few_sum(f);
    int32_t above = 0, last = 0;
    for (int32_t i = 0; i < f->n; i++) {
        if ((double)f->e[i] < want) continue;
        above++;
        last = i;
    }
    if (above < 2) return;
    f->n -= last;
    for (int32_t i = 0; i < f->n; i++) f->c[i] = f->c[last + i], f->e[i] = f->e[last + i];
}

ON_DEVICE static inline void krn_few_narrow(struct krn_few *f, const struct krn_noise *how)
{
    float least = how->least;
    bool typical = how->typical_p < 1 && f->n > 0;
    if (typical) {
        krn_few_typical(f, how->typical_p);
        least += f->c[0].z; /* the best may be gone */
    }
    if (how->top_p < 1) {
        double sum = 0, want = (double)how->top_p * krn_few_sum(f);
        int32_t n = 0;
        while (n < f->n && (n == 0 || !(sum >= want))) sum += (double)f->e[n++];
        f->n = n;
    }
    while (f->n > 1 && f->c[f->n - 1].z < least) f->n--;
    if (how->xtc) krn_few_exclude_top(f, how->xtc_threshold);
}

#endif
