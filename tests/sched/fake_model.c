/* fake_model.c: see fake_model.h. */
#include "tests/sched/fake_model.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

uint64_t fake_state(uint64_t before, int32_t token)
{
    return rng_at(before, (uint64_t)token, 1, 2);
}

bool fake_stops(const struct sampling *p, int32_t token)
{
    for (int32_t i = 0; i < p->n_stop_ids; i++)
        if (p->stop_ids[i] == token) return true;
    return false;
}

int32_t fake_next(uint64_t state, const struct sampling *p, int32_t n_generated,
                  const int32_t *history, int32_t n_history)
{
    uint64_t h = rng_at(state, p->seed, (uint64_t)p->choice, (uint64_t)n_generated);
    if (sampling_needs_history(p))
        for (int32_t i = 0; i < n_history; i++) h = rng_mix(h ^ (uint64_t)history[i]);
    for (int32_t i = 0; i < p->n_bias; i++) h ^= rng_at(3, (uint64_t)p->bias[i].id, 0, 0);
    int32_t token = (int32_t)(h % FAKE_VOCAB);
    if (fake_repeats(p) && h >> 32 & 7) token = 20 + n_generated % FAKE_PERIOD;
    while (n_generated < p->min_tokens && fake_stops(p, token)) token = (token + 1) % FAKE_VOCAB;
    return token;
}

void fake_row(uint64_t state, int32_t pos, float row[FAKE_ROW])
{
    row[0] = (float)pos;
    row[1] = (float)(state & 0xffff);
}

int32_t fake_alone(const struct gen_request *r, int32_t choice, int32_t *out,
                   enum seq_finish *finish)
{
    struct sampling p = r->sampling;
    uint64_t state = 0;
    int32_t n = 0, *all = malloc(((size_t)r->n_prompt + (size_t)p.max_tokens) * sizeof *all);
    p.choice += choice;
    memcpy(all, r->prompt, (size_t)r->n_prompt * sizeof *all);
    for (int32_t i = 0; i < r->n_prompt; i++) state = fake_state(state, all[i]);
    for (*finish = FINISH_NONE; *finish == FINISH_NONE;) {
        int32_t token = fake_next(state, &p, n, all, r->n_prompt + n);
        all[r->n_prompt + n] = token;
        out[n++] = token;
        state = fake_state(state, token);
        if (fake_stops(&p, token))
            *finish = FINISH_STOP;
        else if (n == p.max_tokens)
            *finish = FINISH_LENGTH;
    }
    free(all);
    return n;
}

void fake_pooled(uint64_t state, float v[FAKE_POOLED])
{
    for (int32_t i = 0; i < FAKE_POOLED; i++) v[i] = (float)(state >> (16 * i) & 0xffff);
}

uint64_t fake_pool_alone(const struct gen_request *r)
{
    uint64_t state = 0, sum = 0;
    for (int32_t i = 0; i < r->n_prompt; i++) sum += state = fake_state(state, r->prompt[i]);
    return r->pool == POOL_MEAN ? sum : state;
}
