/* vocab.c: see vocab.h. */
#include "engine/grammar/vocab.h"

#include <stdlib.h>
#include <string.h>

static size_t length(const struct eng_grammar_vocab *v, int32_t id)
{
    return v->off[id + 1] - v->off[id];
}

static int by_bytes(const void *a, const void *b, void *user)
{
    const struct eng_grammar_vocab *v = user;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    size_t nx = length(v, x), ny = length(v, y);
    int c = memcmp(v->bytes + v->off[x], v->bytes + v->off[y], MIN(nx, ny));
    if (c) return c;
    return nx != ny ? (nx < ny ? -1 : 1) : x < y ? -1 : x > y;
}

/* Tokens in order of their bytes; each adds nodes below the prefix it shares with the one before.
 */
static void plant(struct eng_grammar_vocab *v, const int32_t *order, int32_t n)
{
    int32_t path[TOKEN_MAX_BYTES + 1] = {0}, depth = 0, cap = 1 << 16;
    v->nodes = xmalloc((size_t)cap * sizeof *v->nodes);
    v->nodes[v->n_nodes++] = (struct token_node){0, -1, 0, 0};
    for (int32_t i = 0, before = -1; i < n; before = order[i++]) {
        const uint8_t *p = v->bytes + v->off[order[i]];
        int32_t len = (int32_t)length(v, order[i]), same = 0;
        while (before >= 0 && same < MIN(len, depth) &&
               p[same] == v->bytes[v->off[before] + (uint32_t)same])
            same++;
        if (before >= 0 && same == len && same == depth) {
            v->same[before] = order[i];
            continue;
        }
        while (depth > same) v->nodes[path[depth--]].end = v->n_nodes;
        while (depth < len) {
            if (v->n_nodes == cap)
                v->nodes = xrealloc(v->nodes, (size_t)(cap *= 2) * sizeof *v->nodes);
            v->nodes[v->n_nodes] = (struct token_node){0, -1, (uint16_t)(depth + 1), p[depth]};
            path[++depth] = v->n_nodes++;
        }
        v->nodes[path[depth]].token = order[i];
        v->longest = MAX(v->longest, len);
    }
    while (depth >= 0) v->nodes[path[depth--]].end = v->n_nodes;
}

/* ---- what stands below a node ---- */

/* Bytes that grammars seldom tell apart are of one group. */
static const char *const groups[] = {
    "abcdef", "ghijklmnopqrstuvwxyz", "ABCDEF", "GHIJKLMNOPQRSTUVWXYZ", "0123456789", " ", "\n", "\t",
    "\r",     "\"",                   "\\",     "/",                    "_",          "-", ".",  ",",
    ":",      "'",                    "<",      ">",                    "[]",         "{}", "()", "=+*;!?",
};

uint8_t eng_vocab_kind(uint8_t byte)
{
    for (uint8_t i = 0; byte && i < COUNT_OF(groups); i++)
        if (strchr(groups[i], byte)) return i;
    return KIND_OTHER;
}

/* The continuations of a character at node i: `left` more, the next of them in lo..hi. */
static uint32_t continued(const struct eng_grammar_vocab *v, int32_t i, int left, uint8_t lo, uint8_t hi)
{
    uint32_t kinds = 0;
    for (int32_t c = i + 1; c < v->nodes[i].end; c = v->nodes[c].end) {
        if (v->nodes[c].byte < lo || v->nodes[c].byte > hi)
            kinds |= 1u << KIND_BROKEN;
        else
            kinds |= left > 1 ? continued(v, c, left - 1, 0x80, 0xBF) : v->below[c];
    }
    return kinds;
}

static uint32_t kinds_from(const struct eng_grammar_vocab *v, int32_t c, const uint8_t *kind_of)
{
    const uint8_t b = v->nodes[c].byte;
    if (b < 0x80) return 1u << kind_of[b] | v->below[c];
    if (b < 0xC2 || b > 0xF4) return 1u << KIND_BROKEN;
    const uint8_t lo = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80,
                  hi = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    return 1u << KIND_WIDE | continued(v, c, b < 0xE0 ? 1 : b < 0xF0 ? 2 : 3, lo, hi);
}

