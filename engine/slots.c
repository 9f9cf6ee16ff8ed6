/* slots.c: see slots.h. */
#include "engine/slots.h"

#include <stdlib.h>
#include <string.h>

void eng_slots_open(struct eng_slots *s, int32_t n_slots, int32_t context, const struct kv_groups *groups)
{
    s->n_slots = n_slots;
    s->max_blocks = DIV_UP(context, LIMIT_BLOCK_TOKENS);
    s->slots = xcalloc((size_t)n_slots, sizeof *s->slots);
    s->groups = *groups;
    s->tables = xcalloc((size_t)n_slots * (size_t)groups->n * (size_t)s->max_blocks, sizeof *s->tables);
    for (int32_t i = 0; i < n_slots; i++)
        for (int32_t g = 0; g < groups->n; g++)
            s->slots[i].table[g] = s->tables + ((size_t)i * (size_t)groups->n + (size_t)g) * (size_t)s->max_blocks;
}

static void clear(struct eng_slot *s)
{
    int32_t *table[LIMIT_GROUPS];
    memcpy(table, s->table, sizeof table);
    sampling_free(&s->sampling);
    free(s->history);
    eng_constraint_close(s->constraint);
    free(s->pool_sum);
    *s = (struct eng_slot){.last_token = -1};
    memcpy(s->table, table, sizeof table);
}

void eng_slots_clear(struct eng_slots *s)
{
    for (int32_t i = 0; s->slots && i < s->n_slots; i++) clear(&s->slots[i]);
}

void eng_slots_close(struct eng_slots *s)
{
    eng_slots_clear(s);
    free(s->slots);
    free(s->tables);
    *s = (struct eng_slots){0};
}

static void remember(struct eng_slot *s, const int32_t *tokens, int32_t n)
{
    if (s->n_history + n > s->cap_history) {
        s->cap_history = MAX(s->n_history + n + 256, 2 * s->cap_history);
        s->history = xrealloc(s->history, (size_t)s->cap_history * sizeof *s->history);
    }
    if (n) memcpy(s->history + s->n_history, tokens, (size_t)n * sizeof *tokens);
    s->n_history += n;
}

static enum err start(struct eng_slots *s, const struct step_start *r)
{
    struct eng_slot *slot = &s->slots[r->slot];
    if (slot->used)
        return err_raise(ERR_LINK_PROTOCOL, "start of sequence %llu in slot %d, which holds sequence %llu",
                         (unsigned long long)r->seq_id, r->slot, (unsigned long long)slot->seq_id);
    clear(slot);
    slot->used = true;
    slot->seq_id = r->seq_id;
    slot->sampling = sampling_copy(&r->sampling);
    slot->n_prompt = r->n_prompt;
    slot->n_generated = r->n_generated;
    slot->pool = r->pool;
    slot->adapter = r->adapter;
    if (r->pool == POOL_MEAN && s->pool_dim) slot->pool_sum = xcalloc((size_t)s->pool_dim, sizeof(float));
    if (sampling_needs_history(&r->sampling)) remember(slot, r->history, r->n_history);
    if (r->grammar.kind == GRAMMAR_NONE || !s->constraints) return OK;
    if (r->n_history < r->n_generated)
        return err_raise(ERR_LINK_PROTOCOL, "start of sequence %llu: %d tokens are sent along, the grammar needs the %d generated ones",
                         (unsigned long long)r->seq_id, r->n_history, r->n_generated);
    return eng_constraint_open(&slot->constraint, s->constraints, &r->grammar, r->n_generated ? r->history + r->n_history - r->n_generated : NULL,
                               r->n_generated);
}

