/* hf_build.h: a tokenizer under construction from a checkpoint's files; shared by hf_*.c and
 * sp_model.c. Private to engine/text. */
#ifndef ENGINE_TEXT_HF_BUILD_H
#define ENGINE_TEXT_HF_BUILD_H

#include "base/arena.h"
#include "engine/text/hf_tokenizer.h"
#include "engine/text/rules.h"

#include <jansson.h>

struct hf_build {
    const struct eng_hf_files *files;
    struct arena a;        /* arrays and made texts, until open is done */
    json_t *json, *config; /* tokenizer.json or vocab.json; tokenizer_config.json, or NULL */
    struct eng_vocab_src src;
    struct eng_text_rules rules;
    int32_t room;   /* ids must be below */
    int32_t n, cap; /* of the arrays: Own */
    struct text_span *tokens;
    int32_t *types;
    float *scores;
    struct text_step *steps;
    struct text_split *splits;
    struct text_added *added;
};

/* ---- hf_vocab.c ---- */
/* Room for n entries more (and some holes between their ids). Err BAD_FILE: too many. */
MUST_USE enum err hf_vocab_room(struct hf_build *b, size_t n, const char *what);
/* Token `id` is text s (borrowed); an id given again takes the new text. Err BAD_FILE. */
MUST_USE enum err hf_vocab_put(struct hf_build *b, int64_t id, struct text_span s,
                               enum token_type type, const char *what);
/* The lowest id with this text, or -1. Linear. */
int32_t hf_vocab_id(const struct hf_build *b, const char *text);
/* {"token": id, ...} */
MUST_USE enum err hf_vocab_json(struct hf_build *b, const json_t *vocab, const char *what);
/* [[piece, log probability], ...] and the unknown one's "unk_id", of a Unigram model. */
MUST_USE enum err hf_vocab_unigram(struct hf_build *b, const json_t *model);
/* ["left right", ...] or [["left", "right"], ...] */
MUST_USE enum err hf_merges_json(struct hf_build *b, const json_t *merges);
void hf_merges_text(struct hf_build *b, struct text_span text);
/* An added token as tokenizer.json's "added_tokens" and tokenizer_config.json's
 * "added_tokens_decoder" describe it. */
MUST_USE enum err hf_vocab_added(struct hf_build *b, int64_t id, const json_t *token,
                                 const char *what);

/* Leave out added tokens that the model has no row for. Err BAD_FILE: another token has none. */
MUST_USE enum err hf_vocab_limit(struct hf_build *b, int64_t n_rows);

/* ---- hf_rules.c ---- */
/* "normalizer", "pre_tokenizer", "decoder" and "model" switches into rules and src. Err UNSUPPORTED
 * naming the step. */
MUST_USE enum err hf_rules_read(struct hf_build *b, const json_t *tokenizer);
MUST_USE enum err hf_rules_split(struct hf_build *b, const char *regex, enum text_split_how how,
                                 bool invert);
MUST_USE enum err hf_rules_step(struct hf_build *b, struct text_step step);

/* A step's type, a switch of it, and its refusal by name. */
const char *hf_type(const json_t *o);
bool hf_flag(const json_t *o, const char *key, bool def);
enum err hf_unknown(const struct hf_build *b, const char *what, const json_t *o);
/* Its parts, in order (`list` of a Sequence), each by `read`. */
MUST_USE enum err hf_each(struct hf_build *b, const json_t *list, int depth, enum err (*read)(struct hf_build *b, const json_t *o, int depth));

/* ---- hf_normalizer.c, hf_decoder.c ---- */
MUST_USE enum err hf_normalizer_read(struct hf_build *b, const json_t *o, int depth);
/* Behind the model and the pre-tokenizers. */
MUST_USE enum err hf_decoder_read(struct hf_build *b, const json_t *o);

/* ---- hf_regex.c ---- */
/* An expression in Oniguruma's syntax, in which Hugging Face's tokenizers write them, as PCRE2's
 * (Own: the arena). Err UNSUPPORTED. */
MUST_USE enum err hf_regex_translate(struct arena *a, const char *regex, const char **out);
/* An expression that matches this text alone. */
const char *hf_regex_literal(struct arena *a, const char *text);

/* ---- hf_special.c ---- */
/* BOS, EOS, unknown token, and whether they are added: "post_processor" (tokenizer may be NULL) and
 * tokenizer_config.json. */
MUST_USE enum err hf_special_read(struct hf_build *b, const json_t *tokenizer);
/* Added tokens of tokenizer_config.json and added_tokens.json. */
MUST_USE enum err hf_special_added(struct hf_build *b);
MUST_USE enum err hf_json_parse(json_t **out, struct text_span text, const struct eng_hf_files *f,
                                const char *name);

/* ---- sp_model.c ---- */
/* tokenizer.model: vocabulary, types, scores and switches; rules where texts change before pieces are looked for. */
MUST_USE enum err sp_model_read(struct hf_build *b);
/* With rules: control tokens, and of models that merge user-defined ones, are added tokens too. Behind those that other files describe. */
void sp_model_cut(struct hf_build *b);

#endif
