/* normalize.c: see normalize.h. Two steps are SentencePiece's own, as two programs carry them out:
 *
 * TEXT_SENTENCEPIECE, as SentencePiece does: at each place the longest key of its map of characters, else the character; user-defined
 * tokens stay. Runs of spaces become one, those at both ends none (where the model says so); a space is written as U+2581, and perhaps one
 * is put in front. Source: sentencepiece_model.proto and the normaliser's behaviour (facts).
 *
 * TEXT_PRECOMPILED, as Hugging Face's tokenizers do with the same map: grapheme by grapheme; one of less than six bytes that begins with a
 * key becomes the shortest such key's text, whole; of others each character does. */
#include "engine/text/normalize.h"

#include "base/arena.h"
#include "engine/text/charsmap.h"
#include "engine/text/normalize_chars.h"
#include "engine/text/pretoken.h"
#include "engine/text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define META "\xE2\x96\x81" /* U+2581 */

enum { SMALL_GRAPHEME = 6 };

struct step {
    struct text_step s;
    struct charsmap map;
    struct pretoken *regex;
};

struct normalizer {
    struct arena a;
    struct step *steps;
    int32_t n;
    struct trie user; /* user-defined tokens, for TEXT_SENTENCEPIECE */
};

static struct text_span span_copy(struct arena *a, struct text_span s)
{
    return (struct text_span){arena_strndup(a, s.n ? s.p : "", s.n), s.n};
}

static enum err open_step(struct normalizer *m, struct step *to, const struct text_step *s)
{
    to->s = *s;
    to->s.from = span_copy(&m->a, s->from);
    to->s.to = span_copy(&m->a, s->to);
    if (s->kind == TEXT_SENTENCEPIECE || s->kind == TEXT_PRECOMPILED) return charsmap_open(&to->map, to->s.from);
    if (s->kind != TEXT_REPLACE_REGEX) return OK;
    struct text_split split = {.regex = to->s.from.p};
    return pretoken_open_splits(&to->regex, &split, 1);
}

enum err normalizer_open(struct normalizer **out, const struct text_step *steps, int32_t n, const struct vocab *v)
{
    enum err rc = OK;
    struct normalizer *m = xcalloc(1, sizeof *m);
    m->steps = xcalloc((size_t)n + 1, sizeof *m->steps);
    m->n = n;
    bool user = false;
    for (int32_t i = 0; i < n; i++) {
        TRY(open_step(m, &m->steps[i], &steps[i]));
        user |= steps[i].kind == TEXT_SENTENCEPIECE;
    }
    for (int32_t id = 0; id < v->n && user; id++) {
        struct text_span s = vocab_text(v, id);
        if (v->type[id] == TOKEN_USER) trie_add(&m->user, s.p, s.n, id);
    }
    *out = m, m = NULL;
out:
    normalizer_close(m);
    return rc;
}

void normalizer_close(struct normalizer *m)
{
    if (!m) return;
    for (int32_t i = 0; i < m->n; i++) {
        charsmap_close(&m->steps[i].map);
        pretoken_close(m->steps[i].regex);
    }
    free(m->steps);
    trie_free(&m->user);
    arena_free(&m->a);
    free(m);
}

/* ---- Unicode's forms ---- */

static bool is_ascii(const char *p, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++) any |= (uint8_t)p[i];
    return any < 0x80;
}

