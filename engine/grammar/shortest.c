/* shortest.c: see shortest.h. */
#include "engine/grammar/shortest.h"

/* One byte on the way: the first class of bytes that leads closer. *work: by what was looked at, known before or not. */
static int32_t closer(struct machine *m, int32_t set, uint8_t *byte, int64_t *work)
{
    const int32_t need = m->sets[set].need - 1;
    for (int32_t c = 0; c < m->p->n_classes; c++) {
        *work += m->sets[set].n;
        int32_t to = eng_machine_step(m, set, m->p->sample[c]);
        if (to < 0 || m->sets[to].need != need) continue;
        *byte = m->p->sample[c];
        return to;
    }
    return SET_DEAD;
}

static int32_t child(const struct eng_grammar_vocab *v, int32_t node, uint8_t byte)
{
    const struct token_node *t = v->nodes;
    for (int32_t i = node + 1; i < t[node].end; i = t[i].end)
        if (t[i].byte == byte) return i;
    return -1;
}

int32_t eng_shortest_tokens(struct machine *m, const struct eng_grammar_vocab *v, int32_t set, int32_t most)
{
    int32_t n = 0;
    int64_t work = 0;
    if (m->sets[set].need > (int64_t)most * v->longest) return INT32_MAX;
    while (m->sets[set].need > 0) {
        if (n == most || work > SHORTEST_WORK) return INT32_MAX;
        int32_t at = set, node = 0, longest = SET_DEAD;
        uint8_t byte = 0;
        while (m->sets[at].need > 0) {
            at = closer(m, at, &byte, &work);
            if (at < 0 || (node = child(v, node, byte)) < 0) break;
            if (v->nodes[node].token >= 0) longest = at;
        }
        if (longest < 0) return INT32_MAX;
        set = longest;
        n++;
    }
    return n;
}
