/* vocab_special.c: tokens that are cut out of a text before anything else, and those that end a
 * generation.
 *
 * A trie walked from every position that can begin one: leftmost, then longest. Its depth is
 * bounded so that a hostile vocabulary cannot make the search quadratic. */
#include "engine/text/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SPECIAL_LEN = 256 };

struct trie_node {
    int32_t child, sibling; /* 0: none (node 0 is the root, nobody's child) */
    int32_t id;             /* of the token that ends here, or -1 */
    uint8_t byte;
};

/* Tokens that end an answer in one family or another, whatever the file says of their type: a text
 * that merely spells one of them must not be able to end or begin a turn. */
static const char *const ends[] = {
    "<|eot_id|>",      "<|im_end|>",
    "<|end|>",         "<|endoftext|>",
    "<|eom_id|>",      "<|end_of_text|>",
    "<|eot|>",         "<end_of_turn>",
    "<EOT>",           "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>", "<|endofturn|>",
    "<|return|>",      "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
};

static int32_t node_new(struct vocab *v, uint8_t byte)
{
    if (v->n_trie == v->cap_trie) {
        v->cap_trie = v->cap_trie ? v->cap_trie * 2 : 256;
        v->trie = xrealloc(v->trie, sizeof *v->trie * (size_t)v->cap_trie);
    }
    v->trie[v->n_trie] = (struct trie_node){.id = -1, .byte = byte};
    return v->n_trie++;
}

static int32_t child_of(const struct vocab *v, int32_t at, uint8_t byte)
{
    int32_t c = v->trie[at].child;
    while (c && v->trie[c].byte != byte) c = v->trie[c].sibling;
    return c;
}

static void add(struct vocab *v, const char *p, size_t n, int32_t id)
{
    int32_t at = 0;
    if (!n || n > MAX_SPECIAL_LEN) return;
    for (size_t i = 0; i < n; i++) {
        int32_t c = child_of(v, at, (uint8_t)p[i]);
        if (!c) {
            c = node_new(v, (uint8_t)p[i]);
            v->trie[c].sibling = v->trie[at].child;
            v->trie[at].child = c;
        }
        at = c;
    }
    if (v->trie[at].id < 0) v->trie[at].id = id;
}

/* SentencePiece's user-defined tokens spell a space as U+2581, the text does not. */
static size_t unescape(char out[MAX_SPECIAL_LEN], struct text_span s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; n++) {
        bool space = i + 3 <= s.n && !memcmp(s.p + i, "\xE2\x96\x81", 3);
        out[n] = space ? ' ' : s.p[i];
        i += space ? 3 : 1;
    }
    return n;
}

static void add_eog(struct vocab *v, int32_t id)
{
    if (id < 0) return;
    int32_t i = 0;
    while (i < v->n_eog && v->eog[i] < id) i++;
    if (i < v->n_eog && v->eog[i] == id) return;
    memmove(v->eog + i + 1, v->eog + i, sizeof *v->eog * (size_t)(v->n_eog - i));
    v->eog[i] = id;
    v->n_eog++;
}

static void find_ends(struct vocab *v)
{
    v->eog = xmalloc(sizeof *v->eog * (COUNT_OF(ends) + 2));
    add_eog(v, v->eos);
    add_eog(v, v->eot);
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        int32_t id = vocab_find(v, ends[i], strlen(ends[i]));
        if (id < 0) continue;
        add_eog(v, id);
        v->type[id] = TOKEN_CONTROL;
    }
}

void vocab_special_open(struct vocab *v, bool spm)
{
    char text[MAX_SPECIAL_LEN];
    find_ends(v);
    node_new(v, 0);
    for (int32_t id = 0; id < v->n; id++) {
        struct text_span s = vocab_text(v, id);
        uint8_t type = v->type[id];
        if (s.n > MAX_SPECIAL_LEN) continue;
        if (spm && type == TOKEN_USER)
            add(v, text, unescape(text, s), id);
        else if (type == TOKEN_USER || type == TOKEN_CONTROL || type == TOKEN_UNKNOWN)
            add(v, s.p, s.n, id);
    }
}

int32_t vocab_special_at(const struct vocab *v, const char *p, size_t n, bool control, size_t *len)
{
    int32_t best = -1, at = 0;
    for (size_t i = 0; i < n; i++) {
        at = child_of(v, at, (uint8_t)p[i]);
        if (!at) break;
        int32_t id = v->trie[at].id;
        if (id < 0 || (!control && v->type[id] != TOKEN_USER)) continue;
        best = id;
        *len = i + 1;
    }
    return best;
}