static void put_form(const struct step *s, const char *p, size_t n, struct buf *out)
{
    static const int options[] = {
        [TEXT_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [TEXT_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [TEXT_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [TEXT_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *form = NULL;
    utf8proc_ssize_t len =
        is_ascii(p, n) ? -1 : utf8proc_map((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &form, (utf8proc_option_t)options[s->s.kind]);
    if (len >= 0) buf_put(out, form, (size_t)len);
    else buf_put(out, p, n);
    free(form);
}

/* ---- maps of characters ---- */

static void put_grapheme(const struct charsmap *m, const char *p, size_t n, struct buf *out)
{
    struct text_span to;
    size_t key, len;
    if (n < SMALL_GRAPHEME && charsmap_find(m, p, n, false, &key, &to)) {
        buf_put(out, to.p, to.n);
        return;
    }
    for (size_t i = 0; i < n; i += len) {
        (void)utf8_step((const uint8_t *)p + i, n - i, &len);
        if (charsmap_find(m, p + i, len, false, &key, &to)) buf_put(out, to.p, to.n);
        else buf_put(out, p + i, len);
    }
}

/* p[n] is valid UTF-8. */
static void put_precompiled(const struct step *s, const char *p, size_t n, struct buf *out)
{
    size_t start = 0, len;
    utf8proc_int32_t state = 0, last = -1;
    for (size_t i = 0; i < n; i += len) {
        (void)utf8_step((const uint8_t *)p + i, n - i, &len);
        utf8proc_int32_t c = (utf8proc_int32_t)utf8_cp((const uint8_t *)p + i, len);
        if (last >= 0 && utf8proc_grapheme_break_stateful(last, c, &state)) {
            put_grapheme(&s->map, p + start, i - start, out);
            start = i;
        }
        last = c;
    }
    if (n > start) put_grapheme(&s->map, p + start, n - start, out);
}

/* What stands at p[n] becomes *to; returns how many bytes of p that was. */
static size_t next_mapped(const struct normalizer *m, const struct step *s, const char *p, size_t n, struct text_span *to)
{
    size_t len;
    if (trie_longest(&m->user, p, n, &len) < 0 && charsmap_find(&s->map, p, n, true, &len, to)) return len;
    if (trie_longest(&m->user, p, n, &len) < 0) (void)utf8_step((const uint8_t *)p, n, &len);
    *to = (struct text_span){p, len};
    return len;
}

static bool ends_with_meta(const struct buf *out, size_t from) { return out->len >= from + 3 && !memcmp(out->data + out->len - 3, META, 3); }

static void sentencepiece(const struct normalizer *m, const struct step *s, const char *p, size_t n, struct buf *out)
{
    struct text_span to;
    size_t at = 0, start = out->len;
    bool squeeze = s->s.squeeze, after_space = squeeze;
    for (size_t len; squeeze && at < n; at += len) {
        len = next_mapped(m, s, p + at, n - at, &to);
        if (to.n != 1 || *to.p != ' ') break;
    }
    if (at == n) return;
    if (s->s.prefix) buf_put(out, META, 3);
    while (at < n) {
        at += next_mapped(m, s, p + at, n - at, &to);
        while (after_space && to.n && *to.p == ' ') to.p++, to.n--;
        normalizer_replace(to.p, to.n, (struct text_span){" ", 1}, (struct text_span){META, 3}, out);
        if (to.n) after_space = squeeze && to.p[to.n - 1] == ' ';
    }
    while (squeeze && ends_with_meta(out, start)) out->len -= 3;
}

/* ---- the others ---- */

void normalizer_replace(const char *p, size_t n, struct text_span from, struct text_span to, struct buf *out)
{
    while (n) {
        const char *hit = from.n ? memmem(p, n, from.p, from.n) : NULL;
        size_t run = hit ? (size_t)(hit - p) : n;
        buf_put(out, p, run);
        if (!hit) return;
        buf_put(out, to.p, to.n);
        p += run + from.n, n -= run + from.n;
    }
}

static bool is_space_at(const char *p, size_t n, size_t *len)
{
    static const uint32_t other[] = {0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    if (utf8_step((const uint8_t *)p, n, len) != UTF8_OK) return false;
    uint32_t c = utf8_cp((const uint8_t *)p, *len);
    for (size_t i = 0; i < COUNT_OF(other); i++)
        if (c == other[i]) return true;
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x2000 && c <= 0x200A);
}

static void strip(const struct step *s, const char *p, size_t n, struct buf *out)
{
    size_t len;
    while (s->s.left && n && is_space_at(p, n, &len)) p += len, n -= len;
    for (size_t at = n; s->s.right && at;) {
        do at--;
        while (at && n - at < 4 && ((uint8_t)p[at] & 0xC0) == 0x80);
        if (!is_space_at(p + at, n - at, &len) || at + len != n) break;
        n = at;
    }
    buf_put(out, p, n);
}

static void put_regex(const struct step *s, const char *p, size_t n, struct buf *out) { pretoken_replace(s->regex, p, n, s->s.to, out); }

static void put_chars(const struct step *s, const char *p, size_t n, struct buf *out) { normalize_chars(s->s.kind, p, n, out); }

typedef void valid_fn(const struct step *s, const char *p, size_t n, struct buf *out);

/* Valid stretches go through the step, the bytes between them do not. */
static void each_valid(const struct step *s, const char *p, size_t n, struct buf *out, valid_fn *step)
{
    size_t start = 0, i = 0, len;
    for (; i < n; i += len) {
        if (utf8_step((const uint8_t *)p + i, n - i, &len) == UTF8_OK) continue;
        if (i > start) step(s, p + start, i - start, out);
        buf_put(out, p + i, len);
        start = i + len;
    }
    if (n > start) step(s, p + start, n - start, out);
}

static void run_step(const struct normalizer *m, const struct step *s, const char *p, size_t n, struct buf *out)
{
    switch (s->s.kind) {
    case TEXT_NFC:
    case TEXT_NFD:
    case TEXT_NFKC:
    case TEXT_NFKD: each_valid(s, p, n, out, put_form); break;
    case TEXT_PREPEND:
        buf_put(out, s->s.to.p, s->s.to.n);
        buf_put(out, p, n);
        break;
    case TEXT_REPLACE: normalizer_replace(p, n, s->s.from, s->s.to, out); break;
    case TEXT_REPLACE_REGEX: each_valid(s, p, n, out, put_regex); break;
    case TEXT_STRIP: strip(s, p, n, out); break;
    case TEXT_PRECOMPILED: each_valid(s, p, n, out, put_precompiled); break;
    case TEXT_SENTENCEPIECE: sentencepiece(m, s, p, n, out); break;
    case TEXT_CLEAN:
    case TEXT_HAN_APART:
    case TEXT_STRIP_NONSPACING:
    case TEXT_STRIP_MARKS:
    case TEXT_LOWER:
    case TEXT_NMT: each_valid(s, p, n, out, put_chars); break;
    case TEXT_BYTES: normalize_bytes(p, n, out); break;
    }
}

void normalizer_run(const struct normalizer *m, const char *text, size_t n, struct buf *out)
{
    struct buf in = {0};
    buf_clear(out);
    buf_put(out, text, n);
    for (int32_t i = 0; i < m->n && out->len; i++) {
        struct buf swap = in;
        in = *out, *out = swap;
        buf_clear(out);
        run_step(m, &m->steps[i], (const char *)in.data, in.len, out);
    }
    buf_free(&in);
}
