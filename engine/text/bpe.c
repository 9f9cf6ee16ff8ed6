/* bpe.c: merges in order of rank, the leftmost first, by a heap: n log n in the length of the word.
 *
 * Works on ids, not texts: a merge is (left id, right id) -> id. An item of the heap is stale when
 * the pair it names no longer stands at its position. */
#include "engine/text/bpe.h"
#include "engine/text/normalize_chars.h"
#include "engine/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_pair(uint64_t pair)
{
    return (uint32_t)((pair * 0x9E3779B97F4A7C15u) >> 32);
}

static const struct bpe_merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint32_t at = hash_pair(pair) & b->mask; b->merge[at].rank >= 0; at = (at + 1) & b->mask)
        if (b->merge[at].pair == pair) return &b->merge[at];
    return NULL;
}

static void add_merge(struct bpe *b, int32_t left, int32_t right, int32_t rank, int32_t id)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t at = hash_pair(pair) & b->mask;
    while (b->merge[at].rank >= 0) {
        if (b->merge[at].pair == pair) return; /* named twice: the first rank counts */
        at = (at + 1) & b->mask;
    }
    b->merge[at] = (struct bpe_merge){pair, rank, id};
}

/* A merge given as two texts; the second one's mark of a piece within a word is not part of what they make. */
static void take_merge(struct bpe *b, struct text_span l, struct text_span r, int32_t rank,
                       struct buf *both)
{
    buf_clear(both);
    buf_put(both, l.p, l.n);
    if (r.n < b->inner.len) return;
    buf_put(both, r.p + b->inner.len, r.n - b->inner.len);
    int32_t left = vocab_find_plain(b->v, l.p, l.n), right = vocab_find_plain(b->v, r.p, r.n);
    int32_t id = vocab_find_plain(b->v, (const char *)both->data, both->len);
    if (left >= 0 && right >= 0 && id >= 0) add_merge(b, left, right, rank, id);
}

static enum err read_merge(struct bpe *b, struct text_span m, int32_t rank, struct buf *both)
{
    const char *space = m.n > 2 ? memchr(m.p + 1, ' ', m.n - 2) : NULL;
    if (!space)
        return err_raise(ERR_BAD_FILE,
                         "merge %d of the vocabulary (\"%.*s\") is not two texts with a space "
                         "between: convert the model again",
                         rank, (int)MIN(m.n, 40), m.p ? m.p : "");
    size_t nl = (size_t)(space - m.p);
    take_merge(b, (struct text_span){m.p, nl}, (struct text_span){space + 1, m.n - nl - 1}, rank,
               both);
    return OK;
}

enum err bpe_open(struct bpe *b, const struct vocab *v, const struct eng_vocab_src *src,
                  bool whole_words)
{
    enum err rc = OK;
    struct buf both = {0};
    uint32_t cap = 16;
    *b = (struct bpe){.v = v, .whole_words = whole_words};
    if (src->n_merges < 0 || src->n_merges > 1 << 28 || (src->n_merges && !src->merges))
        return err_raise(ERR_BAD_FILE, "a vocabulary with %lld merges", (long long)src->n_merges);
    while (cap < (uint64_t)src->n_merges * 2) cap *= 2;
    b->mask = cap - 1;
    b->merge = xmalloc(sizeof *b->merge * cap);
    for (uint32_t i = 0; i < cap; i++) b->merge[i].rank = -1;
    b->chars = !strcmp(src->model, "bpe");
    if (src->rules) {
        b->byte_fallback = src->rules->byte_fallback;
        b->fuse_unk = src->rules->fuse_unk;
        buf_put(&b->inner, src->rules->inner.p, src->rules->inner.n);
        buf_put(&b->final, src->rules->final.p, src->rules->final.n);
    }
    for (uint32_t i = 0; i < 256; i++) {
        uint8_t u[8];
        if (b->chars) {
            snprintf((char *)u, sizeof u, "<0x%02X>", i);
            b->byte_id[i] = vocab_find(v, (const char *)u, 6);
            continue;
        }
        b->byte_id[i] = vocab_find_plain(v, (const char *)u, utf8_put(u, bpe_char_of_byte((uint8_t)i)));
        b->spelt |= b->byte_id[i] < 0 && src->rules && v->unk >= 0;
    }
    b->spelt |= !b->chars && (b->inner.len || b->final.len);
    b->byte_fallback &= b->chars; /* of others b->byte_id is no list of bytes' names */
    for (int64_t i = 0; i < src->n_merges; i++)
        if (src->merge_rights)
            take_merge(b, src->merges[i], src->merge_rights[i], (int32_t)i, &both);
        else
            TRY(read_merge(b, src->merges[i], (int32_t)i, &both));
out:
    buf_free(&both);
    if (rc) bpe_close(b);
    return rc;
}

void bpe_close(struct bpe *b)
{
    free(b->merge);
    buf_free(&b->inner);
    buf_free(&b->final);
    *b = (struct bpe){0};
}

void bpe_work_free(struct bpe_work *w)
{
    free(w->sym);
    free(w->heap.at);
    buf_free(&w->word);
    buf_free(&w->spelt);
    *w = (struct bpe_work){0};
}

static int32_t whole_word(const struct bpe *b, struct bpe_work *w, const char *p, size_t n)
{
    if (n > b->v->max_len) return -1;
    if (b->chars) return vocab_find_plain(b->v, p, n);
    buf_clear(&w->word);
    normalize_bytes(p, n, &w->word);
    return vocab_find_plain(b->v, (const char *)w->word.data, w->word.len);
}

static void offer(const struct bpe *b, struct bpe_work *w, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return;
    const struct bpe_merge *m = find_merge(b, w->sym[left].id, w->sym[right].id);
    if (!m) return;
    uint64_t key = (uint64_t)(uint32_t)m->rank << 32 | (uint32_t)left;
    heap_push(&w->heap, (struct heap_item){key, 0, (uint32_t)(m - b->merge)});
}

static void merge_at(const struct bpe *b, struct bpe_work *w, int32_t left,
                     const struct bpe_merge *m)
{
    struct bpe_sym *l = &w->sym[left];
    if (l->id < 0 || l->next < 0) return; /* stale: already swallowed, or now the last */
    struct bpe_sym *r = &w->sym[l->next];
    if (((uint64_t)(uint32_t)l->id << 32 | (uint32_t)r->id) != m->pair) return;
    l->id = m->id;
    r->id = -1;
    l->next = r->next;
    if (l->next >= 0) w->sym[l->next].prev = left;
    offer(b, w, l->prev, left);
    offer(b, w, left, l->next);
}

void bpe_encode_word(const struct bpe *b, struct bpe_work *w, const char *p, size_t n,
                     struct eng_tokens *out)
{
    int32_t whole = b->whole_words ? whole_word(b, w, p, n) : -1;
    if (whole >= 0) {
        eng_tokens_push(out, whole);
        return;
    }
    int32_t m = bpe_symbols(b, w, p, n);
    w->heap.n = 0;
    for (int32_t i = 1; i < m; i++) offer(b, w, i - 1, i);
    while (w->heap.n) {
        struct heap_item it = heap_pop(&w->heap);
        merge_at(b, w, (int32_t)(uint32_t)it.key, &b->merge[it.b]);
    }
    for (int32_t i = m ? 0 : -1; i >= 0; i = w->sym[i].next) eng_tokens_push(out, w->sym[i].id);
}
