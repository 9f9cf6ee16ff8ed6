/* step_result.c: the packed form of a step result.
 *
 * Layout (little-endian): u16 layout version, u32 epoch, u64 step, u32 compute_us, u32 comm_us, u64
 * comm_bytes, i32 n_vocab, u32 item count; per item i32 slot, u32 finish, u32 token count, the
 * tokens (i32 id, f32 logprob, u32 count and pairs of the best), u32 rows of logits and the rows as
 * f32, u32 count of scores (i32 id, f32 logprob, i32 rank, u32 count and pairs of the best), u32
 * length of a pooled vector and the vector. Only what is there is sent: a decode step costs 36 bytes
 * per sequence. Same invariants as step_plan.c. */
#include "proto/step_result.h"
#include "proto/scan.h"

#include <inttypes.h>

enum { LAYOUT = 3, ITEM_BYTES = 24, TOKEN_BYTES = 12, SCORE_BYTES = 16, TOP_BYTES = 8 };

/* Rows of logits travel as the host's floats. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "a big-endian host needs a conversion of the logits");

static void put_i32(struct buf *out, int32_t v) { buf_u32(out, (uint32_t)v); }

static void pack_top(const struct result_logprob *top, int32_t n, struct buf *out)
{
    ASSERT(n >= 0 && n <= LIMIT_LOGPROBS);
    put_i32(out, n);
    for (int32_t i = 0; i < n; i++) {
        put_i32(out, top[i].id);
        buf_f32(out, top[i].logprob);
    }
}

static void pack_token(const struct result_token *t, struct buf *out)
{
    put_i32(out, t->id);
    buf_f32(out, t->logprob);
    pack_top(t->top, t->n_top, out);
}

static void pack_score(const struct result_score *s, struct buf *out)
{
    put_i32(out, s->id);
    buf_f32(out, s->logprob);
    put_i32(out, s->rank);
    pack_top(s->top, s->n_top, out);
}

void step_result_pack(const struct step_result *r, struct buf *out)
{
    buf_u16(out, LAYOUT);
    buf_u32(out, r->epoch);
    buf_u64(out, r->step);
    buf_u32(out, r->compute_us);
    buf_u32(out, r->comm_us);
    buf_u64(out, r->comm_bytes);
    put_i32(out, r->n_vocab);
    put_i32(out, r->n_items);
    for (int32_t i = 0; i < r->n_items; i++) {
        const struct result_item *it = &r->items[i];
        ASSERT(it->n_tokens >= 0 && it->n_tokens <= LIMIT_RESULT_TOKENS && it->n_logit_rows >= 0);
        put_i32(out, it->slot);
        buf_u32(out, (uint32_t)it->finish);
        put_i32(out, it->n_tokens);
        for (int32_t j = 0; j < it->n_tokens; j++) pack_token(&it->tokens[j], out);
        put_i32(out, it->n_logit_rows);
        buf_put(out, it->logits, (size_t)it->n_logit_rows * (size_t)r->n_vocab * sizeof(float));
        put_i32(out, it->n_scores);
        for (int32_t j = 0; j < it->n_scores; j++) pack_score(&it->scores[j], out);
        ASSERT(it->n_pooled >= 0 && it->n_pooled <= LIMIT_POOLED);
        put_i32(out, it->n_pooled);
        buf_put(out, it->pooled, (size_t)it->n_pooled * sizeof(float));
    }
}

static enum err unpack_top(struct result_logprob top[], int32_t n, struct scan *in)
{
    enum err rc = OK;
    for (int32_t i = 0; i < n; i++) {
        TRY(scan_i32(in, "top id", 0, INT32_MAX, &top[i].id));
        TRY(scan_f32_any(in, "top logprob", &top[i].logprob));
    }
out:
    return rc;
}

static enum err unpack_token(struct result_token *t, struct scan *in)
{
    enum err rc = OK;
    TRY(scan_i32(in, "token id", 0, INT32_MAX, &t->id));
    TRY(scan_f32_any(in, "logprob", &t->logprob));
    TRY(scan_count(in, "n_top", LIMIT_LOGPROBS, TOP_BYTES, &t->n_top));
    TRY(unpack_top(t->top, t->n_top, in));
out:
    return rc;
}

static enum err unpack_score(struct result_score *s, struct scan *in, struct arena *a)
{
    enum err rc = OK;
    TRY(scan_i32(in, "score id", 0, INT32_MAX, &s->id));
    TRY(scan_f32_any(in, "score", &s->logprob));
    TRY(scan_i32(in, "rank", 1, INT32_MAX, &s->rank));
    TRY(scan_count(in, "n_top of a score", LIMIT_LOGPROBS, TOP_BYTES, &s->n_top));
    struct result_logprob *top = s->n_top ? arena_alloc(a, (size_t)s->n_top * sizeof *top) : NULL;
    TRY(unpack_top(top, s->n_top, in));
    s->top = top;
out:
    return rc;
}

static enum err unpack_scores(struct result_item *it, struct scan *in, struct arena *a)
{
    enum err rc = OK;
    TRY(scan_count(in, "n_scores", LIMIT_STEP_TOKENS, SCORE_BYTES, &it->n_scores));
    struct result_score *s = it->n_scores ? arena_alloc(a, (size_t)it->n_scores * sizeof *s) : NULL;
    for (int32_t i = 0; i < it->n_scores; i++) TRY(unpack_score(&s[i], in, a));
    it->scores = s;
out:
    return rc;
}

static enum err unpack_logits(struct result_item *it, int32_t n_vocab, struct scan *in,
                              struct arena *a)
{
    enum err rc = OK;
    const size_t row = (size_t)n_vocab * sizeof(float);
    TRY(scan_count(in, "n_logit_rows", n_vocab ? LIMIT_STEP_TOKENS : 0, row, &it->n_logit_rows));
    if (!it->n_logit_rows) return OK;
    float *rows = arena_alloc(a, (size_t)it->n_logit_rows * row);
    TRY(scan_copy(in, "logits", rows, (size_t)it->n_logit_rows * row));
    it->logits = rows;
out:
    return rc;
}

static enum err unpack_pooled(struct result_item *it, struct scan *in, struct arena *a)
{
    enum err rc = OK;
    TRY(scan_count(in, "n_pooled", LIMIT_POOLED, sizeof(float), &it->n_pooled));
    if (!it->n_pooled) return OK;
    float *v = arena_alloc(a, (size_t)it->n_pooled * sizeof *v);
    TRY(scan_copy(in, "pooled", v, (size_t)it->n_pooled * sizeof *v));
    it->pooled = v;
out:
    return rc;
}

static enum err unpack_item(struct result_item *it, int32_t n_vocab, struct scan *in,
                            struct arena *a)
{
    enum err rc = OK;
    int32_t finish = 0;
    TRY(scan_i32(in, "slot", 0, LIMIT_SLOTS - 1, &it->slot));
    TRY(scan_i32(in, "finish", FINISH_NONE, FINISH_LENGTH, &finish));
    it->finish = (enum seq_finish)finish;
    TRY(scan_count(in, "n_tokens", LIMIT_RESULT_TOKENS, TOKEN_BYTES, &it->n_tokens));
    for (int32_t j = 0; j < it->n_tokens; j++) TRY(unpack_token(&it->tokens[j], in));
    TRY(unpack_logits(it, n_vocab, in, a));
    TRY(unpack_scores(it, in, a));
    TRY(unpack_pooled(it, in, a));
out:
    return rc;
}

static enum err unpack_header(struct step_result *r, struct scan *in)
{
    enum err rc = OK;
    uint16_t layout = 0;
    TRY(scan_u16(in, "layout", &layout));
    if (layout != LAYOUT) TRY(scan_refuse(in, "layout %u, this program reads %d", layout, LAYOUT));
    TRY(scan_u32(in, "epoch", &r->epoch));
    TRY(scan_u64(in, "step", &r->step));
    if (!r->step) TRY(scan_refuse(in, "step is 0, the first is 1"));
    TRY(scan_u32(in, "compute_us", &r->compute_us));
    TRY(scan_u32(in, "comm_us", &r->comm_us));
    TRY(scan_u64(in, "comm_bytes", &r->comm_bytes));
    TRY(scan_i32(in, "n_vocab", 0, INT32_MAX, &r->n_vocab));
    TRY(scan_count(in, "n_items", LIMIT_STEP_ITEMS, ITEM_BYTES, &r->n_items));
out:
    return rc;
}

enum err step_result_unpack(struct step_result *out, const void *data, size_t n, struct arena *a)
{
    enum err rc = OK;
    struct step_result r = {0};
    struct scan in = scan_of("step result", data, n);
    if (n > LIMIT_FRAME_BYTES)
        TRY(scan_refuse(&in, "%zu bytes, at most %d are allowed", n, LIMIT_FRAME_BYTES));
    TRY(unpack_header(&r, &in));
    if (r.n_items) r.items = arena_alloc(a, (size_t)r.n_items * sizeof *r.items);
    for (int32_t i = 0; i < r.n_items; i++) {
        scan_at(&in, "item", i);
        TRY(unpack_item(&r.items[i], r.n_vocab, &in, a));
    }
    TRY(scan_end(&in));
    *out = r;
out:
    return rc;
}
