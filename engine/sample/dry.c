/* dry.c: "don't repeat yourself": a token that would prolong a repetition loses multiplier * base^(length - allowed_length).
 *
 * length: how many tokens before an earlier occurrence of it are the sequence's last ones; the longest counts. A repetition does not reach back
 * past a token in which a sequence breaker ends, and a token that contains one is never penalised. Powers are repeated products, cut off where
 * nothing would be left of the logit anyway. Source: p-e-w, text-generation-webui 2024; the fields are llama.cpp's. */
#include "engine/sample/sampler_impl.h"

#include <stdlib.h>
#include <string.h>

static const float LARGEST = 1e30f;

static const char *text_of(const struct eng_token_texts *t, int32_t id, size_t *n)
{
    *n = id >= 0 && id < t->n ? t->off[id + 1] - t->off[id] : 0;
    return *n ? (const char *)t->bytes + t->off[id] : "";
}

/* Do the texts of tokens[0..i], behind the first `end` bytes of the last one, end with b? */
static bool ends_with(const struct eng_token_texts *t, const int32_t *tokens, int32_t i, size_t end, const char *b, size_t n)
{
    size_t len;
    const char *p = text_of(t, tokens[i], &len);
    while (n) {
        while (!end) {
            if (!i) return false;
            p = text_of(t, tokens[--i], &end);
        }
        if (p[--end] != b[--n]) return false;
    }
    return true;
}

/* Does a breaker end in the text of tokens[i]? whole: and does it lie in that token alone? */
static bool breaks(const struct eng_sampler *s, const struct sampling *p, const int32_t *tokens, int32_t i, bool whole)
{
    size_t len;
    const char *text = text_of(&s->texts, tokens[i], &len);
    for (int32_t k = 0, n; k < p->n_breakers; k += n + 1) {
        const char *b = p->breakers + k + 1;
        n = (uint8_t)p->breakers[k];
        if (memmem(text, len, b, (size_t)n)) return true;
        for (size_t end = 1; !whole && end < (size_t)n && end <= len; end++)
            if (text[end - 1] == b[n - 1] && ends_with(&s->texts, tokens, i, end, b, (size_t)n)) return true;
    }
    return false;
}

/* runs[k]: how many of the last tokens are also those before the last k (Z algorithm, from the end). */
static void find_runs(const int32_t *last, int32_t n, int32_t *runs)
{
    for (int32_t k = 1, l = 0, r = 0; k < n; k++) {
        int32_t z = k < r ? MIN(r - k, runs[k - l]) : 0;
        while (k + z < n && last[-z] == last[-(k + z)]) z++;
        runs[k] = z;
        if (k + z > r) l = k, r = k + z;
    }
}

static float power(float x, float base, int64_t n)
{
    while (n-- > 0 && x < LARGEST && base > 1) x *= base;
    return MIN(x, LARGEST);
}

void eng_dry_apply(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h)
{
    int32_t n = p->dry_last_n < 0 ? h->n : MIN(h->n, p->dry_last_n), most = 0;
    const int32_t *last = h->tokens + h->n - 1;
    if (n <= p->dry_allowed_length) return;
    while (most < n && !breaks(s, p, last - most, 0, true) && !breaks(s, p, h->tokens, h->n - 1 - most, false)) most++;
    if (most < p->dry_allowed_length) return;
    if (n > s->cap_runs) s->runs = xrealloc(s->runs, (size_t)(s->cap_runs = MAX(n, 2 * s->cap_runs)) * sizeof *s->runs);
    find_runs(last, n, s->runs);
    /* longest run per token, kept in `made` */
    for (int32_t k = 1; k < n; k++) {
        int32_t run = MIN(s->runs[k], most), id = last[-(k - 1)];
        if (run >= p->dry_allowed_length && id >= 0 && id < s->n_vocab) s->made[id] = MAX(s->made[id], run + 1);
    }
    for (int32_t k = 1; k < n; k++) {
        int32_t id = last[-(k - 1)];
        if (id < 0 || id >= s->n_vocab || !s->made[id]) continue;
        if (!breaks(s, p, &id, 0, true)) x[id] -= power(p->dry_multiplier, p->dry_base, s->made[id] - 1 - (int64_t)p->dry_allowed_length);
        s->made[id] = 0;
    }
}
