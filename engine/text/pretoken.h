/* pretoken.h: cuts a text into the pieces inside which merges may happen, by the rule the model was
 * trained with.
 *
 * A rule is a few regular expressions applied one after the other, each cutting the pieces the last
 * one left into its matches and what lies between them. Private to engine/text. Immutable after
 * open. Thr: any. */
#ifndef ENGINE_TEXT_PRETOKEN_H
#define ENGINE_TEXT_PRETOKEN_H

#include "engine/text/rules.h"

enum { PRETOKEN_STAGES = 16 };

/* A row of the table of known rules (pretoken_rules.c). */
struct pretoken_rule {
    const char *name;          /* as in tokenizer.ggml.pre */
    bool whole_words;          /* a piece that is a token is not merged: tiktoken's way */
    const char *const *stages; /* NULL-terminated, at most PRETOKEN_STAGES */
};

/* The rule of that name (NULL: the default), or NULL. */
const struct pretoken_rule *pretoken_rule_find(const char *name);
/* All names, comma-separated, appended to *out. */
void pretoken_rule_names(struct buf *out);

struct pretoken;
MUST_USE enum err pretoken_open(struct pretoken **out, const struct pretoken_rule *rule);
/* The same from expressions of a file. Err UNSUPPORTED: too many, or one that PCRE2 does not compile. */
MUST_USE enum err pretoken_open_splits(struct pretoken **out, const struct text_split *splits,
                                       int32_t n);
void pretoken_close(struct pretoken *p);

struct pieces {
    struct text_span *at;
    size_t n, cap;
}; /* zeroed = empty; Own: free(at) */

/* Replace *out by the pieces of text[n]; together they are the text, byte for byte, whatever the
 * bytes (less what a split removes). *tmp is scratch, kept between calls by the caller. */
void pretoken_split(const struct pretoken *p, const char *text, size_t n, struct pieces *out,
                    struct pieces *tmp);

/* Append text[n], valid UTF-8, to *out with each match of the first expression as `to`. */
void pretoken_replace(const struct pretoken *p, const char *text, size_t n, struct text_span to, struct buf *out);

#endif
