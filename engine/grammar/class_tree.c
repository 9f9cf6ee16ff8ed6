/* class_tree.c: see class_tree.h. */
#include "engine/grammar/class_tree.h"

#include <stdlib.h>
#include <string.h>

static size_t n_words(const struct eng_grammar_vocab *v)
{
    return (size_t)v->n / 64 + 1;
}

static void *room(void *p, int32_t *cap, int32_t n, size_t size)
{
    if (n <= *cap) return p;
    *cap = MAX(MAX(64, 2 * *cap), n);
    return xrealloc(p, (size_t)*cap * size);
}

void eng_class_tree_open(struct class_tree *t, const struct program *p, const struct eng_grammar_vocab *v)
{
    *t = (struct class_tree){.v = v, .p = p};
    t->nodes = room(NULL, &t->cap_nodes, 1, sizeof *t->nodes);
    t->members = room(NULL, &t->cap_members, 1, sizeof *t->members);
    t->members[t->n_members++] = 0;
    t->nodes[t->n_nodes++] = (struct class_node){
        .n_members = 1, .child = -1, .below = v->below[0], .deepest = v->deepest[0]};
}

void eng_class_tree_close(struct class_tree *t)
{
    for (int32_t i = 0; i < t->n_nodes; i++) free(t->nodes[i].bits);
    free(t->nodes);
    free(t->members);
    free(t->tokens);
    *t = (struct class_tree){0};
}

/* The tokens that end at its members: listed, or as bits if that is shorter. */
static void find_tokens(struct class_tree *t, struct class_node *x)
{
    const struct eng_grammar_vocab *v = t->v;
    x->tokens = t->n_tokens;
    for (int32_t i = 0; i < x->n_members; i++)
        for (int32_t id = v->nodes[t->members[x->members + i]].token; id >= 0; id = v->same[id]) {
            t->tokens = room(t->tokens, &t->cap_tokens, t->n_tokens + 1, sizeof *t->tokens);
            t->tokens[t->n_tokens++] = id;
        }
    x->n_tokens = t->n_tokens - x->tokens;
    if ((size_t)x->n_tokens <= n_words(v)) return;
    x->bits = xcalloc(n_words(v), sizeof *x->bits);
    for (int32_t i = x->tokens; i < t->n_tokens; i++)
        x->bits[t->tokens[i] / 64] |= 1ull << (t->tokens[i] % 64);
    t->n_tokens = x->tokens;
}

/* How many of the nodes below the members begin with each class, and with which ones any do. */
static int32_t count(struct class_tree *t, const struct class_node *x, uint8_t *classes)
{
    const struct token_node *nodes = t->v->nodes;
    int32_t n = 0;
    for (int32_t i = 0; i < x->n_members; i++) {
        const int32_t m = t->members[x->members + i];
        for (int32_t c = m + 1; c < nodes[m].end; c = nodes[c].end) {
            const uint8_t class = t->p->class_of[nodes[c].byte];
            if (!t->count[class]++) classes[n++] = class;
        }
    }
    return n;
}

void eng_class_tree_look(struct class_tree *t, int32_t node)
{
    const struct token_node *nodes = t->v->nodes;
    uint8_t classes[256];
    struct class_node x = t->nodes[node];
    if (x.child >= 0) return;
    x.n_children = count(t, &x, classes);
    x.child = t->n_nodes;
    t->nodes = room(t->nodes, &t->cap_nodes, t->n_nodes + x.n_children, sizeof *t->nodes);
    for (int32_t i = 0; i < x.n_children; i++) {
        int32_t *n = &t->count[classes[i]];
        t->members = room(t->members, &t->cap_members, t->n_members + *n, sizeof *t->members);
        t->child_of[classes[i]] = t->n_nodes;
        t->nodes[t->n_nodes++] = (struct class_node){.members = t->n_members, .child = -1, .class = classes[i],
                                                     .depth = (uint16_t)(x.depth + 1)};
        t->n_members += *n;
        *n = 0;
    }
    for (int32_t i = 0; i < x.n_members; i++) {
        const int32_t m = t->members[x.members + i];
        for (int32_t c = m + 1; c < nodes[m].end; c = nodes[c].end) {
            struct class_node *y = &t->nodes[t->child_of[t->p->class_of[nodes[c].byte]]];
            t->members[y->members + y->n_members++] = c;
            y->below |= t->v->below[c];
            y->deepest = MAX(y->deepest, t->v->deepest[c]);
            y->all += t->v->rank[nodes[c].end] - t->v->rank[c];
        }
    }
    for (int32_t i = x.child; i < t->n_nodes; i++) find_tokens(t, &t->nodes[i]);
    t->nodes[node] = x;
}

void eng_class_tree_put(const struct class_tree *t, int32_t node, uint64_t *bits)
{
    const struct class_node *x = &t->nodes[node];
    if (x->bits)
        for (size_t i = 0; i < n_words(t->v); i++) bits[i] |= x->bits[i];
    else
        for (int32_t i = x->tokens; i < x->tokens + x->n_tokens; i++)
            bits[t->tokens[i] / 64] |= 1ull << (t->tokens[i] % 64);
}

void eng_class_tree_put_below(const struct class_tree *t, int32_t node, uint64_t *bits)
{
    const struct eng_grammar_vocab *v = t->v;
    const struct class_node *x = &t->nodes[node];
    for (int32_t i = 0; i < x->n_members; i++) {
        const int32_t m = t->members[x->members + i];
        for (int32_t r = v->rank[m + 1]; r < v->rank[v->nodes[m].end]; r++)
            bits[v->ranked[r] / 64] |= 1ull << (v->ranked[r] % 64);
    }
}