static enum err fork_slot(struct eng_slots *s, const struct step_fork *r)
{
    struct eng_slot *src = &s->slots[r->src], *dst = &s->slots[r->dst];
    if (!src->used || dst->used || src->pool)
        return err_raise(ERR_LINK_PROTOCOL, "fork of slot %d into slot %d: the first must be used (and not pooled) and the second free", r->src,
                         r->dst);
    clear(dst);
    int32_t *table[LIMIT_GROUPS];
    memcpy(table, dst->table, sizeof table);
    *dst = *src;
    memcpy(dst->table, table, sizeof table);
    memset(dst->n_table, 0, sizeof dst->n_table); /* its blocks come by table deltas */
    dst->seq_id = r->seq_id;
    dst->sampling = sampling_copy(&src->sampling);
    dst->sampling.choice = r->choice;
    dst->constraint = eng_constraint_copy(src->constraint);
    dst->history = NULL;
    dst->n_history = dst->cap_history = 0;
    remember(dst, src->history, src->n_history);
    return OK;
}

static enum err extend(struct eng_slots *s, const struct step_table *r)
{
    struct eng_slot *slot = &s->slots[r->slot];
    int32_t *table = slot->table[r->group], *n = &slot->n_table[r->group];
    bool gap = r->group >= s->groups.n_full && !*n; /* a windowed table may begin behind its window; some block must stand there */
    if (!slot->used || (r->first != *n && !gap) || r->n > s->max_blocks - r->first)
        return err_raise(ERR_LINK_PROTOCOL, "table %d of slot %d: %d blocks at %d, where %d stand and %d fit", r->group, r->slot, r->n, r->first,
                         *n, s->max_blocks);
    if (r->first > *n) memset(table, 0, (size_t)r->first * sizeof *table);
    memcpy(table + r->first, r->ids, (size_t)r->n * sizeof *r->ids);
    *n = r->first + r->n;
    return OK;
}

enum err eng_slots_apply(struct eng_slots *s, const struct step_plan *p)
{
    enum err rc = OK;
    for (int32_t i = 0; i < p->n_ends; i++) {
        struct eng_slot *slot = &s->slots[p->ends[i].slot];
        if (!slot->used) return err_raise(ERR_LINK_PROTOCOL, "end of slot %d, which holds no sequence", p->ends[i].slot);
        clear(slot);
    }
    for (int32_t i = 0; i < p->n_starts; i++) TRY(start(s, &p->starts[i]));
    for (int32_t i = 0; i < p->n_forks; i++) TRY(fork_slot(s, &p->forks[i]));
    for (int32_t i = 0; i < p->n_tables; i++) TRY(extend(s, &p->tables[i]));
out:
    return rc;
}

enum err eng_slots_of_item(struct eng_slots *s, const struct step_item *it, struct eng_slot **out)
{
    struct eng_slot *slot = &s->slots[it->slot];
    if (!slot->used) return err_raise(ERR_LINK_PROTOCOL, "an item names slot %d, which holds no sequence", it->slot);
    for (int32_t g = 0; g < s->groups.n; g++)
        if (it->pos + it->n_in > slot->n_table[g] * LIMIT_BLOCK_TOKENS)
            return err_raise(ERR_LINK_PROTOCOL, "slot %d: positions up to %d but only %d blocks in table %d", it->slot, it->pos + it->n_in,
                             slot->n_table[g], g);
    *out = slot;
    return OK;
}

enum seq_finish eng_slots_sampled(struct eng_slot *s, uint64_t step, int32_t token)
{
    s->last_token = token;
    s->last_step = step;
    s->n_generated++;
    if (sampling_needs_history(&s->sampling)) remember(s, &token, 1);
    if (s->constraint && eng_constraint_take(s->constraint, token)) {
        s->stopped = true; /* also where the request ignores ends: nothing may follow */
        return FINISH_STOP;
    }
    for (int32_t i = 0; i < s->sampling.n_stop_ids; i++)
        if (s->sampling.stop_ids[i] == token) {
            s->stopped = true;
            return FINISH_STOP;
        }
    if (s->n_generated >= s->sampling.max_tokens) {
        s->stopped = true;
        return FINISH_LENGTH;
    }
    return FINISH_NONE;
}
