/* sampling_wire.c: see sampling_wire.h. */
#include "proto/sampling_wire.h"

#include <float.h>

void sampling_pack(const struct sampling *s, struct buf *out)
{
    ASSERT(s->n_stop_ids >= 0 && s->n_stop_ids <= LIMIT_STOP_IDS);
    ASSERT(s->n_bias >= 0 && s->n_bias <= LIMIT_LOGIT_BIAS);
    buf_f32(out, s->temperature);
    buf_f32(out, s->top_p);
    buf_f32(out, s->min_p);
    buf_u32(out, (uint32_t)s->top_k);
    buf_f32(out, s->presence_penalty);
    buf_f32(out, s->frequency_penalty);
    buf_f32(out, s->repetition_penalty);
    buf_u64(out, s->seed);
    buf_u32(out, (uint32_t)s->choice);
    buf_u32(out, (uint32_t)s->n_logprobs);
    buf_u32(out, (uint32_t)s->max_tokens);
    buf_u32(out, (uint32_t)s->min_tokens);
    buf_u8(out, s->ignore_eos);
    buf_u32(out, (uint32_t)s->n_stop_ids);
    for (int32_t i = 0; i < s->n_stop_ids; i++) buf_u32(out, (uint32_t)s->stop_ids[i]);
    buf_u32(out, (uint32_t)s->n_bias);
    for (int32_t i = 0; i < s->n_bias; i++) {
        buf_u32(out, (uint32_t)s->bias[i].id);
        buf_f32(out, s->bias[i].bias);
    }
}

static enum err scan_numbers(struct sampling *s, struct scan *in)
{
    enum err rc = OK;
    TRY(scan_f32(in, "temperature", 0, FLT_MAX, &s->temperature));
    TRY(scan_f32(in, "top_p", FLT_MIN, 1, &s->top_p));
    TRY(scan_f32(in, "min_p", 0, 1, &s->min_p));
    TRY(scan_i32(in, "top_k", 0, INT32_MAX, &s->top_k));
    TRY(scan_f32(in, "presence_penalty", -2, 2, &s->presence_penalty));
    TRY(scan_f32(in, "frequency_penalty", -2, 2, &s->frequency_penalty));
    TRY(scan_f32(in, "repetition_penalty", FLT_MIN, FLT_MAX, &s->repetition_penalty));
    TRY(scan_u64(in, "seed", &s->seed));
    TRY(scan_i32(in, "choice", 0, INT32_MAX, &s->choice));
    TRY(scan_i32(in, "n_logprobs", -1, LIMIT_LOGPROBS, &s->n_logprobs));
    TRY(scan_i32(in, "max_tokens", 1, INT32_MAX, &s->max_tokens));
    TRY(scan_i32(in, "min_tokens", 0, INT32_MAX, &s->min_tokens));
    TRY(scan_bool(in, "ignore_eos", &s->ignore_eos));
out:
    return rc;
}

enum err sampling_unpack(struct sampling *out, struct scan *in, int32_t n_vocab, struct arena *a)
{
    enum err rc = OK;
    struct sampling s = {0};
    TRY(scan_numbers(&s, in));
    TRY(scan_count(in, "n_stop_ids", LIMIT_STOP_IDS, 4, &s.n_stop_ids));
    for (int32_t i = 0; i < s.n_stop_ids; i++)
        TRY(scan_i32(in, "stop id", 0, n_vocab - 1, &s.stop_ids[i]));
    TRY(scan_count(in, "n_bias", LIMIT_LOGIT_BIAS, 8, &s.n_bias));
    if (s.n_bias) s.bias = arena_alloc(a, (size_t)s.n_bias * sizeof *s.bias);
    for (int32_t i = 0; i < s.n_bias; i++) {
        TRY(scan_i32(in, "bias id", 0, n_vocab - 1, &s.bias[i].id));
        TRY(scan_f32(in, "bias", -FLT_MAX, FLT_MAX, &s.bias[i].bias));
    }
    *out = s;
out:
    return rc;
}
