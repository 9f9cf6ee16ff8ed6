/* sampler_impl.h: what the files of engine/sample share. Private. */
#ifndef ENGINE_SAMPLE_SAMPLER_IMPL_H
#define ENGINE_SAMPLE_SAMPLER_IMPL_H

#include "engine/sample/sampler.h"

struct eng_sampler {
    const struct krn_table *krn;
    int32_t n_vocab;
    struct krn_pick *cands, *spare; /* [n_vocab]; spare: of the sort */
    float *raw;             /* [n_vocab] the logits as they came, when logprobs are wanted */
    int32_t *seen, *made;   /* [n_vocab] counts, zero between calls */
    struct eng_token_texts texts;
    int32_t *runs, cap_runs; /* dry.c's */
};

/* cut.c */

/* All of x[n] with x >= least, best first; returns how many. */
int32_t eng_cut_gather(struct eng_sampler *s, const float *x, int32_t n, float least);
/* The k best of x[n], best first (fewer when there are fewer). max: no less than the largest. */
int32_t eng_cut_best(struct eng_sampler *s, const float *x, int32_t n, float max, int32_t k);
/* Does nothing but min_p bar candidates? Then those of z >= least are all, and the draw needs no list of them. */
bool eng_cut_open(const struct sampling *p, int64_t position);
/* All of *how but t and key. */
void eng_cut_how(const struct sampling *p, int64_t position, struct krn_noise *how);
/* What top_k, typical_p, top_p, min_p and XTC leave of z, whose largest is 0, into s->cands; returns how many. */
int32_t eng_cut(struct eng_sampler *s, const float *z, const struct sampling *p, int64_t position);

/* The same of a row whose top_k, KRN_TOP at most, or more of its best, are s->cands[0..n), in any order. */
int32_t eng_cut_among(struct eng_sampler *s, int32_t n, const struct krn_noise *how);

/* dry.c: lower what would repeat what was said. */
void eng_dry_apply(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h);

/* gumbel() for its largest and smallest v (1 - 2^-24 and 2^-33), rounded outwards. */
#define GUMBEL_MIN (-2.82f)
#define GUMBEL_MAX 22.88f

#endif
