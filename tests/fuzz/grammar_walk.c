/* grammar_walk.c: see grammar_walk.h. */
#include "tests/fuzz/grammar_walk.h"

#include "base/rng.h"
#include "engine/grammar/grammar.h"

enum { BYTES = 256, STEPS = 60, MOST_SOURCE = 4096 };

static void one_byte(void *user, int32_t id, struct buf *out)
{
    (void)user;
    if (id < BYTES) buf_u8(out, (uint8_t)id);
}

static const struct eng_grammar_vocab *bytes(void)
{
    static struct eng_grammar_vocab *v; /* as long as the process */
    const int32_t end = BYTES;
    if (!v) eng_grammar_vocab_open(&v, BYTES + 1, one_byte, NULL, &end, 1);
    return v;
}

static int32_t pick(const uint64_t *mask, uint64_t dice)
{
    int32_t all[BYTES + 1], n = 0;
    for (int32_t i = 0; i <= BYTES; i++)
        if (mask[i / 64] >> (i % 64) & 1) all[n++] = i;
    ASSERT(n); /* a dead end */
    return all[dice % (uint64_t)n];
}

int grammar_walk(enum grammar_kind kind, const uint8_t *data, size_t n)
{
    struct eng_grammar *g;
    if (n > MOST_SOURCE) return 0;
    struct grammar_source src = {.kind = kind, .text = (const char *)data, .n = (int32_t)n};
    if (eng_grammar_compile(&g, &src, bytes())) {
        ASSERT(err_text()[0]);
        return 0;
    }
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    for (uint64_t i = 0; i < STEPS && !eng_grammar_ended(s); i++)
        ASSERT(eng_grammar_advance_token(s, pick(eng_grammar_mask(s), rng_at(n, i, 0, 0))));
    if (!eng_grammar_ended(s)) /* and the shortest way out is as long as it was said to be */
        for (int32_t left = eng_grammar_need(s); left > 0; left--)
            ASSERT(eng_grammar_advance_token(s, pick(eng_grammar_mask_within(s, left - 1), 0)));
    ASSERT(eng_grammar_accepts(s));
    eng_grammar_state_close(s);
    eng_grammar_close(g);
    return 0;
}
