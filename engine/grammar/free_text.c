/* free_text.c: see free_text.h. */
#include "engine/grammar/free_text.h"

#include "engine/grammar/vocab.h"

#include <stdlib.h>
#include <string.h>

/* ---- marks ---- */

static void *grown(struct arena *a, void *old, int32_t n, size_t size)
{
    /* powers of two: a new one at each */
    if (n & (n - 1)) return old;
    void *p = arena_alloc(a, 2 * (size_t)MAX(n, 1) * size);
    if (n) memcpy(p, old, (size_t)n * size);
    return p;
}

static bool push(struct free_text *t, struct arena *a, int32_t symbol)
{
    if (t->n_symbols == FREE_MOST_SYMBOLS) return false;
    t->symbols = grown(a, t->symbols, t->n_symbols, sizeof *t->symbols);
    t->symbols[t->n_symbols++] = symbol;
    t->marks[t->n_marks - 1].n++;
    return true;
}

void eng_free_mark(struct free_text *t, struct arena *a, int32_t state)
{
    t->marks = grown(a, t->marks, t->n_marks, sizeof *t->marks);
    t->marks[t->n_marks++] = (struct free_mark){t->n_symbols, 0, state};
}

bool eng_free_text(struct free_text *t, struct arena *a, const char *p, size_t n)
{
    for (size_t at = 0, len; at < n; at += len) {
        int32_t cp = eng_utf8_next(p + at, n - at, &len);
        if (cp < 0 || !push(t, a, cp)) return false;
    }
    return true;
}

bool eng_free_token(struct free_text *t, struct arena *a, const char *letters)
{
    int32_t i = 0;
    while (i < t->n_tokens && strcmp(t->tokens[i], letters)) i++;
    if (i == t->n_tokens) {
        t->tokens = grown(a, t->tokens, t->n_tokens, sizeof *t->tokens);
        t->tokens[t->n_tokens++] = letters;
    }
    return push(t, a, FREE_TOKEN + i);
}

void eng_free_control(struct draft *d, int32_t from, const char *letters, int32_t to)
{
    int32_t mid = eng_draft_state(d);
    eng_draft_bytes(d, from, VOCAB_CONTROL, VOCAB_CONTROL, mid);
    eng_draft_text(d, mid, letters, strlen(letters), to);
}

/* ---- the automaton ---- */

struct node {
    int32_t child, sibling, symbol; /* the tree of marks */
    int32_t fail;                   /* the longest proper end of it that begins a mark */
    int32_t state;                  /* of the draft */
    int32_t *marks, n_marks;        /* those that end here, as such or at the end of it */
    bool bound; /* a control token has been read: what follows is of its mark */
};

struct build {
    struct encoder *e;
    const struct free_text *t;
    struct node *nodes;
    int32_t n_nodes;
    int32_t *alphabet, n_alphabet; /* ascending */
    int32_t may_end;
};

static int32_t child(const struct build *b, int32_t node, int32_t symbol)
{
    int32_t c = b->nodes[node].child;
    while (c > 0 && b->nodes[c].symbol != symbol) c = b->nodes[c].sibling;
    return c > 0 ? c : -1;
}

/* Where a symbol leads from a node: 0, the root, when it begins nothing. A control token that begins nothing may not
 * stand there. */
static int32_t follow(const struct build *b, int32_t node, int32_t symbol)
{
    for (;; node = b->nodes[node].fail) {
        int32_t c = child(b, node, symbol);
        if (c > 0) return c;
        if (!node) return 0;
    }
}

static void plant(struct build *b)
{
    for (int32_t i = 0; i < b->t->n_marks; i++) {
        const struct free_mark *m = &b->t->marks[i];
        int32_t at = 0;
        for (int32_t k = 0; k < m->n; k++) {
            int32_t symbol = b->t->symbols[m->first + k], c = child(b, at, symbol);
            if (c < 0) {
                c = b->n_nodes++;
                b->nodes[c] = (struct node){.sibling = b->nodes[at].child, .symbol = symbol,
                                            .bound = b->nodes[at].bound || symbol >= FREE_TOKEN};
                b->nodes[at].child = c;
            }
            at = c;
        }
        struct node *n = &b->nodes[at];
        n->marks = grown(b->e->a, n->marks, n->n_marks, sizeof *n->marks);
        n->marks[n->n_marks++] = i;
    }
}

