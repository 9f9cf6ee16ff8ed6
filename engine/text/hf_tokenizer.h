/* hf_tokenizer.h: tokenizers as Hugging Face checkpoints hold them: the contents of their files in,
 * a tokenizer out.
 *
 * tokenizer.json first (BPE over bytes or characters, Unigram, WordPiece or WordLevel, with the normaliser, splits,
 * added tokens and decoder it names), then tokenizer.model (SentencePiece of type BPE or unigram), then vocab.json with
 * merges.txt (by the class that tokenizer_config.json names). What else occurs is refused by name. Nothing here reads
 * files. */
#ifndef ENGINE_TEXT_HF_TOKENIZER_H
#define ENGINE_TEXT_HF_TOKENIZER_H

#include "engine/text/tokenizer.h"

/* The files' bytes; p == NULL: there is no such file. Borrowed during the call. */
struct eng_hf_files {
    const char *where; /* the directory, for sentences */
    struct text_span tokenizer_json, tokenizer_config, special_tokens_map, added_tokens;
    struct text_span vocab, merges; /* vocab.json, merges.txt */
    struct text_span model;         /* tokenizer.model */
    struct text_span chat_template; /* chat_template.jinja */
    const char *model_type;         /* of config.json, or NULL */
    int32_t bos;                    /* of config.json; -1: none */
    const int32_t *eos;             /* of generation_config.json and config.json */
    int32_t n_eos;
    int64_t n_rows; /* of the model's embedding; 0: not known. Added tokens beyond are left out */
};

/* Err BAD_FILE (a file that is not what it should be: file and key named; no tokenizer at all),
 * UNSUPPORTED (a kind or a step that is not known here, named). */
MUST_USE enum err eng_hf_tokenizer_open(struct eng_tokenizer **out, const struct eng_hf_files *f);

/* The same vocabulary and rules as data, to make something else of: `take` may use them until it returns, and its error is
 * the call's. */
MUST_USE enum err eng_hf_tokenizer_source(const struct eng_hf_files *f, enum err (*take)(void *user, const struct eng_vocab_src *src), void *user);

/* The chat template: chat_template.jinja, else tokenizer_config.json's (of several the one named
 * "default", else the first); NULL when there is none. Own: caller, free(). Err BAD_FILE. */
MUST_USE enum err eng_hf_template(char **out, const struct eng_hf_files *f);

#endif
