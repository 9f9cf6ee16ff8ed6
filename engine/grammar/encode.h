/* encode.h: sets of texts as bytes of a draft: UTF-8 as it stands, or inside a JSON string with its
 * escapes.
 *
 * In JSON a character that must be escaped has its short escape or \u00XX. Sets that reach beyond
 * ASCII also take every character's \uXXXX form (surrogate pairs above U+FFFF, never half of one);
 * sets within ASCII are written plainly. Private to engine/grammar. */
#ifndef ENGINE_GRAMMAR_ENCODE_H
#define ENGINE_GRAMMAR_ENCODE_H

#include "engine/grammar/charset.h"
#include "engine/grammar/dfa.h"
#include "engine/grammar/map64.h"
#include "engine/grammar/program.h"

/* Rules already made for sets of this compilation. */
struct encoder {
    struct draft *d;
    struct arena *a;
    struct map64 by_dfa; /* pointer and form -> rule */
    struct map64 by_set; /* hash of ranges and form -> index into sets */
    struct encoded_set {
        struct charset set;
        bool json;
        int32_t rule;
    } * sets;
    int32_t n_sets, cap_sets;
};
void eng_encoder_open(struct encoder *e, struct draft *d, struct arena *a);
void eng_encoder_close(struct encoder *e);

/* One character of a tidy set, from one state to another. */
void eng_encode_char(struct encoder *e, int32_t from, const struct charset *set, bool json,
                     int32_t to);
/* The rule for one text of the set; json: as a string with its quotes. */
int32_t eng_encode_dfa(struct encoder *e, const struct dfa *s, bool json);
/* One given text (UTF-8) as a JSON string with quotes, every character in its shortest form. */
void eng_encode_literal(struct draft *d, int32_t from, const char *p, size_t n, int32_t to);

#endif
