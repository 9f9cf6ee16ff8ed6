/* sampling_wire.c: see sampling_wire.h. */
#include "proto/sampling_wire.h"

#include <float.h>

/* Every number, in the order of the wire: its type, its name, its range. A new one goes here, and LAYOUT (step_plan.c) and SAMPLING_WIRE_BYTES change with
 * it. */
#define NUMBERS(X)                                \
    X(f32, temperature, 0, FLT_MAX)               \
    X(f32, top_p, FLT_MIN, 1)                     \
    X(f32, min_p, 0, 1)                           \
    X(f32, typical_p, FLT_MIN, 1)                 \
    X(i32, top_k, 0, INT32_MAX)                   \
    X(f32, presence_penalty, -2, 2)               \
    X(f32, frequency_penalty, -2, 2)              \
    X(f32, repetition_penalty, FLT_MIN, FLT_MAX)  \
    X(i32, penalty_last_n, -1, INT32_MAX)         \
    X(f32, dry_multiplier, 0, FLT_MAX)            \
    X(f32, dry_base, 1, FLT_MAX)                  \
    X(i32, dry_allowed_length, 0, INT32_MAX)      \
    X(i32, dry_last_n, -1, INT32_MAX)             \
    X(f32, xtc_probability, 0, 1)                 \
    X(f32, xtc_threshold, 0, 1)                   \
    X(u64, seed, 0, 0)                            \
    X(i32, choice, 0, INT32_MAX)                  \
    X(i32, n_logprobs, -1, LIMIT_LOGPROBS)        \
    X(i32, n_prompt_logprobs, -1, LIMIT_LOGPROBS) \
    X(i32, max_tokens, 1, INT32_MAX)              \
    X(i32, min_tokens, 0, INT32_MAX)              \
    X(bool, ignore_eos, 0, 0)                     \
    X(i32, think_budget, -1, INT32_MAX)           \
    X(bool, thinking, 0, 0)

#define PACK_f32(v) buf_f32(out, v);
#define PACK_i32(v) buf_u32(out, (uint32_t)(v));
#define PACK_u64(v) buf_u64(out, v);
#define PACK_bool(v) buf_u8(out, v);
#define PACK(type, name, lo, hi) PACK_##type(s->name)

#define SCAN_f32(name, lo, hi) TRY(scan_f32(in, #name, lo, hi, &s->name));
#define SCAN_i32(name, lo, hi) TRY(scan_i32(in, #name, lo, hi, &s->name));
#define SCAN_u64(name, lo, hi) TRY(scan_u64(in, #name, &s->name));
#define SCAN_bool(name, lo, hi) TRY(scan_bool(in, #name, &s->name));
#define SCAN(type, name, lo, hi) SCAN_##type(name, lo, hi)

#define BYTES_f32 4
#define BYTES_i32 4
#define BYTES_u64 8
#define BYTES_bool 1
#define BYTES(type, name, lo, hi) +BYTES_##type
enum { N_LISTS = 7 };
_Static_assert(SAMPLING_WIRE_BYTES == NUMBERS(BYTES) + 4 * N_LISTS, "numbers, and the lengths of lists");

static void pack_ids(const int32_t *ids, int32_t n, struct buf *out)
{
    buf_u32(out, (uint32_t)n);
    for (int32_t i = 0; i < n; i++) buf_u32(out, (uint32_t)ids[i]);
}

static void pack_numbers(const struct sampling *s, struct buf *out)
{
    NUMBERS(PACK)
}

void sampling_pack(const struct sampling *s, struct buf *out)
{
    ASSERT(s->n_stop_ids >= 0 && s->n_stop_ids <= LIMIT_STOP_IDS);
    ASSERT(s->n_bias >= 0 && s->n_bias <= LIMIT_LOGIT_BIAS);
    ASSERT(s->n_allowed >= 0 && s->n_allowed <= LIMIT_ALLOWED_IDS);
    ASSERT(s->n_bad >= 0 && s->n_bad <= LIMIT_BAD_IDS);
    ASSERT(s->n_breakers >= 0 && s->n_breakers <= LIMIT_BREAKER_BYTES);
    pack_numbers(s, out);
    pack_ids(s->stop_ids, s->n_stop_ids, out);
    pack_ids(s->think_open, s->n_think_open, out);
    pack_ids(s->think_close, s->n_think_close, out);
    buf_u32(out, (uint32_t)s->n_bias);
    for (int32_t i = 0; i < s->n_bias; i++) {
        buf_u32(out, (uint32_t)s->bias[i].id);
        buf_f32(out, s->bias[i].bias);
    }
    pack_ids(s->allowed, s->n_allowed, out);
    pack_ids(s->bad, s->n_bad, out);
    buf_u32(out, (uint32_t)s->n_breakers);
    buf_put(out, s->breakers, (size_t)s->n_breakers);
}

