/* openai_out.c: see openai_out.h. */
#include "coordinator/api/openai_out.h"
#include "coordinator/api/json_out.h"

static const struct crd_openai_kind *kind_of(const struct crd_answer *a)
{
    return a->request->endpoint == ENDPOINT_CHAT ? &crd_openai_chat : &crd_openai_completions;
}

static void put_head(const struct crd_answer *a, const char *object, struct buf *out)
{
    buf_puts(out, "{\"id\":");
    json_out_str(out, a->id);
    buf_printf(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object,
               (long long)a->created);
    json_out_str(out, a->model);
    buf_puts(out, ",\"choices\":[");
}

static void put_usage(const struct crd_answer *a, struct buf *out)
{
    const struct crd_usage *u = &a->usage;
    buf_printf(
        out,
        ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld,\"completion_tokens\":%lld,"
        "\"prompt_tokens_details\":{\"cached_tokens\":%lld}",
        (long long)u->n_prompt, (long long)(u->n_prompt + u->n_completion),
        (long long)u->n_completion, (long long)u->n_cached);
    const bool thinks = a->request->reply.think, predicted = a->request->predicted;
    if (thinks || predicted) buf_puts(out, ",\"completion_tokens_details\":{");
    if (thinks) buf_printf(out, "\"reasoning_tokens\":%lld%s", (long long)u->n_thought, predicted ? "," : "");
    if (predicted)
        buf_printf(out, "\"accepted_prediction_tokens\":%lld,\"rejected_prediction_tokens\":%lld", (long long)u->n_foreseen,
                   (long long)u->n_unforeseen);
    if (thinks || predicted) buf_putc(out, '}');
    buf_putc(out, '}');
}

static void put_rate(const char *name, int64_t n, int64_t us, struct buf *out)
{
    double ms = (double)us / 1e3;
    buf_printf(out, "\"%s_n\":%lld,\"%s_ms\":%.3f,\"%s_per_token_ms\":%.3f,\"%s_per_second\":%.3f",
               name, (long long)n, name, ms, name, n ? ms / (double)n : 0.0, name,
               us > 0 ? (double)n * 1e6 / (double)us : 0.0);
}

static void put_timings(const struct crd_answer *a, struct buf *out)
{
    const struct crd_usage *u = &a->usage;
    buf_printf(out, ",\"timings\":{\"cache_n\":%lld,", (long long)u->n_cached);
    put_rate("prompt", u->n_prompt - u->n_cached, a->timings.prompt_us, out);
    buf_putc(out, ',');
    put_rate("predicted", u->n_completion, a->timings.predicted_us, out);
    buf_putc(out, '}');
}

static void put_tail(struct buf *out)
{
    buf_puts(out, ",\"system_fingerprint\":null}");
}

void crd_openai_put_finish(const struct crd_choice *c, bool finished, struct buf *out)
{
    if (!finished) {
        buf_puts(out, ",\"finish_reason\":null,\"stop_reason\":null");
        return;
    }
    buf_printf(out, ",\"finish_reason\":\"%s\",\"stop_reason\":", c->finish);
    if (c->stop_string >= 0)
        json_out_str(out, c->request->stops[c->stop_string]);
    else if (c->stop_id >= 0)
        buf_printf(out, "%d", c->stop_id);
    else
        buf_puts(out, "null");
}

void crd_openai_put_ids(struct crd_choice *c, struct buf *out)
{
    if (!c->request->return_ids) return;
    buf_printf(out, ",\"token_ids\":[%s]", buf_str(&c->ids));
    buf_clear(&c->ids);
}

void crd_openai_put_prompt_ids(const struct crd_choice *c, struct buf *out)
{
    const struct eng_tokens *t = &c->prompt->tokens;
    if (!c->request->return_ids) return;
    buf_puts(out, ",\"prompt_token_ids\":[");
    for (size_t i = 0; i < t->n; i++) buf_printf(out, "%s%d", i ? "," : "", t->ids[i]);
    buf_putc(out, ']');
}

void crd_openai_put_scores(const struct crd_choice *c, struct buf *out)
{
    if (c->request->prompt_logprobs < 0) return;
    buf_puts(out, ",\"prompt_logprobs\":");
    crd_prompt_logprobs_put(c->scores, c->request, c->tokenizer, out);
}

static void put_event(const struct crd_answer *a, struct crd_choice *c, enum openai_part part,
                      bool last, struct buf *out)
{
    const struct crd_openai_kind *k = kind_of(a);
    buf_puts(out, "data: ");
    put_head(a, k->chunk_object, out);
    k->put(c, part, out);
    buf_putc(out, ']');
    if (part == PART_OPEN && k->ids_outside) crd_openai_put_prompt_ids(c, out);
    if (a->request->continuous_usage)
        put_usage(a, out);
    else if (a->request->include_usage)
        buf_puts(out, ",\"usage\":null");
    if (last) put_timings(a, out);
    put_tail(out);
    buf_puts(out, "\n\n");
}

void crd_openai_begin(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    for (int32_t i = 0; i < n && kind_of(a)->opens; i++)
        put_event(a, &choices[i], PART_OPEN, false, out);
}

void crd_openai_chunk(struct crd_answer *a, struct crd_choice *c, enum delta_kind kind, bool last,
                      struct buf *out)
{
    put_event(a, c, kind == DELTA_FINISH ? PART_FINISH : PART_DELTA, last, out);
}

static void put_done(struct buf *out)
{
    buf_puts(out, "data: [DONE]\n\n");
}

void crd_openai_end(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    (void)choices, (void)n;
    if (a->request->include_usage) {
        buf_puts(out, "data: ");
        put_head(a, kind_of(a)->chunk_object, out);
        buf_putc(out, ']');
        put_usage(a, out);
        put_timings(a, out);
        put_tail(out);
        buf_puts(out, "\n\n");
    }
    put_done(out);
}

void crd_openai_fail(struct crd_answer *a, const struct crd_api_error *e, struct buf *out)
{
    (void)a;
    buf_puts(out, "data: ");
    crd_api_error_json(e, out);
    buf_puts(out, "\n\n");
    put_done(out);
}

void crd_openai_whole(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    const struct crd_openai_kind *k = kind_of(a);
    put_head(a, k->object, out);
    for (int32_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        k->put(&choices[i], PART_WHOLE, out);
    }
    buf_putc(out, ']');
    if (k->ids_outside) crd_openai_put_prompt_ids(&choices[0], out);
    if (k->ids_outside) crd_openai_put_scores(&choices[0], out);
    put_usage(a, out);
    put_timings(a, out);
    put_tail(out);
}
