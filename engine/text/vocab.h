/* vocab.h: the tokens of a model as data: texts, types, scores, and text -> id. Private to
 * engine/text.
 *
 * Also finds special tokens inside a text (a trie, longest match first) and knows which ids end a
 * generation. Immutable after open. Not here: how plain text becomes tokens (bpe.c, spm.c). */
#ifndef ENGINE_TEXT_VOCAB_H
#define ENGINE_TEXT_VOCAB_H

#include "engine/text/tokenizer.h"
#include "engine/text/trie.h"

struct vocab {
    int32_t n;
    char *text;     /* all texts, one after the other */
    uint32_t *off;  /* [n + 1] */
    uint8_t *type;  /* [n] enum token_type */
    float *score;   /* [n]; zeros when the model has none */
    size_t max_len; /* bytes of the longest token */
    uint32_t *slot; /* [mask + 1] id + 1, open addressing over the text's hash */
    uint32_t mask;
    /* special tokens */
    struct trie trie;
    /* ends of generation, ascending */
    int32_t *eog, n_eog;
    int32_t bos, eos, eot, unk;
};

/* Err BAD_FILE with the sentence. On failure *v is closed. `spm`: texts use U+2581 for a space. */
MUST_USE enum err vocab_open(struct vocab *v, const struct eng_vocab_src *src, bool spm);
void vocab_close(struct vocab *v);

static inline struct text_span vocab_text(const struct vocab *v, int32_t id)
{
    return (struct text_span){v->text + v->off[id], v->off[id + 1] - v->off[id]};
}

/* The lowest id with exactly this text, or -1. */
int32_t vocab_find(const struct vocab *v, const char *p, size_t n);
/* The same for what plain text may become: never a control, unknown, byte or unused token. */
int32_t vocab_find_plain(const struct vocab *v, const char *p, size_t n);

/* Build the trie and the list of ends (part of vocab_open). */
void vocab_special_open(struct vocab *v, const struct eng_vocab_src *src, bool spm);
/* Which special token begins exactly at p[0..n)? The longest; user-defined ones always, control and
 * unknown ones only when `control`. Returns -1, or the id and its length in the text. */
int32_t vocab_special_at(const struct vocab *v, const char *p, size_t n, bool control, size_t *len);

#endif
