/* step_plan.c: the packed form of a step plan.
 *
 * Layout (little-endian): u16 layout version, u16 replica, u16 model, u32 epoch, u64 step, u32
 * flags, then six lists in the order in which they are applied (ends, starts, forks, tables,
 * copies, items), each an u32 count and its records. An input position is an i32 id, followed by
 * u64 step and i32 slot when the id is negative.
 *
 * I1  no allocation is larger than a constant times the bytes that are really there (scan_count).
 * I2  every slot, group, block, adapter and token id of an unpacked plan lies inside step_bounds.
 * I3  no two items of an unpacked plan are of one slot: arrays of n_slots hold what one step has for each.
 * Not here: whether the plan makes sense for the sequences in state (slot in use, table
 * contiguous): the engine's business. */
#include "proto/step_plan.h"
#include "proto/sampling_wire.h"
#include "proto/scan.h"

#include <inttypes.h>

enum {
    LAYOUT = 6,
    KNOWN_FLAGS = STEP_SLEEP | STEP_SHUTDOWN,
    KNOWN_OUT = OUT_SAMPLE | OUT_LOGITS | OUT_PROMPT | OUT_POOL | OUT_DRAFT
};

/* Fewest bytes of one record of each kind: what bounds a count before anything is allocated. */
enum {
    END_BYTES = 4,
    START_BYTES = 36 + SAMPLING_WIRE_BYTES,
    FORK_BYTES = 20,
    TABLE_BYTES = 16,
    COPY_BYTES = 12,
    ITEM_BYTES = 16,
    IN_BYTES = 4
};

static void put_i32(struct buf *out, int32_t v) { buf_u32(out, (uint32_t)v); }

/* ---- pack ---- */

static void pack_grammar(const struct grammar_source *g, struct buf *out)
{
    ASSERT(g->n >= 0 && g->n <= LIMIT_GRAMMAR_BYTES);
    put_i32(out, (int32_t)g->kind);
    if (g->kind == GRAMMAR_NONE) return;
    buf_u32(out, g->flags);
    buf_u64(out, g->hash);
    put_i32(out, g->n);
    buf_put(out, g->text, (size_t)g->n);
}

static void pack_starts(const struct step_plan *p, struct buf *out)
{
    put_i32(out, p->n_starts);
    for (int32_t i = 0; i < p->n_starts; i++) {
        const struct step_start *s = &p->starts[i];
        put_i32(out, s->slot);
        buf_u64(out, s->seq_id);
        sampling_pack(&s->sampling, out);
        put_i32(out, s->n_generated);
        put_i32(out, s->n_prompt);
        put_i32(out, (int32_t)s->pool);
        put_i32(out, s->adapter);
        put_i32(out, s->n_history);
        for (int32_t j = 0; j < s->n_history; j++) put_i32(out, s->history[j]);
        pack_grammar(&s->grammar, out);
    }
}

static void pack_forks(const struct step_plan *p, struct buf *out)
{
    put_i32(out, p->n_forks);
    for (int32_t i = 0; i < p->n_forks; i++) {
        put_i32(out, p->forks[i].src);
        put_i32(out, p->forks[i].dst);
        buf_u64(out, p->forks[i].seq_id);
        put_i32(out, p->forks[i].choice);
    }
}

static void pack_tables(const struct step_plan *p, struct buf *out)
{
    put_i32(out, p->n_tables);
    for (int32_t i = 0; i < p->n_tables; i++) {
        const struct step_table *t = &p->tables[i];
        put_i32(out, t->slot);
        put_i32(out, t->group);
        put_i32(out, t->first);
        put_i32(out, t->n);
        for (int32_t j = 0; j < t->n; j++) put_i32(out, t->ids[j]);
    }
}

static void pack_items(const struct step_plan *p, struct buf *out)
{
    put_i32(out, p->n_items);
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct step_item *it = &p->items[i];
        put_i32(out, it->slot);
        put_i32(out, it->pos);
        buf_u32(out, it->out);
        if (it->out & OUT_PROMPT) put_i32(out, it->next);
        if (it->out & OUT_DRAFT) put_i32(out, it->n_draft);
        put_i32(out, it->n_in);
        for (int32_t j = 0; j < it->n_in; j++) {
            put_i32(out, it->in[j].id);
            if (it->in[j].id >= 0) continue;
            buf_u64(out, it->in[j].ref_step);
            put_i32(out, it->in[j].ref_slot);
        }
    }
}

