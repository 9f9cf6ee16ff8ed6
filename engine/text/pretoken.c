/* pretoken.c: runs the expressions of a rule.
 *
 * Bytes that are not UTF-8 never reach PCRE2: they become pieces of their own, so the valid text
 * between them can be matched without checks. A match that fails for want of resources (limits, JIT
 * stack) is tried again without JIT; should that fail too, the rest stays one piece: a coarser cut,
 * never a failure. */
#include "engine/text/pretoken.h"
#include "engine/text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

struct pretoken {
    pcre2_code *code[PRETOKEN_STAGES];
    enum text_split_how how[PRETOKEN_STAGES];
    bool invert[PRETOKEN_STAGES];
    int32_t n;
};

static enum err add_stage(struct pretoken *p, const char *regex, const char *name)
{
    int error;
    PCRE2_SIZE at;
    if (p->n == PRETOKEN_STAGES)
        return err_raise(ERR_UNSUPPORTED, "%s: more than %d splits", name, PRETOKEN_STAGES);
    p->code[p->n] = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                  &error, &at, NULL);
    if (!p->code[p->n]) {
        char why[128] = "";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof why);
        return err_raise(ERR_UNSUPPORTED,
                         "this PCRE2 does not compile the rule %s at %zu: %s (10.40 or later "
                         "with Unicode is needed)",
                         name, (size_t)at, why);
    }
    (void)pcre2_jit_compile(p->code[p->n++],
                            PCRE2_JIT_COMPLETE); /* without it matching is only slower */
    return OK;
}

enum err pretoken_open(struct pretoken **out, const struct pretoken_rule *rule)
{
    enum err rc = OK;
    struct pretoken *p = xcalloc(1, sizeof *p);
    for (int32_t i = 0; rule->stages[i]; i++) TRY(add_stage(p, rule->stages[i], rule->name));
    *out = p, p = NULL;
out:
    pretoken_close(p);
    return rc;
}

enum err pretoken_open_splits(struct pretoken **out, const struct text_split *splits, int32_t n)
{
    enum err rc = OK;
    struct pretoken *p = xcalloc(1, sizeof *p);
    for (int32_t i = 0; i < n; i++) {
        TRY(add_stage(p, splits[i].regex, "of tokenizer.json"));
        p->how[i] = splits[i].how;
        p->invert[i] = splits[i].invert;
    }
    *out = p, p = NULL;
out:
    pretoken_close(p);
    return rc;
}

void pretoken_close(struct pretoken *p)
{
    if (!p) return;
    for (int32_t i = 0; i < PRETOKEN_STAGES; i++) pcre2_code_free(p->code[i]);
    free(p);
}

static void add(struct pieces *out, const char *p, size_t n)
{
    if (!n) return;
    if (out->n == out->cap) {
        out->cap = out->cap ? out->cap * 2 : 64;
        out->at = xrealloc(out->at, sizeof *out->at * out->cap);
    }
    out->at[out->n++] = (struct text_span){p, n};
}

/* Valid stretches, and the invalid ones between them. */
static void split_valid(const char *text, size_t n, struct pieces *out)
{
    size_t start = 0;
    bool bad = false;
    for (size_t i = 0, len; i < n; i += len) {
        bool now_bad = utf8_step((const uint8_t *)text + i, n - i, &len) != UTF8_OK;
        if (now_bad != bad) {
            add(out, text + start, i - start);
            start = i, bad = now_bad;
        }
    }
    add(out, text + start, n - start);
}

/* One stage's work on one piece. */
struct cut {
    struct pieces *out;
    enum text_split_how how;
    bool invert;
    size_t first;    /* of this piece in out */
    bool last_match; /* the last thing put was a match */
};

static void put(struct cut *c, const char *p, size_t n, bool match)
{
    if (!n) return;
    match ^= c->invert;
    bool any = c->out->n > c->first, last = c->last_match;
    struct text_span *before = any ? &c->out->at[c->out->n - 1] : NULL;
    c->last_match = match;
    if (c->how == SPLIT_REMOVED && match) return;
    bool joins = any && ((c->how == SPLIT_CONTIGUOUS && match == last) ||
                         (c->how == SPLIT_MERGED_PREVIOUS && match && !last) ||
                         (c->how == SPLIT_MERGED_NEXT && !match && last));
    if (joins)
        before->n += n;
    else
        add(c->out, p, n);
}

/* The next match of s at or behind `done`. */
static bool next_match(const pcre2_code *code, pcre2_match_data *md, struct text_span s, size_t done)
{
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(md);
    int rc = pcre2_match(code, (PCRE2_SPTR)s.p, s.n, done, PCRE2_NO_UTF_CHECK, md, NULL);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        rc = pcre2_match(code, (PCRE2_SPTR)s.p, s.n, done, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, md, NULL);
    return rc >= 0 && ov[1] > ov[0] && ov[0] >= done;
}

static void split_one(const pcre2_code *code, pcre2_match_data *md, struct text_span s,
                      struct cut *c)
{
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(md);
    size_t done = 0;
    c->first = c->out->n;
    c->last_match = false;
    while (done < s.n && next_match(code, md, s, done)) {
        put(c, s.p + done, ov[0] - done, false);
        put(c, s.p + ov[0], ov[1] - ov[0], true);
        done = ov[1];
    }
    put(c, s.p + done, s.n - done, false);
}

void pretoken_replace(const struct pretoken *p, const char *text, size_t n, struct text_span to, struct buf *out)
{
    pcre2_match_data *md = pcre2_match_data_create(1, NULL);
    ASSERT(md && p->n);
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(md);
    size_t done = 0;
    while (done < n && next_match(p->code[0], md, (struct text_span){text, n}, done)) {
        buf_put(out, text + done, ov[0] - done);
        buf_put(out, to.p, to.n);
        done = ov[1];
    }
    buf_put(out, text + done, n - done);
    pcre2_match_data_free(md);
}

void pretoken_split(const struct pretoken *p, const char *text, size_t n, struct pieces *out,
                    struct pieces *tmp)
{
    size_t len;
    pcre2_match_data *md = pcre2_match_data_create(1, NULL);
    ASSERT(md);
    out->n = 0;
    split_valid(text, n, out);
    for (int32_t stage = 0; stage < p->n; stage++) {
        struct pieces in = *out;
        *out = *tmp;
        *tmp = in;
        out->n = 0;
        struct cut c = {.out = out, .how = p->how[stage], .invert = p->invert[stage]};
        for (size_t i = 0; i < tmp->n; i++) {
            struct text_span s = tmp->at[i];
            bool bad = utf8_step((const uint8_t *)s.p, s.n, &len) != UTF8_OK;
            if (bad)
                add(out, s.p, s.n);
            else
                split_one(p->code[stage], md, s, &c);
        }
    }
    pcre2_match_data_free(md);
}
