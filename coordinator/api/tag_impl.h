/* tag_impl.h: what structural_tag.c, tag_marks.c and tag_dispatch.c share: a structural tag on its way to parts of a grammar. Private.
 *
 * A format is translated together with what ends it: the ends of the tag around it, a list of marks. Where a format has free text in last
 * place, the first of the ends ends that text; elsewhere they follow. A mark is a text, a token ({"token": ...}), or a list of them.
 * Own   *out is the caller's, written only on success.
 * Err   BAD_REQUEST, UNSUPPORTED, with the path of what is wrong. */
#ifndef COORDINATOR_API_TAG_IMPL_H
#define COORDINATOR_API_TAG_IMPL_H

#include "coordinator/api/structural_tag.h"

#include <stdbool.h>

struct crd_tag {
    const struct eng_tokenizer *t;
    char path[512];
    int depth;
    bool older; /* the older form: other names in paths */
};

/* ---- tag_marks.c: paths, marks, tokens ---- */
/* Go down; returns the length to go back up to. */
size_t crd_tag_down(struct crd_tag *x, const char *fmt, ...) PRINTF(2, 3);
void crd_tag_up(struct crd_tag *x, size_t n);
MUST_USE enum err crd_tag_refuse(const struct crd_tag *x, const char *key, const char *what);
/* Keys that would change what is meant, if they were ignored. */
MUST_USE enum err crd_tag_refuse_others(const struct crd_tag *x, const json_t *f, const char *const keys[]);
/* {key: value}. Takes value. */
json_t *crd_tag_part(const char *key, json_t *value);
/* A text as a mark: its control tokens apart; the same as a part to be written. */
json_t *crd_tag_mark(const struct crd_tag *x, const char *text);
json_t *crd_tag_literal(const struct crd_tag *x, const char *text);
/* A token by its id or its text. */
MUST_USE enum err crd_tag_token(const struct crd_tag *x, const char *key, const json_t *j, json_t **out);
/* "end" or "begin": a string, a token, or (ends) a list of strings; *out: a list of marks, those that are empty left out. */
MUST_USE enum err crd_tag_marks(const struct crd_tag *x, const json_t *f, const char *key, json_t **out);
/* A list of texts, or of tokens. */
MUST_USE enum err crd_tag_list(const struct crd_tag *x, const json_t *f, const char *key, bool tokens, json_t **out);
/* p, then one of the ends. Takes p. */
json_t *crd_tag_then_end(json_t *p, const json_t *ends);
/* A format that is a member of another. */
MUST_USE enum err crd_tag_member(struct crd_tag *x, const json_t *f, const char *key, const json_t *ends, json_t **out);

/* ---- tag_dispatch.c: tags, and what leads to them in free text ---- */
/* begin, content, end. skip: letters of begin that have been written already. */
MUST_USE enum err crd_tag_one(struct crd_tag *x, const json_t *f, size_t skip, json_t **out);
/* Free text with what its marks dispatch to: a part, ended by the ends. Takes on. */
MUST_USE enum err crd_tag_dispatching(struct crd_tag *x, const json_t *f, json_t *on, bool tokens, bool once, const json_t *ends, json_t **out);
MUST_USE enum err crd_tag_triggered(struct crd_tag *x, const json_t *f, bool tokens, const json_t *ends, json_t **out);
MUST_USE enum err crd_tag_dispatch(struct crd_tag *x, const json_t *f, bool tokens, const json_t *ends, json_t **out);
MUST_USE enum err crd_tag_separated(struct crd_tag *x, const json_t *f, const json_t *ends, json_t **out);

/* ---- structural_tag.c ---- */
MUST_USE enum err crd_tag_format(struct crd_tag *x, const json_t *f, const json_t *ends, json_t **out);

#endif
