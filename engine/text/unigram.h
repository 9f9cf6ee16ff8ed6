/* unigram.h: the likeliest way to write a word as pieces, by a score for each (Kudo 2018, as Hugging Face's tokenizers compute
 * it: sums in double, from the left, the earlier way on ties). Private to engine/text. Immutable after open. Thr: any.
 *
 * What no piece writes is unknown, and neighbours of that kind are one: a piece that is just that, or its bytes' tokens if the
 * vocabulary has them all, or the unknown token.
 *
 * SentencePiece's own way (rules->sentencepiece) differs: sums are rounded to single precision; names of bytes and unknown tokens are no
 * pieces, and what is unknown is never looked up; user-defined ones are taken wherever they stand. */
#ifndef ENGINE_TEXT_UNIGRAM_H
#define ENGINE_TEXT_UNIGRAM_H

#include "engine/text/vocab.h"

struct unigram {
    const struct vocab *v; /* not owned */
    struct trie pieces;
    double *score;         /* [n] of the first n tokens of v: those are the pieces */
    int32_t n;
    double unknown;        /* the score of a character that is none */
    bool sentencepiece;
    float most;            /* SentencePiece: the highest score of a plain piece */
    int32_t byte_id[256];  /* -1: no fallback */
};

/* What one encoding call carries from word to word. Zeroed to start. */
struct unigram_work {
    struct unigram_node {
        double score;     /* of the best way to here */
        int32_t from, id; /* its last piece, and where that begins (-1: no way yet); then where the next one ends */
    } *at;
    size_t cap;
};
void unigram_work_free(struct unigram_work *w);

/* Err BAD_FILE: a piece is there twice or is longer than the trie takes; no unknown token. On failure *u is closed. */
MUST_USE enum err unigram_open(struct unigram *u, const struct vocab *v, const struct eng_vocab_src *src);
void unigram_close(struct unigram *u);

/* Append the ids of one word (any bytes). Of 4 MiB and more without a split, each 4 MiB are a word. */
void unigram_encode_word(const struct unigram *u, struct unigram_work *w, const char *p, size_t n, struct eng_tokens *out);

#endif
