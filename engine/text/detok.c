/* detok.c: two filters one after the other. The first turns bytes into whole characters (what can
 * never become one into U+FFFD), the second holds back what may be the beginning of a stop string.
 *
 * Each stop string is followed by Knuth-Morris-Pratt, so a character costs a constant number of
 * steps however the stop strings are built. */
#include "engine/text/detok.h"
#include "engine/text/utf8.h"

#include <stdlib.h>
#include <string.h>

struct stop {
    char *text;
    int32_t n, matched; /* n 0: can never occur in valid text */
    int32_t *fail;      /* [n] how much of the string still matches when byte i does not */
};

struct eng_detok {
    const struct eng_tokenizer *t;
    bool include_stop, special, drop_space, space; /* space: one that is lost if nothing follows */
    struct stop *stops;
    int32_t n_stops, done; /* done: the stop that was completed, or -1 */
    uint8_t part[4];       /* the beginning of a character */
    size_t n_part;
    struct buf piece, held;
};

static bool is_utf8(const char *s, size_t n)
{
    for (size_t i = 0, len; i < n; i += len)
        if (utf8_step((const uint8_t *)s + i, n - i, &len) != UTF8_OK) return false;
    return true;
}

static void stop_open(struct stop *s, const char *text)
{
    size_t n = strlen(text);
    *s = (struct stop){.text = xstrdup(text)};
    if (n > INT32_MAX || !is_utf8(text, n)) return;
    s->n = (int32_t)n;
    s->fail = xcalloc(n + 1, sizeof *s->fail);
    for (int32_t i = 1, k = 0; i < s->n; i++) {
        while (k && text[i] != text[k]) k = s->fail[k - 1];
        k += text[i] == text[k];
        s->fail[i] = k;
    }
}

struct eng_detok *eng_detok_open(const struct eng_tokenizer *t, const char *const *stops,
                                 int32_t n_stops, bool include_stop, bool special)
{
    struct eng_detok *d = xcalloc(1, sizeof *d);
    *d = (struct eng_detok){
        .t = t, .include_stop = include_stop, .special = special, .n_stops = n_stops, .done = -1};
    d->stops = xcalloc((size_t)MAX(n_stops, 1), sizeof *d->stops);
    for (int32_t i = 0; i < n_stops; i++) stop_open(&d->stops[i], stops[i]);
    return d;
}

void eng_detok_close(struct eng_detok *d)
{
    if (!d) return;
    for (int32_t i = 0; i < d->n_stops; i++) {
        free(d->stops[i].text);
        free(d->stops[i].fail);
    }
    free(d->stops);
    buf_free(&d->piece);
    buf_free(&d->held);
    free(d);
}

void eng_detok_drop_first_space(struct eng_detok *d)
{
    d->drop_space = eng_tokenizer_drops_space(d->t);
}

/* How much of the stop string the text now ends with. */
static int32_t follow(struct stop *s, char c)
{
    int32_t k = s->matched;
    while (k && s->text[k] != c) k = s->fail[k - 1];
    k += s->text[k] == c;
    s->matched = k;
    return k;
}

/* One byte of valid text; true when it completes a stop string. */
static bool feed_byte(struct eng_detok *d, char c, int32_t *longest)
{
    int32_t best = 0;
    buf_putc(&d->held, c);
    for (int32_t i = 0; i < d->n_stops; i++) {
        struct stop *s = &d->stops[i];
        if (!s->n) continue;
        int32_t k = follow(s, c);
        *longest = MAX(*longest, k);
        if (k == s->n && k > best)
            d->done = i, best = k; /* several at once: the one that began first */
    }
    return best > 0;
}

static void release(struct eng_detok *d, size_t keep, struct buf *out)
{
    size_t n = d->held.len - keep;
    if (!n) return;
    buf_put(out, d->held.data, n);
    memmove(d->held.data, d->held.data + n, keep);
    d->held.len = keep;
}

static bool feed_char(struct eng_detok *d, const uint8_t *p, size_t n, struct buf *out)
{
    int32_t longest = 0;
    for (size_t i = 0; i < n; i++) {
        longest = 0;
        if (!feed_byte(d, (char)p[i], &longest)) continue;
        if (d->include_stop)
            release(d, 0, out);
        else
            release(d, (size_t)d->stops[d->done].n, out);
        d->held.len = 0;
        return true;
    }
    release(d, (size_t)longest, out);
    return false;
}

static bool feed_replacement(struct eng_detok *d, struct buf *out)
{
    return feed_char(d, (const uint8_t *)"\xEF\xBF\xBD", 3, out);
}

/* Bytes of a piece, after the beginning of a character left by the last one. */
static bool feed_bytes(struct eng_detok *d, const uint8_t *p, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) {
        d->part[d->n_part++] = p[i];
        for (;;) {
            size_t len;
            enum utf8_kind kind = utf8_step(d->part, d->n_part, &len);
            if (kind == UTF8_SHORT) break;
            bool stop =
                kind == UTF8_OK ? feed_char(d, d->part, len, out) : feed_replacement(d, out);
            d->n_part -= len;
            memmove(d->part, d->part + len, d->n_part);
            if (stop) return true;
            if (!d->n_part) break;
        }
    }
    return false;
}

int32_t eng_detok_push(struct eng_detok *d, int32_t id, struct buf *out)
{
    if (d->done >= 0) return d->done;
    buf_clear(&d->piece);
    eng_tokenizer_piece(d->t, id, d->special, &d->piece);
    if (!d->piece.len) return -1;
    size_t skip = d->drop_space && d->piece.data[0] == ' ';
    d->drop_space = false;
    bool stopped = d->space && feed_bytes(d, (const uint8_t *)" ", 1, out);
    d->space = eng_tokenizer_space_behind(d->t, id);
    if (!stopped) feed_bytes(d, d->piece.data + skip, d->piece.len - skip - d->space, out);
    return d->done;
}

bool eng_detok_holds(const struct eng_detok *d)
{
    return d->n_part || d->held.len || d->space;
}

void eng_detok_finish(struct eng_detok *d, struct buf *out)
{
    if (d->done >= 0) return;
    if (d->n_part && feed_replacement(d, out)) return;
    d->n_part = 0;
    release(d, 0, out);
}
