/* trie.c: see trie.h. */
#include "engine/text/trie.h"

#include "base/base.h"

#include <stdlib.h>

static int32_t node_new(struct trie *t, uint8_t byte)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 256;
        t->at = xrealloc(t->at, sizeof *t->at * (size_t)t->cap);
    }
    t->at[t->n] = (struct trie_node){.value = -1, .byte = byte};
    return t->n++;
}

int32_t trie_step(const struct trie *t, int32_t at, uint8_t byte)
{
    if (!t->n) return 0;
    int32_t c = t->at[at].child;
    while (c && t->at[c].byte != byte) c = t->at[c].sibling;
    return c;
}

void trie_add(struct trie *t, const char *p, size_t n, int32_t value)
{
    int32_t at = 0;
    if (!n || n > TRIE_MAX_LEN) return;
    if (!t->n) node_new(t, 0);
    for (size_t i = 0; i < n; i++) {
        int32_t c = trie_step(t, at, (uint8_t)p[i]);
        if (!c) {
            c = node_new(t, (uint8_t)p[i]);
            t->at[c].sibling = t->at[at].child;
            t->at[at].child = c;
        }
        at = c;
    }
    if (t->at[at].value < 0) t->at[at].value = value;
}

void trie_free(struct trie *t)
{
    free(t->at);
    *t = (struct trie){0};
}

int32_t trie_longest(const struct trie *t, const char *p, size_t n, size_t *len)
{
    int32_t best = -1, at = 0;
    for (size_t i = 0; i < n; i++) {
        at = trie_step(t, at, (uint8_t)p[i]);
        if (!at) break;
        if (t->at[at].value < 0) continue;
        best = t->at[at].value;
        *len = i + 1;
    }
    return best;
}