void step_plan_pack(const struct step_plan *p, struct buf *out)
{
    buf_u16(out, LAYOUT);
    buf_u16(out, p->replica);
    buf_u16(out, p->model);
    buf_u32(out, p->epoch);
    buf_u64(out, p->step);
    buf_u32(out, p->flags);
    put_i32(out, p->n_ends);
    for (int32_t i = 0; i < p->n_ends; i++) put_i32(out, p->ends[i].slot);
    pack_starts(p, out);
    pack_forks(p, out);
    pack_tables(p, out);
    put_i32(out, p->n_copies);
    for (int32_t i = 0; i < p->n_copies; i++) {
        put_i32(out, p->copies[i].group);
        put_i32(out, p->copies[i].src);
        put_i32(out, p->copies[i].dst);
    }
    pack_items(p, out);
}

/* ---- unpack ---- */

static enum err scan_slot(struct scan *in, const struct step_bounds *b, const char *field,
                          int32_t *out)
{
    return scan_i32(in, field, 0, b->n_slots - 1, out);
}

static enum err scan_ids(struct scan *in, const char *field, int32_t n, int32_t limit,
                         struct arena *a, const int32_t **out)
{
    enum err rc = OK;
    int32_t *ids = n ? arena_alloc(a, (size_t)n * sizeof *ids) : NULL;
    for (int32_t i = 0; i < n; i++) TRY(scan_i32(in, field, 0, limit - 1, &ids[i]));
    *out = ids;
out:
    return rc;
}

static enum err unpack_header(struct step_plan *p, struct scan *in)
{
    enum err rc = OK;
    uint16_t layout = 0;
    TRY(scan_u16(in, "layout", &layout));
    if (layout != LAYOUT) TRY(scan_refuse(in, "layout %u, this program reads %d", layout, LAYOUT));
    TRY(scan_u16(in, "replica", &p->replica));
    TRY(scan_u16(in, "model", &p->model));
    TRY(scan_u32(in, "epoch", &p->epoch));
    TRY(scan_u64(in, "step", &p->step));
    TRY(scan_flags(in, "flags", KNOWN_FLAGS, &p->flags));
    /* a plan that only says sleep or leave is no step and has no number */
    if (!p->step && !p->flags) TRY(scan_refuse(in, "step is 0, the first is 1"));
out:
    return rc;
}

static enum err unpack_ends(struct step_plan *p, struct scan *in, const struct step_bounds *b,
                            struct arena *a)
{
    enum err rc = OK;
    TRY(scan_count(in, "n_ends", b->n_slots, END_BYTES, &p->n_ends));
    if (p->n_ends) p->ends = arena_alloc(a, (size_t)p->n_ends * sizeof *p->ends);
    for (int32_t i = 0; i < p->n_ends; i++) {
        scan_at(in, "end", i);
        TRY(scan_slot(in, b, "slot", &p->ends[i].slot));
    }
out:
    return rc;
}

static enum err unpack_grammar(struct grammar_source *g, struct scan *in, struct arena *a)
{
    enum err rc = OK;
    int32_t kind;
    TRY(scan_i32(in, "grammar kind", GRAMMAR_NONE, GRAMMAR_LAST, &kind));
    g->kind = (enum grammar_kind)kind;
    if (g->kind == GRAMMAR_NONE) return OK;
    TRY(scan_flags(in, "grammar flags", GRAMMAR_FLAGS, &g->flags));
    TRY(scan_u64(in, "grammar hash", &g->hash));
    TRY(scan_count(in, "grammar bytes", LIMIT_GRAMMAR_BYTES, 1, &g->n));
    char *text = arena_alloc(a, (size_t)g->n + 1);
    TRY(scan_copy(in, "grammar", text, (size_t)g->n));
    g->text = text;
out:
    return rc;
}

