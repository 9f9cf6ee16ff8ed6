/* free_text.h: text that is free until certain marks appear in it. Private to engine/grammar.
 *
 * A mark is a sequence of characters and control tokens. Free text has no control tokens but those of whole marks. Where
 * a mark ends, for the first time since the text began or something else was dispatched, what belongs to it follows:
 * nothing may (the text had better not have it), the free text ends, or something is entered behind which the text is
 * free again. One automaton for all marks (Aho and Corasick, "Efficient string matching", 1975), over symbols. */
#ifndef ENGINE_GRAMMAR_FREE_TEXT_H
#define ENGINE_GRAMMAR_FREE_TEXT_H

#include "engine/grammar/encode.h"

enum { FREE_MOST_SYMBOLS = 2048, FREE_TOKEN = 0x200000 };

/* What stands behind a mark: from `state` on; FREE_NEVER: the mark may not stand there. */
enum { FREE_NEVER = -1 };
struct free_mark {
    int32_t first, n; /* symbols: a code point, or FREE_TOKEN + an index into tokens */
    int32_t state;
};
struct free_text {
    int32_t *symbols, n_symbols; /* of all marks; the arena's */
    const char **tokens;         /* the letters of control tokens; distinct */
    int32_t n_tokens;
    struct free_mark *marks;
    int32_t n_marks;
};

/* Add a piece of the newest mark: characters (UTF-8; false: they are none, or too many), or a control token. */
bool eng_free_text(struct free_text *t, struct arena *a, const char *p, size_t n);
bool eng_free_token(struct free_text *t, struct arena *a, const char *letters);
/* Begin a mark behind which `state` stands. */
void eng_free_mark(struct free_text *t, struct arena *a, int32_t state);

/* The state of the text before anything has been read. may_end: -1, or where to go when the text ends without a
 * mark. */
int32_t eng_free_emit(struct encoder *e, const struct free_text *t, int32_t may_end);
/* One symbol of a mark, from a state of the draft to another. */
void eng_free_symbol(struct encoder *e, const struct free_text *t, int32_t from, int32_t symbol, int32_t to);
/* The letters of a control token as bytes of a draft. */
void eng_free_control(struct draft *d, int32_t from, const char *letters, int32_t to);

#endif
