/* embeddings_out.c: vectors as the three endpoints that give them show them.
 *
 * A vector is written when it comes, not when the last one has, so that no other answer waits while
 * thousands of numbers become text. The length of a vector is the root of one chain of double
 * additions in order of the values. */
#include "coordinator/api/answer_out.h"
#include "base/clock.h"
#include "coordinator/api/json_out.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>

/* The first n values, divided by their length if so wanted. */
static void scale(const struct crd_vector_conf *v, float *x, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    double length = sqrt(sum);
    for (int32_t i = 0; i < n && v->normalize && length > 0; i++)
        x[i] = (float)((double)x[i] / length);
}

static void put_floats(const float *x, int32_t n, struct buf *out)
{
    buf_putc(out, '[');
    for (int32_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        if (isfinite(x[i]))
            buf_printf(out, "%.9g", (double)x[i]);
        else
            buf_puts(out, "null");
    }
    buf_putc(out, ']');
}

/* Little-endian f32, as this machine has them (proto/step_result.c asserts it). */
static void put_base64(const float *x, int32_t n, struct buf *out)
{
    size_t bytes = (size_t)n * sizeof *x,
           room = sodium_base64_ENCODED_LEN(bytes, sodium_base64_VARIANT_ORIGINAL);
    char *text = xmalloc(room);
    sodium_bin2base64(text, room, (const unsigned char *)x, bytes, sodium_base64_VARIANT_ORIGINAL);
    json_out_str(out, text);
    free(text);
}

void crd_choice_vector(struct crd_choice *c)
{
    const struct crd_vector_conf *v = &c->request->vector;
    int32_t n = v->dimensions ? MIN(v->dimensions, c->n_vector) : c->n_vector;
    scale(v, c->vector, n);
    (v->base64 ? put_base64 : put_floats)(c->vector, n, &c->said.text);
    free(c->vector);
    c->vector = NULL;
}

static void put_vector(const struct crd_choice *c, struct buf *out)
{
    buf_put(out, c->said.text.data, c->said.text.len);
}

/* ---- OpenAI's ---- */

static void whole(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    long long used = (long long)a->usage.n_prompt;
    buf_puts(out, "{\"id\":");
    json_out_str(out, a->id);
    buf_printf(out, ",\"object\":\"list\",\"created\":%lld,\"model\":", (long long)a->created);
    json_out_str(out, a->model);
    buf_puts(out, ",\"data\":[");
    for (int32_t i = 0; i < n; i++) {
        buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%d,\"embedding\":", i ? "," : "", i);
        put_vector(&choices[i], out);
        buf_putc(out, '}');
    }
    buf_printf(out,
               "],\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}}",
               used, used, (long long)a->usage.n_cached);
}

const struct crd_format crd_format_embeddings = {
    .id_prefix = "embd-",
    .whole = whole,
    .error = crd_api_error_json,
};

/* ---- Ollama's ---- */

static void whole_embed(struct crd_answer *a, struct crd_choice choices[], int32_t n,
                        struct buf *out)
{
    buf_puts(out, "{\"model\":");
    json_out_str(out, a->model);
    buf_puts(out, ",\"embeddings\":[");
    for (int32_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        put_vector(&choices[i], out);
    }
    buf_printf(out, "],\"total_duration\":%lld,\"load_duration\":0,\"prompt_eval_count\":%lld}",
               (long long)(clock_us() - a->arrived_us) * 1000, (long long)a->usage.n_prompt);
}

const struct crd_format crd_format_ollama_embed = {
    .id_prefix = "",
    .whole = whole_embed,
    .error = crd_ollama_error,
};

static void whole_old(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    (void)a, (void)n;
    buf_puts(out, "{\"embedding\":");
    put_vector(&choices[0], out);
    buf_putc(out, '}');
}

const struct crd_format crd_format_ollama_embeddings = {
    .id_prefix = "",
    .whole = whole_old,
    .error = crd_ollama_error,
};
