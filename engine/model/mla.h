/* mla.h: attention over a latent that all heads share (DeepSeek V2, V3; "MLA"), in the form that never makes keys and values of heads.
 *
 *   c, r = split(Wkv_a h); c = norm(c); r = rope(r)         the cache holds (c, r) of each token, once for all heads
 *   q = Wq h, or Wq_b norm(Wq_a h); of a head: (n, p)
 *   query  = (Wk_b n, rope(p))                               the head's query over (c, r)
 *   a      = attention over the cached (c, r) as one KV head; its values are the c
 *   output = Wo (Wv_b a of every head)
 *
 * Exactness (docs/exactness.md): every rank has Wkv_a and Wq_a and the whole cache; a head's products with Wk_b and Wv_b are on one rank and K is
 * whole; the output's leaves are heads, as always. */
#ifndef ENGINE_MODEL_MLA_H
#define ENGINE_MODEL_MLA_H

#include "engine/model/forward.h"

/* Buffers of the sublayer, in the backend's memory; lifetime: load. Beside them: m->q [max_tok][heads][key], m->k [max_tok][cached],
 * m->att [max_tok][heads][head_dim], m->scratch. */
struct eng_mla {
    float *low;     /* [max_tok][q_rank]: what queries are made from; or NULL */
    float *query;   /* [max_tok][heads][cached] */
    float *seen;    /* [max_tok][heads][kv_rank]: what was attended to */
    float *latent;  /* off the host: [max_tok][kv_rank] */
    int32_t chunk;  /* tokens of a head's product at once */
    /* per thread: a head's inputs of a chunk, and their panels */
    float *x, *xt;
    uint8_t *codes;
    int64_t x_each, xt_each, codes_each;
};

MUST_USE enum err eng_mla_open(struct eng_mla **out, struct eng_model *m);
void eng_mla_close(struct eng_mla *x); /* what is the backend's goes with it */
#endif
