/* sequence.c: see sequence.h. */
#include "tests/support/sequence.h"

#include <stdlib.h>
#include <string.h>

void sequence_free(struct sequence *s)
{
    free(s->tokens);
    free(s->logits);
    free(s->chosen);
    free(s->pooled);
    free(s->scores);
    s->scores = NULL;
    s->pooled = NULL, s->tokens = NULL, s->logits = NULL, s->chosen = NULL;
}

static uint64_t next_step = 1;

enum err sequence_run(struct local_replica *r, struct sequence s[], int32_t n, bool want_logits)
{
    enum err rc = OK;
    struct step_bounds b;
    local_replica_bounds(r, &b);
    int32_t done[64] = {0}, known[64], live = n;
    ASSERT(n <= 64);
    for (int32_t i = 0; i < n; i++) {
        size_t total = (size_t)(s[i].n_prompt + s[i].n_gen);
        s[i].tokens = xcalloc(total + 1, sizeof(int32_t));
        memcpy(s[i].tokens, s[i].prompt, (size_t)s[i].n_prompt * sizeof(int32_t));
        s[i].logits = want_logits ? xcalloc(total, (size_t)b.n_vocab * sizeof(float)) : NULL;
        s[i].chosen = xcalloc((size_t)s[i].n_gen + 1, sizeof *s[i].chosen);
        known[i] = s[i].n_prompt;
        s[i].scores = xcalloc((size_t)s[i].n_prompt + 1, sizeof *s[i].scores);
        s[i].n_scores = s[i].n_made = s[i].n_steps = s[i].n_right = 0;
    }
    for (bool first = true; live; first = false) {
        struct arena a = {0};
        struct step_plan p = {.epoch = 1, .step = next_step++};
        struct step_result res;
        int32_t who[64], block = 0;
        p.items = arena_alloc(&a, (size_t)n * sizeof *p.items);
        p.starts = arena_alloc(&a, (size_t)n * sizeof *p.starts);
        p.tables = arena_alloc(&a, (size_t)(n * b.n_groups) * sizeof *p.tables);
        for (int32_t i = 0; i < n && first; i++) {
            int32_t each = DIV_UP(s[i].n_prompt + s[i].n_gen, 16), blocks = each * b.n_groups, *ids = arena_alloc(&a, (size_t)blocks * sizeof *ids);
            /* scrambled, so that nothing relies on neighbouring blocks */
            for (int32_t k = 0; k < blocks; k++) ids[k] = b.n_blocks - 1 - (block + (k ^ 1) % MAX(blocks, 1));
            if (blocks % 2) ids[blocks - 1] = b.n_blocks - 1 - (block + blocks - 1);
            block += blocks;
            ASSERT(block <= b.n_blocks);
            p.starts[p.n_starts++] = (struct step_start){
                .slot = i, .seq_id = (uint64_t)i + 1, .sampling = s[i].sampling, .n_prompt = s[i].n_prompt - s[i].n_before, .pool = s[i].pool,
                .adapter = s[i].adapter,
                .n_generated = s[i].n_before, .n_history = sampling_needs_history(&s[i].sampling) ? s[i].n_prompt : 0, .history = s[i].prompt,
                .grammar = s[i].grammar};
            if (s[i].grammar.kind && !p.starts[i].n_history) {
                p.starts[i].n_history = s[i].n_before;
                p.starts[i].history = s[i].prompt + s[i].n_prompt - s[i].n_before;
            }
            for (int32_t g = 0; g < b.n_groups; g++)
                p.tables[p.n_tables++] = (struct step_table){.slot = i, .group = g, .first = 0, .n = each, .ids = ids + g * each};
        }
        for (int32_t i = 0; i < n; i++) {
            if (done[i] >= s[i].n_prompt + MAX(s[i].n_gen - 1, 0)) continue;
            int32_t n_in = done[i] < s[i].n_prompt ? MIN(s[i].n_prompt - done[i], s[i].chunk ? s[i].chunk : s[i].n_prompt) : 1;
            int32_t made = known[i] - s[i].n_prompt, n_draft = s[i].likely && made ? MIN(s[i].draft, s[i].n_gen - made - 1) : 0;
            struct step_in *in = arena_alloc(&a, (size_t)(n_in + n_draft) * sizeof *in);
            for (int32_t k = 0; k < n_in; k++) in[k].id = s[i].tokens[done[i] + k];
            for (int32_t k = 0; k < n_draft; k++) in[n_in + k].id = s[i].likely[made + k];
            bool sample = done[i] + n_in >= s[i].n_prompt && s[i].n_gen;
            bool pools = s[i].pool == POOL_MEAN || (s[i].pool && done[i] + n_in == s[i].n_prompt);
            bool scored = s[i].sampling.n_prompt_logprobs >= 0 && done[i] < s[i].n_prompt;
            who[p.n_items] = i;
            p.items[p.n_items++] = (struct step_item){.slot = i, .pos = done[i], .n_in = n_in + n_draft, .n_draft = n_draft, .in = in,
                                                      .next = done[i] + n_in < s[i].n_prompt ? s[i].tokens[done[i] + n_in] : -1,
                                                      .out = (n_draft ? OUT_DRAFT : 0) | (scored ? OUT_PROMPT : 0) |
                                                             (sample ? OUT_SAMPLE : 0) | (want_logits ? OUT_LOGITS : 0) |
                                                             (pools ? OUT_POOL : 0)};
        }
        rc = local_replica_step(r, &p, &a, &res);
        for (int32_t k = 0; k < p.n_items && !rc; k++) {
            int32_t i = who[k];
            if (want_logits)
                memcpy(s[i].logits + (size_t)done[i] * (size_t)b.n_vocab, res.items[k].logits,
                       (size_t)p.items[k].n_in * (size_t)b.n_vocab * sizeof(float));
            done[i] += p.items[k].n_in - p.items[k].n_draft + MAX(res.items[k].n_tokens - 1, 0);
            for (int32_t j = 0; j < res.items[k].n_scores; j++) {
                const struct result_score *from = &res.items[k].scores[j];
                struct sequence_score *to = &s[i].scores[s[i].n_scores++];
                *to = (struct sequence_score){.id = from->id, .rank = from->rank, .n_top = from->n_top, .logprob = from->logprob};
                if (from->n_top) memcpy(to->top, from->top, (size_t)from->n_top * sizeof *from->top);
            }
            if (res.items[k].n_pooled) {
                size_t bytes = (size_t)(s[i].n_pooled = res.items[k].n_pooled) * sizeof(float);
                s[i].pooled = memcpy(xmalloc(bytes), res.items[k].pooled, bytes);
            }
            for (int32_t j = 0; j < res.items[k].n_tokens; j++) {
                s[i].chosen[s[i].n_made++] = res.items[k].tokens[j];
                s[i].tokens[known[i]++] = res.items[k].tokens[j].id;
            }
            s[i].n_steps += res.items[k].n_tokens > 0;
            s[i].n_right += MAX(res.items[k].n_tokens - 1, 0);
            if (done[i] >= s[i].n_prompt + MAX(s[i].n_gen - 1, 0) || res.items[k].finish) {
                done[i] = 1 << 30;
                live--;
            }
        }
        arena_free(&a);
        if (rc) return rc;
    }
    struct arena a = {0};
    struct step_plan p = {.epoch = 1, .step = next_step++, .n_ends = n, .ends = arena_alloc(&a, (size_t)n * sizeof *p.ends)};
    struct step_result res;
    for (int32_t i = 0; i < n; i++) p.ends[i].slot = i;
    rc = local_replica_step(r, &p, &a, &res);
    arena_free(&a);
    return rc;
}
