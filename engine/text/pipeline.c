/* pipeline.c: see pipeline.h.
 *
 * Bytes that are not UTF-8 pass through every step unchanged and end as words of their own. */
#include "engine/text/pipeline.h"

#include "base/arena.h"
#include "engine/text/normalize.h"
#include "engine/text/pretoken.h"
#include "engine/text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct pipeline {
    const struct vocab *v; /* not owned */
    struct arena a;
    struct normalizer *normalizer;
    enum text_meta meta;
    struct text_span meta_text;
    bool prefix_space;
    struct text_added *added;
    struct text_span *shown; /* [n_added] texts of those that are normalised */
    int32_t n_added;
    struct trie raw, normal; /* value: index into added */
    struct pretoken *before, *pre; /* before: splits ahead of the spaces' step, or NULL */
};

/* ---- added tokens ---- */

static struct text_span span_copy(struct arena *a, struct text_span s)
{
    return (struct text_span){arena_strndup(a, s.n ? s.p : "", s.n), s.n};
}

static void copy_added(struct pipeline *p, const struct eng_text_rules *r)
{
    struct buf text = {0};
    p->added = arena_alloc(&p->a, (size_t)(r->n_added + 1) * sizeof *p->added);
    p->shown = arena_alloc(&p->a, (size_t)(r->n_added + 1) * sizeof *p->shown);
    p->n_added = r->n_added;
    for (int32_t i = 0; i < r->n_added; i++) {
        p->added[i] = r->added[i];
        struct text_span s = vocab_text(p->v, r->added[i].id);
        if (!r->added[i].normalized) {
            trie_add(&p->raw, s.p, s.n, i);
            continue;
        }
        normalizer_run(p->normalizer, s.p, s.n, &text);
        trie_add(&p->normal, (const char *)text.data, text.len, i);
        p->shown[i] = span_copy(&p->a, (struct text_span){buf_str(&text), text.len});
    }
    buf_free(&text);
}

bool pipeline_token_text(const struct pipeline *p, int32_t id, struct text_span *out)
{
    for (int32_t i = 0; i < p->n_added; i++)
        if (p->added[i].id == id && p->shown[i].n) {
            *out = p->shown[i];
            return true;
        }
    return false;
}

enum err pipeline_open(struct pipeline **out, const struct eng_text_rules *r, const struct vocab *v)
{
    enum err rc;
    struct pipeline *p = xcalloc(1, sizeof *p);
    p->v = v;
    p->meta = r->meta;
    p->meta_text = span_copy(&p->a, r->meta_text);
    p->prefix_space = r->prefix_space;
    TRY(normalizer_open(&p->normalizer, r->steps, r->n_steps, v));
    if (r->n_before) TRY(pretoken_open_splits(&p->before, r->splits, r->n_before));
    TRY(pretoken_open_splits(&p->pre, r->n_before ? r->splits + r->n_before : r->splits, r->n_splits - r->n_before));
    copy_added(p, r);
    *out = p, p = NULL;
out:
    pipeline_close(p);
    return rc;
}

void pipeline_close(struct pipeline *p)
{
    if (!p) return;
    normalizer_close(p->normalizer);
    pretoken_close(p->before);
    pretoken_close(p->pre);
    trie_free(&p->raw);
    trie_free(&p->normal);
    arena_free(&p->a);
    free(p);
}

