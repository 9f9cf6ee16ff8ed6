/* bpe.h: byte-pair encoding of one pre-token, over bytes or over characters. Private to
 * engine/text.
 *
 * Texts of byte-level vocabularies write each byte as a printable character (GPT-2's table); the
 * others hold characters as they are, and perhaps "<0xHH>" for what they lack. Immutable after
 * open. */
#ifndef ENGINE_TEXT_BPE_H
#define ENGINE_TEXT_BPE_H

#include "engine/text/heap.h"
#include "engine/text/vocab.h"

struct bpe_merge {
    uint64_t pair;
    int32_t rank, id;
}; /* pair: left << 32 | right; rank -1: an empty slot */

struct bpe {
    const struct vocab *v;   /* not owned */
    int32_t byte_id[256];    /* -1: the vocabulary lacks the byte */
    bool chars;              /* merges over characters */
    bool byte_fallback;      /* chars: an unknown character becomes its bytes' tokens */
    bool fuse_unk;           /* neighbouring unknown characters become one unknown token */
    struct buf inner, final; /* before a symbol that does not begin its word, behind the one that ends it; empty: none */
    struct bpe_merge *merge; /* [mask + 1] open addressing */
    uint32_t mask;
    bool spelt;       /* !chars: bytes as their printable characters first, for marks or an unknown token */
    bool whole_words; /* a pre-token that is a token needs no merges (tiktoken's rule) */
};

/* What one encoding call carries from word to word. Zeroed to start. */
struct bpe_work {
    struct bpe_sym {
        int32_t id, prev, next;
    } * sym;
    size_t cap;
    struct heap heap;
    struct buf word, spelt;
};
void bpe_work_free(struct bpe_work *w);

/* Merges that name absent tokens are left out. Err BAD_FILE: a merge that is not two texts. */
MUST_USE enum err bpe_open(struct bpe *b, const struct vocab *v, const struct eng_vocab_src *src,
                           bool whole_words);
void bpe_close(struct bpe *b);

/* The symbols that merging begins with, into w->sym; returns how many (bpe_symbols.c). */
int32_t bpe_symbols(const struct bpe *b, struct bpe_work *w, const char *p, size_t n);
/* Append the ids of one pre-token (any bytes, n < 2^31). A byte the vocabulary lacks becomes the
 * unknown token, or nothing where there is none. */
void bpe_encode_word(const struct bpe *b, struct bpe_work *w, const char *p, size_t n,
                     struct eng_tokens *out);
/* The printable character that byte-level vocabularies write a byte with. */
uint32_t bpe_char_of_byte(uint8_t b);
/* Append the bytes a token's printable text stands for. */
void bpe_decode_text(struct text_span s, struct buf *out);

#endif