static enum err unpack_starts(struct step_plan *p, struct scan *in, const struct step_bounds *b,
                              struct arena *a)
{
    enum err rc = OK;
    int32_t pool;
    TRY(scan_count(in, "n_starts", b->n_slots, START_BYTES, &p->n_starts));
    if (p->n_starts) p->starts = arena_alloc(a, (size_t)p->n_starts * sizeof *p->starts);
    for (int32_t i = 0; i < p->n_starts; i++) {
        struct step_start *s = &p->starts[i];
        scan_at(in, "start", i);
        TRY(scan_slot(in, b, "slot", &s->slot));
        TRY(scan_u64(in, "seq_id", &s->seq_id));
        TRY(sampling_unpack(&s->sampling, in, b->n_vocab, a));
        TRY(scan_i32(in, "n_generated", 0, b->context, &s->n_generated));
        TRY(scan_i32(in, "n_prompt", 0, b->context, &s->n_prompt));
        TRY(scan_i32(in, "pool", POOL_NONE, POOL_MEAN, &pool));
        s->pool = (enum step_pool)pool;
        TRY(scan_i32(in, "adapter", 0, b->n_adapters, &s->adapter));
        TRY(scan_count(in, "n_history", b->context, 4, &s->n_history));
        TRY(scan_ids(in, "history token", s->n_history, b->n_vocab, a, &s->history));
        TRY(unpack_grammar(&s->grammar, in, a));
    }
out:
    return rc;
}

static enum err unpack_forks(struct step_plan *p, struct scan *in, const struct step_bounds *b,
                             struct arena *a)
{
    enum err rc = OK;
    TRY(scan_count(in, "n_forks", b->n_slots, FORK_BYTES, &p->n_forks));
    if (p->n_forks) p->forks = arena_alloc(a, (size_t)p->n_forks * sizeof *p->forks);
    for (int32_t i = 0; i < p->n_forks; i++) {
        struct step_fork *f = &p->forks[i];
        scan_at(in, "fork", i);
        TRY(scan_slot(in, b, "src", &f->src));
        TRY(scan_slot(in, b, "dst", &f->dst));
        if (f->src == f->dst) TRY(scan_refuse(in, "src and dst are both slot %" PRId32, f->src));
        TRY(scan_u64(in, "seq_id", &f->seq_id));
        TRY(scan_i32(in, "choice", 0, INT32_MAX, &f->choice));
    }
out:
    return rc;
}

static enum err unpack_tables(struct step_plan *p, struct scan *in, const struct step_bounds *b,
                              struct arena *a)
{
    enum err rc = OK;
    const int32_t longest = DIV_UP(b->context, LIMIT_BLOCK_TOKENS);
    TRY(scan_count(in, "n_tables", (int64_t)b->n_slots * b->n_groups, TABLE_BYTES, &p->n_tables));
    if (p->n_tables) p->tables = arena_alloc(a, (size_t)p->n_tables * sizeof *p->tables);
    for (int32_t i = 0; i < p->n_tables; i++) {
        struct step_table *t = &p->tables[i];
        scan_at(in, "table", i);
        TRY(scan_slot(in, b, "slot", &t->slot));
        TRY(scan_i32(in, "group", 0, b->n_groups - 1, &t->group));
        TRY(scan_i32(in, "first", 0, longest, &t->first));
        TRY(scan_count(in, "n", longest - t->first, 4, &t->n));
        TRY(scan_ids(in, "block", t->n, b->n_blocks, a, &t->ids));
    }
out:
    return rc;
}

static enum err unpack_copies(struct step_plan *p, struct scan *in, const struct step_bounds *b,
                              struct arena *a)
{
    enum err rc = OK;
    TRY(scan_count(in, "n_copies", (int64_t)b->n_blocks * b->n_groups, COPY_BYTES, &p->n_copies));
    if (p->n_copies) p->copies = arena_alloc(a, (size_t)p->n_copies * sizeof *p->copies);
    for (int32_t i = 0; i < p->n_copies; i++) {
        struct step_copy *c = &p->copies[i];
        scan_at(in, "copy", i);
        TRY(scan_i32(in, "group", 0, b->n_groups - 1, &c->group));
        TRY(scan_i32(in, "src", 0, b->n_blocks - 1, &c->src));
        TRY(scan_i32(in, "dst", 0, b->n_blocks - 1, &c->dst));
    }
out:
    return rc;
}

static enum err unpack_inputs(struct step_item *it, uint64_t step, struct scan *in,
                              const struct step_bounds *b, struct arena *a)
{
    enum err rc = OK;
    struct step_in *v = arena_alloc(a, (size_t)it->n_in * sizeof *v);
    for (int32_t j = 0; j < it->n_in; j++) {
        TRY(scan_i32(in, "input id", INT32_MIN, b->n_vocab - 1, &v[j].id));
        if (v[j].id >= 0) continue;
        if (it->out & OUT_PROMPT)
            TRY(scan_refuse(in, "input %" PRId32 " is not known, though its log-probability is asked", j));
        if (it->out & OUT_DRAFT) TRY(scan_refuse(in, "input %" PRId32 " is not known, though guesses follow", j));
        TRY(scan_u64(in, "input step", &v[j].ref_step));
        if (!v[j].ref_step || v[j].ref_step >= step)
            TRY(scan_refuse(in,
                            "input %" PRId32 " is the output of step %" PRIu64
                            ", needed one before %" PRIu64,
                            j, v[j].ref_step, step));
        TRY(scan_slot(in, b, "input slot", &v[j].ref_slot));
    }
    it->in = v;
out:
    return rc;
}

