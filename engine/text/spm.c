/* spm.c: neighbours whose union is a token merge, the highest score first, the leftmost on ties;
 * what remains outside the vocabulary goes out byte by byte. A heap: n log n in the length of the
 * text. */
#include "engine/text/spm.h"
#include "engine/text/heap.h"
#include "engine/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xE2\x96\x81" /* U+2581 */

struct sym {
    uint32_t at, n;
    int32_t prev, next;
}; /* n == 0: swallowed by its left neighbour */

struct work {
    const struct vocab *v;
    const char *text;
    struct sym *sym;
    struct heap heap;
};

void spm_open(struct spm *s, const struct vocab *v)
{
    *s = (struct spm){.v = v};
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        s->byte_id[b] = vocab_find(v, name, 6);
    }
}

static void escape(const char *p, size_t n, bool prefix, struct buf *out)
{
    buf_reserve(out, n + 3);
    if (prefix) buf_put(out, SPACE, 3);
    for (size_t i = 0, run; i < n; i += run) {
        const char *space = memchr(p + i, ' ', n - i);
        run = space ? (size_t)(space - p) - i : n - i;
        buf_put(out, p + i, run);
        if (space) {
            buf_put(out, SPACE, 3);
            run++;
        }
    }
}

/* A key that sorts scores from high to low. */
static uint32_t score_key(float score)
{
    uint32_t u;
    memcpy(&u, &score, sizeof u);
    uint32_t ascending = u & 0x80000000u ? ~u : u | 0x80000000u;
    return ~ascending;
}

static void offer(struct work *w, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return;
    const struct sym *l = &w->sym[left], *r = &w->sym[right];
    int32_t id = vocab_find_plain(w->v, w->text + l->at, (size_t)l->n + r->n);
    if (id < 0) return;
    uint64_t key = (uint64_t)score_key(w->v->score[id]) << 32 | (uint32_t)left;
    heap_push(&w->heap, (struct heap_item){key, l->n + r->n, 0});
}

static void merge_at(struct work *w, int32_t left, uint32_t size)
{
    struct sym *l = &w->sym[left];
    if (!l->n || l->next < 0) return;
    struct sym *r = &w->sym[l->next];
    if (l->n + r->n != size) return; /* stale: one of the two has grown since */
    l->n = size;
    r->n = 0;
    l->next = r->next;
    if (l->next >= 0) w->sym[l->next].prev = left;
    offer(w, l->prev, left);
    offer(w, left, l->next);
}

static int32_t split(struct work *w, size_t n)
{
    int32_t m = 0;
    w->sym = xmalloc(sizeof *w->sym * (n ? n : 1));
    for (size_t i = 0, len; i < n; i += len) {
        if (utf8_step((const uint8_t *)w->text + i, n - i, &len) != UTF8_OK) len = 1;
        w->sym[m] = (struct sym){(uint32_t)i, (uint32_t)len, m - 1, m + 1};
        m++;
    }
    if (m) w->sym[m - 1].next = -1;
    return m;
}

static void emit(const struct spm *s, const char *p, size_t n, struct eng_tokens *out)
{
    int32_t id = vocab_find_plain(s->v, p, n);
    if (id >= 0) {
        eng_tokens_push(out, id);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        id = s->byte_id[(uint8_t)p[i]];
        if (id < 0) id = s->v->unk;
        if (id >= 0) eng_tokens_push(out, id);
    }
}

void spm_encode(const struct spm *s, const char *p, size_t n, bool prefix, struct eng_tokens *out)
{
    struct buf text = {0};
    escape(p, n, prefix, &text);
    struct work w = {.v = s->v, .text = (const char *)text.data};
    int32_t m = split(&w, text.len);
    for (int32_t i = 1; i < m; i++) offer(&w, i - 1, i);
    while (w.heap.n) {
        struct heap_item it = heap_pop(&w.heap);
        merge_at(&w, (int32_t)(uint32_t)it.key, it.a);
    }
    for (int32_t i = m ? 0 : -1; i >= 0; i = w.sym[i].next)
        emit(s, w.text + w.sym[i].at, w.sym[i].n, out);
    free(w.sym);
    free(w.heap.at);
    buf_free(&text);
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

void spm_decode(struct text_span t, enum token_type type, struct buf *out)
{
    if (type == TOKEN_BYTE) {
        int hi = t.n == 6 ? hex(t.p[3]) : -1, lo = t.n == 6 ? hex(t.p[4]) : -1;
        if (hi >= 0 && lo >= 0) buf_u8(out, (uint8_t)(hi << 4 | lo));
        return;
    }
    for (size_t i = 0; i < t.n;) {
        bool space = i + 3 <= t.n && !memcmp(t.p + i, SPACE, 3);
        buf_putc(out, space ? ' ' : t.p[i]);
        i += space ? 3 : 1;
    }
}