/* Backwards: what is below a node is known before the node. */
static void look_below(struct eng_grammar_vocab *v)
{
    uint8_t kind_of[128];
    int32_t n = 0;
    v->below = xcalloc((size_t)v->n_nodes, sizeof *v->below);
    v->deepest = xmalloc((size_t)v->n_nodes * sizeof *v->deepest);
    v->rank = xmalloc(((size_t)v->n_nodes + 1) * sizeof *v->rank);
    v->ranked = xmalloc(((size_t)v->n + 1) * sizeof *v->ranked);
    for (int b = 0; b < 128; b++) kind_of[b] = eng_vocab_kind((uint8_t)b);
    for (int32_t i = v->n_nodes - 1; i >= 0; i--) {
        v->deepest[i] = v->nodes[i].depth;
        for (int32_t c = i + 1; c < v->nodes[i].end; c = v->nodes[c].end) {
            v->below[i] |= kinds_from(v, c, kind_of);
            v->deepest[i] = MAX(v->deepest[i], v->deepest[c]);
        }
    }
    for (int32_t i = 0; i < v->n_nodes; i++) {
        v->rank[i] = n;
        for (int32_t id = v->nodes[i].token; id >= 0; id = v->same[id]) v->ranked[n++] = id;
    }
    v->rank[v->n_nodes] = n;
    v->length = xmalloc((size_t)v->n + 1);
    for (int32_t i = 0; i < v->n; i++) v->length[i] = (uint8_t)MIN(length(v, i), (size_t)255);
}

void eng_grammar_vocab_open(struct eng_grammar_vocab **out, int32_t n, eng_token_bytes_fn bytes,
                            void *user, const int32_t *eog, int32_t n_eog)
{
    struct eng_grammar_vocab *v = xcalloc(1, sizeof *v);
    struct buf all = {0};
    int32_t *order = xmalloc(((size_t)n + 1) * sizeof *order), n_order = 0;
    v->n = n;
    v->off = xmalloc(((size_t)n + 1) * sizeof *v->off);
    v->same = xmalloc(((size_t)n + 1) * sizeof *v->same);
    v->is_eog = xcalloc((size_t)n / 64 + 1, sizeof *v->is_eog);
    v->eog = xmalloc(((size_t)n_eog + 1) * sizeof *v->eog);
    for (int32_t i = 0; i < n_eog; i++) {
        if (eog[i] < 0 || eog[i] >= n) continue;
        v->eog[v->n_eog++] = eog[i];
        v->is_eog[eog[i] / 64] |= 1ull << (eog[i] % 64);
    }
    for (int32_t i = 0; i < n; i++) {
        v->off[i] = (uint32_t)all.len;
        v->same[i] = -1;
        bool ends = v->is_eog[i / 64] >> (i % 64) & 1;
        if (!ends) bytes(user, i, &all);
        if (all.len - v->off[i] > TOKEN_MAX_BYTES) all.len = v->off[i];
        if (all.len > v->off[i]) order[n_order++] = i;
    }
    v->off[n] = (uint32_t)all.len;
    v->bytes = (uint8_t *)buf_take(&all);
    qsort_r(order, (size_t)n_order, sizeof *order, by_bytes, v);
    plant(v, order, n_order);
    look_below(v);
    free(order);
    *out = v;
}

void eng_grammar_vocab_bytes(const struct eng_grammar_vocab *v, const uint8_t **bytes,
                             const uint32_t **off)
{
    *bytes = v->bytes;
    *off = v->off;
}

void eng_grammar_vocab_close(struct eng_grammar_vocab *v)
{
    if (!v) return;
    free(v->nodes);
    free(v->below);
    free(v->deepest);
    free(v->length);
    free(v->ranked);
    free(v->rank);
    free(v->same);
    free(v->bytes);
    free(v->off);
    free(v->eog);
    free(v->is_eog);
    free(v);
}