static enum err scan_numbers(struct sampling *s, struct scan *in)
{
    enum err rc = OK;
    NUMBERS(SCAN)
out:
    return rc;
}

/* *ids: an array of `limit`, or NULL: allocated. */
static enum err scan_ids(struct scan *in, const char *field, int32_t limit, int32_t n_vocab,
                         struct arena *a, int32_t **ids, int32_t *n)
{
    enum err rc = OK;
    TRY(scan_count(in, field, limit, 4, n));
    if (!*ids && *n) *ids = arena_alloc(a, (size_t)*n * sizeof **ids);
    for (int32_t i = 0; i < *n; i++) TRY(scan_i32(in, field, 0, n_vocab - 1, &(*ids)[i]));
out:
    return rc;
}

/* Runs of ids behind their lengths. */
static enum err scan_bad(struct sampling *s, struct scan *in, int32_t n_vocab, struct arena *a)
{
    enum err rc = OK;
    TRY(scan_count(in, "bad word ids", LIMIT_BAD_IDS, 4, &s->n_bad));
    if (s->n_bad) s->bad = arena_alloc(a, (size_t)s->n_bad * sizeof *s->bad);
    for (int32_t i = 0, left = 0; i < s->n_bad; i++) {
        if (left) {
            TRY(scan_i32(in, "bad word id", 0, n_vocab - 1, &s->bad[i]));
            left--;
        } else {
            TRY(scan_i32(in, "bad word length", 1, s->n_bad - i - 1, &left));
            s->bad[i] = left;
        }
    }
out:
    return rc;
}

static enum err scan_breakers(struct sampling *s, struct scan *in, struct arena *a)
{
    enum err rc = OK;
    TRY(scan_count(in, "breaker bytes", LIMIT_BREAKER_BYTES, 1, &s->n_breakers));
    if (!s->n_breakers) return OK;
    s->breakers = arena_alloc(a, (size_t)s->n_breakers);
    TRY(scan_copy(in, "breakers", s->breakers, (size_t)s->n_breakers));
    for (int32_t i = 0, n; i < s->n_breakers; i += n + 1) {
        n = (uint8_t)s->breakers[i];
        if (!n || n >= s->n_breakers - i)
            TRY(scan_refuse(in, "a breaker has %d bytes, needed 1..%d", n, s->n_breakers - i - 1));
    }
out:
    return rc;
}

enum err sampling_unpack(struct sampling *out, struct scan *in, int32_t n_vocab, struct arena *a)
{
    enum err rc = OK;
    struct sampling s = {0};
    int32_t *stop = s.stop_ids, *open = s.think_open, *close = s.think_close;
    TRY(scan_numbers(&s, in));
    TRY(scan_ids(in, "stop id", LIMIT_STOP_IDS, n_vocab, a, &stop, &s.n_stop_ids));
    TRY(scan_ids(in, "think_open id", LIMIT_THINK_IDS, n_vocab, a, &open, &s.n_think_open));
    TRY(scan_ids(in, "think_close id", LIMIT_THINK_IDS, n_vocab, a, &close, &s.n_think_close));
    TRY(scan_count(in, "n_bias", LIMIT_LOGIT_BIAS, 8, &s.n_bias));
    if (s.n_bias) s.bias = arena_alloc(a, (size_t)s.n_bias * sizeof *s.bias);
    for (int32_t i = 0; i < s.n_bias; i++) {
        TRY(scan_i32(in, "bias id", 0, n_vocab - 1, &s.bias[i].id));
        TRY(scan_f32(in, "bias", -FLT_MAX, FLT_MAX, &s.bias[i].bias));
    }
    TRY(scan_ids(in, "allowed id", LIMIT_ALLOWED_IDS, n_vocab, a, &s.allowed, &s.n_allowed));
    TRY(scan_bad(&s, in, n_vocab, a));
    TRY(scan_breakers(&s, in, a));
    *out = s;
out:
    return rc;
}