/* Breadth first: a node's end is shorter, so it is settled before. */
static void find_ends(struct build *b)
{
    int32_t *queue = xmalloc(((size_t)b->n_nodes + 1) * sizeof *queue), n = 1;
    queue[0] = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t at = queue[i];
        for (int32_t c = b->nodes[at].child; c > 0; c = b->nodes[c].sibling) {
            struct node *x = &b->nodes[c];
            x->fail = at ? follow(b, b->nodes[at].fail, x->symbol) : 0;
            const struct node *end = &b->nodes[x->fail];
            for (int32_t k = 0; k < end->n_marks; k++) {
                x->marks = grown(b->e->a, x->marks, x->n_marks, sizeof *x->marks);
                x->marks[x->n_marks++] = end->marks[k];
            }
            queue[n++] = c;
        }
    }
    free(queue);
}

static int by_number(const void *a, const void *b)
{
    return *(const int32_t *)a < *(const int32_t *)b ? -1 : *(const int32_t *)a > *(const int32_t *)b;
}

static void find_alphabet(struct build *b)
{
    int32_t n = b->t->n_symbols;
    b->alphabet = arena_alloc(b->e->a, ((size_t)n + 1) * sizeof *b->alphabet);
    if (n) memcpy(b->alphabet, b->t->symbols, (size_t)n * sizeof *b->alphabet);
    if (n) qsort(b->alphabet, (size_t)n, sizeof *b->alphabet, by_number);
    for (int32_t i = 0; i < n; i++)
        if (!i || b->alphabet[i] != b->alphabet[i - 1]) b->alphabet[b->n_alphabet++] = b->alphabet[i];
}

void eng_free_symbol(struct encoder *e, const struct free_text *t, int32_t from, int32_t symbol, int32_t to)
{
    struct charset one = {0};
    if (symbol >= FREE_TOKEN) {
        eng_free_control(e->d, from, t->tokens[symbol - FREE_TOKEN], to);
        return;
    }
    eng_charset_add(&one, e->a, (uint32_t)symbol, (uint32_t)symbol);
    eng_charset_tidy(&one);
    eng_encode_char(e, from, &one, false, to);
}

static void emit_node(struct build *b, int32_t at)
{
    struct charset others = {0}; /* all that leads to the root */
    int32_t from = b->nodes[at].state;
    const bool bound = b->nodes[at].bound;
    for (int32_t i = 0; i < b->n_alphabet && !b->e->d->full; i++) {
        int32_t to = bound ? MAX(child(b, at, b->alphabet[i]), 0) : follow(b, at, b->alphabet[i]);
        const struct node *x = &b->nodes[to];
        if (!to) continue;
        if (b->alphabet[i] < FREE_TOKEN)
            eng_charset_add(&others, b->e->a, (uint32_t)b->alphabet[i], (uint32_t)b->alphabet[i]);
        if (!x->n_marks) {
            eng_free_symbol(b->e, b->t, from, b->alphabet[i], x->state);
            continue;
        }
        for (int32_t k = 0; k < x->n_marks; k++)
            if (b->t->marks[x->marks[k]].state >= 0)
                eng_free_symbol(b->e, b->t, from, b->alphabet[i], b->t->marks[x->marks[k]].state);
    }
    if (bound) return;
    eng_charset_tidy(&others);
    eng_charset_negate(&others, b->e->a);
    eng_encode_char(b->e, from, &others, false, b->nodes[0].state);
    if (b->may_end >= 0) eng_draft_empty(b->e->d, from, b->may_end);
}

int32_t eng_free_emit(struct encoder *e, const struct free_text *t, int32_t may_end)
{
    struct build b = {.e = e, .t = t, .n_nodes = 1, .may_end = may_end};
    b.nodes = arena_alloc(e->a, ((size_t)t->n_symbols + 2) * sizeof *b.nodes);
    b.nodes[0] = (struct node){0};
    plant(&b);
    find_ends(&b);
    find_alphabet(&b);
    for (int32_t i = 0; i < b.n_nodes; i++) b.nodes[i].state = eng_draft_state(e->d);
    for (int32_t i = 0; i < b.n_nodes && !e->d->full; i++)
        if (!b.nodes[i].n_marks) emit_node(&b, i); /* behind a mark something else follows */
    return b.nodes[0].state;
}