/* White_Space of Unicode. */
static bool is_space(uint32_t c)
{
    return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static bool is_word(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC ||
           c == 0x200C || c == 0x200D;
}

/* The character that ends at text[at], and where it begins; 0 when none does. */
static uint32_t char_before(const char *text, size_t at, size_t *begin)
{
    size_t i = at, len;
    while (i && at - i < 4 && ((uint8_t)text[i - 1] & 0xC0) == 0x80) i--;
    if (!i) return 0;
    i--;
    *begin = i;
    if (utf8_step((const uint8_t *)text + i, at - i, &len) != UTF8_OK || i + len != at) return 0;
    return utf8_cp((const uint8_t *)text + i, len);
}

static uint32_t char_after(const char *text, size_t n, size_t at, size_t *end)
{
    size_t len;
    if (at >= n || utf8_step((const uint8_t *)text + at, n - at, &len) != UTF8_OK) return 0;
    *end = at + len;
    return utf8_cp((const uint8_t *)text + at, len);
}

static bool stands_alone(const char *text, size_t n, size_t start, size_t stop)
{
    size_t x;
    uint32_t before = char_before(text, start, &x), after = char_after(text, n, stop, &x);
    return !(before && is_word(before)) && !(after && is_word(after));
}

/* ---- the run ---- */

struct run {
    const struct pipeline *p;
    const struct pipeline_sink *sink;
    bool control;
    struct buf normal, spaced;
    struct pieces outer, pieces, tmp;
};

typedef void plain_fn(struct run *r, const char *p, size_t n, bool first);

/* Cut the trie's tokens out of text; what lies between goes to `plain`. As Hugging Face's
 * tokenizers: leftmost, longest; a match that is not wanted is passed over whole. */
static void cut(struct run *r, const struct trie *t, const char *text, size_t n, bool first,
                plain_fn *plain)
{
    size_t done = 0, len = 0, x;
    for (size_t at = 0; at < n;) {
        int32_t i = trie_longest(t, text + at, n - at, &len);
        if (i < 0) {
            at++;
            continue;
        }
        const struct text_added *a = &r->p->added[i];
        size_t start = at, stop = at + len;
        at = stop;
        if (!r->control && r->p->v->type[a->id] != TOKEN_USER) continue;
        if (start < done || (a->single_word && !stands_alone(text, n, start, stop))) continue;
        for (uint32_t c; a->lstrip && start > done && (c = char_before(text, start, &x));) {
            if (!is_space(c) || x < done) break;
            start = x;
        }
        for (uint32_t c; a->rstrip && (c = char_after(text, n, stop, &x)) && is_space(c);) stop = x;
        if (start > done) plain(r, text + done, start - done, first && !done);
        r->sink->token(r->sink->ctx, a->id);
        done = stop;
        at = MAX(at, stop);
    }
    if (n > done) plain(r, text + done, n - done, first && !done);
}

/* One piece: spaces are written, the (other) splits applied. */
static void piece_words(struct run *r, const char *text, size_t n, bool first)
{
    const struct pipeline *p = r->p;
    struct text_span m = p->meta_text;
    if (p->meta) {
        buf_clear(&r->spaced);
        bool has = *text == ' ' || (n >= m.n && !memcmp(text, m.p, m.n));
        bool wants = p->meta == META_ALWAYS || (p->meta == META_FIRST && first);
        if (wants && !has) buf_put(&r->spaced, m.p, m.n);
        normalizer_replace(text, n, (struct text_span){" ", 1}, m, &r->spaced);
    } else if (p->prefix_space && *text != ' ') {
        buf_clear(&r->spaced);
        buf_putc(&r->spaced, ' ');
        buf_put(&r->spaced, text, n);
    }
    bool made = p->meta || (p->prefix_space && *text != ' ');
    if (made) text = (const char *)r->spaced.data, n = r->spaced.len;
    pretoken_split(p->pre, text, n, &r->pieces, &r->tmp);
    for (size_t i = 0; i < r->pieces.n; i++)
        r->sink->word(r->sink->ctx, r->pieces.at[i].p, r->pieces.at[i].n);
}

static void words(struct run *r, const char *text, size_t n, bool first)
{
    size_t len;
    if (!r->p->before) {
        piece_words(r, text, n, first);
        return;
    }
    pretoken_split(r->p->before, text, n, &r->outer, &r->tmp);
    for (size_t i = 0; i < r->outer.n; i++) {
        struct text_span s = r->outer.at[i];
        if (utf8_step((const uint8_t *)s.p, s.n, &len) != UTF8_OK) r->sink->word(r->sink->ctx, s.p, s.n); /* no text, no spaces */
        else piece_words(r, s.p, s.n, first && s.p == text);
    }
}

static void normal_text(struct run *r, const char *text, size_t n, bool first)
{
    normalizer_run(r->p->normalizer, text, n, &r->normal);
    cut(r, &r->p->normal, (const char *)r->normal.data, r->normal.len, first, words);
}

void pipeline_run(const struct pipeline *p, const char *text, size_t n, bool control,
                  const struct pipeline_sink *sink)
{
    struct run r = {.p = p, .sink = sink, .control = control};
    cut(&r, &p->raw, text, n, true, normal_text);
    buf_free(&r.normal);
    buf_free(&r.spaced);
    free(r.outer.at);
    free(r.pieces.at);
    free(r.tmp.at);
}
