/* grammar.h: the text a sequence must keep to, as a value that crosses processes: which front end
 * reads it, its source and options. The coordinator compiles it to refuse what cannot be honoured;
 * last-stage ranks compile it again and mask tokens by it. */
#ifndef PROTO_GRAMMAR_H
#define PROTO_GRAMMAR_H

#include <stdint.h>

/* Wire-stable numbers. */
enum grammar_kind {
    GRAMMAR_NONE = 0,
    GRAMMAR_JSON = 1,        /* any JSON value; no source */
    GRAMMAR_JSON_OBJECT = 2, /* any JSON object; no source */
    GRAMMAR_SCHEMA = 3,      /* a JSON Schema, draft 2020-12 */
    GRAMMAR_REGEX = 4,       /* the whole text matches */
    GRAMMAR_CHOICE = 5,      /* one of the strings of a JSON array */
    GRAMMAR_GBNF = 6,        /* rules in GBNF; the text is its "root" */
    GRAMMAR_PARTS = 7,       /* texts, schemas and others put together (engine/grammar/parts.h) */
    GRAMMAR_LAST = GRAMMAR_PARTS
};

enum {
    GRAMMAR_COMPACT = 1, /* JSON without whitespace */
    GRAMMAR_FORMAT_NOTE =
        2, /* the keyword "format" is an annotation, as the specification has it by default */
    GRAMMAR_FLAGS = GRAMMAR_COMPACT | GRAMMAR_FORMAT_NOTE
};

struct grammar_source {
    enum grammar_kind kind;
    uint32_t flags;
    int32_t n;        /* bytes of text, <= LIMIT_GRAMMAR_BYTES */
    const char *text; /* need not end in NUL */
    uint64_t hash;    /* of kind, flags and text (grammar_hash): the name of it in a cache, which
                         compares the text too */
};

uint64_t grammar_hash(const struct grammar_source *g);

#endif
