/* tokenizer.h: text to token ids and back, by the model's own data.
 *
 * Kinds: byte-level BPE ("gpt2" in GGUF; the pre-tokenizer rule named by tokenizer.ggml.pre), SentencePiece ("llama" in GGUF), BPE over
 * characters (tokenizer.json of Llama 2 and its like), Unigram, WordPiece and WordLevel (tokenizer.json). Immutable after open. Thr: any.
 * Not here: chat templates (template.h), incremental output (detok.h), reading files (hf_tokenizer.h: what the files
 * of a Hugging Face checkpoint say). */
#ifndef ENGINE_TEXT_TOKENIZER_H
#define ENGINE_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* GGUF's token types. */
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6 };

struct text_span { const char *p; size_t n; };

/* What a tokenizer is made from; every pointer is borrowed during open only. */
struct eng_vocab_src {
    const char *model;              /* "gpt2" | "llama"; with rules also "bpe": merges over characters, bytes for the others; "unigram": by log_probs; "wordpiece", "wordlevel": words; "llama" may have them too */
    const char *pre;                /* pre-tokenizer name ("llama-bpe", "qwen2", ...) or NULL for the default */
    int32_t n_tokens;
    const struct text_span *tokens; /* [n_tokens] */
    const float *scores;            /* [n_tokens] or NULL */
    const int32_t *types;           /* [n_tokens] enum token_type, or NULL: all normal */
    int64_t n_merges;
    const struct text_span *merges; /* "left right" (gpt2) */
    int32_t bos, eos, eot, unk;     /* -1: none. eot: a second end-of-generation token (<|eot_id|>, <|im_end|>) */
    bool add_bos, add_eos, add_space_prefix;
    const int32_t *eog;             /* [n_eog] further ids that end a generation */
    int32_t n_eog;
    const int32_t *behind_bos, *before_eos; /* [n_] further tokens put between BOS and a text, and between it and EOS, where those are */
    int32_t n_behind_bos, n_before_eos;
    const struct text_span *merge_rights; /* [n_merges]: `merges` are then the left texts alone; NULL: both in one */
    const double *log_probs;              /* [n_log_probs] of the first tokens, which are Unigram's pieces */
    int32_t n_log_probs;
    const struct eng_text_rules *rules;   /* what a Hugging Face tokenizer does before merging (rules.h); NULL: by model and pre */
};

struct eng_tokenizer;

/* Err BAD_FILE (inconsistent vocabulary, the sentence says what), UNSUPPORTED (unknown model or pre, with the
 * list of known ones). */
MUST_USE enum err eng_tokenizer_open(struct eng_tokenizer **out, const struct eng_vocab_src *src);
void eng_tokenizer_close(struct eng_tokenizer *t);

struct eng_tokens { int32_t *ids; size_t n, cap; }; /* zeroed = empty */
void eng_tokens_free(struct eng_tokens *t);
void eng_tokens_push(struct eng_tokens *t, int32_t id);

enum {
    TOKENIZE_ADD_SPECIAL = 1,   /* BOS and EOS, and what stands with them, as the model says */
    TOKENIZE_PARSE_SPECIAL = 2, /* "<|im_start|>" in the text becomes its control token (templates); else plain text */
};
/* Append the ids of text[n] (any bytes; invalid UTF-8 is encoded through byte tokens). Linear or n log n in n:
 * a megabyte of one repeated letter is no attack. User-defined tokens are found in the text whatever the flags;
 * control tokens only with PARSE_SPECIAL. No Unicode normalization unless the model's rules ask for it. */
void eng_tokenizer_encode(const struct eng_tokenizer *t, const char *text, size_t n, unsigned flags,
                          struct eng_tokens *out);

/* Append the bytes of one token as they stand in the middle of a text: where tokens are words, with the space between. Control tokens
 * give their text, and no space, only when `special`. Ids outside the vocabulary give nothing. */
void eng_tokenizer_piece(const struct eng_tokenizer *t, int32_t id, bool special, struct buf *out);
/* Append the text of ids[n]: the pieces, less a space that is not between two of them (eng_tokenizer_drops_space, _space_behind). */
void eng_tokenizer_decode(const struct eng_tokenizer *t, const int32_t *ids, size_t n, bool special, struct buf *out);

int32_t eng_tokenizer_size(const struct eng_tokenizer *t);
enum token_type eng_tokenizer_type(const struct eng_tokenizer *t, int32_t id);
/* Does generation end at this id (EOS, EOT and the customary end-of-turn control tokens)? */
bool eng_tokenizer_is_eog(const struct eng_tokenizer *t, int32_t id);
/* Is a token of this text one that ends a generation whatever its file says? */
bool eng_tokenizer_known_end(struct text_span text);
/* All end-of-generation ids; returns how many (<= max). */
int32_t eng_tokenizer_eog(const struct eng_tokenizer *t, int32_t ids[], int32_t max);
int32_t eng_tokenizer_bos(const struct eng_tokenizer *t); /* -1: none */
int32_t eng_tokenizer_eos(const struct eng_tokenizer *t);
/* SentencePiece models that put a dummy space before a text (its decoding drops it again). */
bool eng_tokenizer_space_prefix(const struct eng_tokenizer *t);
/* Does the first piece of a text lose a leading space? The dummy one, or that before every word of vocabularies of words. */
bool eng_tokenizer_drops_space(const struct eng_tokenizer *t);
/* Does this token's piece end with a space that it loses as the last one of a text? */
bool eng_tokenizer_space_behind(const struct eng_tokenizer *t, int32_t id);
/* The token whose stored text is exactly s (control tokens too); -1 if none. */
int32_t eng_tokenizer_find(const struct eng_tokenizer *t, const char *s);
const char *eng_tokenizer_kind(const struct eng_tokenizer *t); /* "byte-level BPE (qwen2)" for people */

#endif