static enum err scan_draft(struct scan *in, struct step_item *it)
{
    enum err rc = OK;
    if ((it->out & ~(uint32_t)OUT_DRAFT) != OUT_SAMPLE)
        TRY(scan_refuse(in, "guesses go with a sampled token and nothing else; out is %" PRIu32, it->out));
    TRY(scan_i32(in, "n_draft", 1, LIMIT_RESULT_TOKENS - 1, &it->n_draft));
out:
    return rc;
}

/* I3. taken: a bit for each slot that an item has named. */
static enum err take_slot(struct scan *in, uint64_t taken[LIMIT_SLOTS / 64], int32_t slot)
{
    const uint64_t bit = UINT64_C(1) << slot % 64;
    if (taken[slot / 64] & bit) return scan_refuse(in, "slot %" PRId32 " is named by two items", slot);
    taken[slot / 64] |= bit;
    return OK;
}

static enum err unpack_items(struct step_plan *p, struct scan *in, const struct step_bounds *b,
                             struct arena *a)
{
    enum err rc = OK;
    int32_t tokens = 0;
    uint64_t taken[LIMIT_SLOTS / 64] = {0};
    ASSERT(b->n_slots <= LIMIT_SLOTS);
    TRY(scan_count(in, "n_items", LIMIT_STEP_ITEMS, ITEM_BYTES + IN_BYTES, &p->n_items));
    if (p->n_items) p->items = arena_alloc(a, (size_t)p->n_items * sizeof *p->items);
    for (int32_t i = 0; i < p->n_items; i++) {
        struct step_item *it = &p->items[i];
        scan_at(in, "item", i);
        TRY(scan_slot(in, b, "slot", &it->slot));
        TRY(take_slot(in, taken, it->slot));
        TRY(scan_i32(in, "pos", 0, b->context - 1, &it->pos));
        TRY(scan_flags(in, "out", KNOWN_OUT, &it->out));
        it->next = -1;
        if (it->out & OUT_PROMPT) TRY(scan_i32(in, "next", -1, b->n_vocab - 1, &it->next));
        if (it->out & OUT_DRAFT) TRY(scan_draft(in, it));
        TRY(scan_count(in, "n_in", MIN(b->context - it->pos, LIMIT_STEP_TOKENS - tokens), IN_BYTES,
                       &it->n_in));
        if (!it->n_in) TRY(scan_refuse(in, "n_in is 0, an item has at least one input"));
        if (it->n_in <= it->n_draft) TRY(scan_refuse(in, "n_in is %" PRId32 ", and all of them are guesses", it->n_in));
        tokens += it->n_in;
        TRY(unpack_inputs(it, p->step, in, b, a));
    }
out:
    return rc;
}

enum err step_plan_unpack(struct step_plan *out, const void *data, size_t n,
                          const struct step_bounds *b, struct arena *a)
{
    enum err rc = OK;
    struct step_plan p = {0};
    struct scan in = scan_of("step plan", data, n);
    if (n > LIMIT_STEP_BYTES)
        TRY(scan_refuse(&in, "%zu bytes, at most %d are allowed", n, LIMIT_STEP_BYTES));
    TRY(unpack_header(&p, &in));
    TRY(unpack_ends(&p, &in, b, a));
    TRY(unpack_starts(&p, &in, b, a));
    TRY(unpack_forks(&p, &in, b, a));
    TRY(unpack_tables(&p, &in, b, a));
    TRY(unpack_copies(&p, &in, b, a));
    TRY(unpack_items(&p, &in, b, a));
    TRY(scan_end(&in));
    scan_at(&in, "header", -1);
    if (!p.step && (p.n_ends || p.n_starts || p.n_forks || p.n_tables || p.n_copies || p.n_items))
        TRY(scan_refuse(&in, "step is 0, the first is 1"));
    *out = p;
out:
    return rc;
}

int32_t step_plan_tokens(const struct step_plan *p)
{
    int32_t n = 0;
    for (int32_t i = 0; i < p->n_items; i++) n += p->items[i].n_in;
    return n;
}
