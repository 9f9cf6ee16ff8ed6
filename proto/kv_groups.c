/* kv_groups.c: see kv_groups.h. */
#include "proto/kv_groups.h"

#include "base/base.h"

enum { T = LIMIT_BLOCK_TOKENS };

struct kv_groups kv_groups_of(int32_t n_full_layers, int32_t n_windowed_layers, int32_t window)
{
    if (!n_windowed_layers) return (struct kv_groups){.n = 1, .n_full = 1};
    if (!n_full_layers) return (struct kv_groups){.n = 1, .window = window};
    int32_t n = DIV_UP(n_windowed_layers, n_full_layers);
    return (struct kv_groups){.n = 1 + MIN(n, LIMIT_GROUPS - 1), .n_full = 1, .window = window};
}

static int32_t n_windowed(const bool windowed[], int32_t layer0, int32_t layer1)
{
    int32_t n = 0;
    for (int32_t l = layer0; l < layer1; l++) n += windowed[l];
    return n;
}

struct kv_groups kv_groups_of_layers(const bool windowed[], int32_t n_layers, int32_t window,
                                     int32_t context)
{
    int32_t n = window && window < context ? n_windowed(windowed, 0, n_layers) : 0;
    return kv_groups_of(n_layers - n, n, window);
}

struct kv_groups kv_groups_of_model(const struct model_info *m, int32_t context)
{
    return kv_groups_of_layers(m->windowed, m->n_layers, m->window, context);
}

int32_t kv_groups_planes(const struct kv_groups *k, const bool windowed[], int32_t layer0,
                         int32_t layer1)
{
    int32_t n = k->window ? n_windowed(windowed, layer0, layer1) : 0;
    return MAX(layer1 - layer0 - n, n ? DIV_UP(n, kv_groups_windowed(k)) : 0);
}

void kv_groups_place(const struct kv_groups *k, const bool windowed[], int32_t layer0,
                     int32_t layer1, int32_t l, int32_t *group, int32_t *plane)
{
    int32_t before = k->window ? n_windowed(windowed, layer0, l) : 0;
    *group = 0;
    *plane = l - layer0 - before;
    if (!k->window || !windowed[l]) return;
    int32_t planes = kv_groups_planes(k, windowed, layer0, layer1);
    *group = k->n_full + before / planes;
    *plane = before % planes;
}

int32_t kv_groups_first(const struct kv_groups *k, int32_t i)
{
    return k->window ? (int32_t)(MAX((int64_t)i * T - k->window + 1, 0) / T) : 0;
}

int32_t kv_groups_kept(const struct kv_groups *k)
{
    return k->window ? DIV_UP(k->window - 1, T) + 1 : INT32_MAX;
}

int64_t kv_groups_need(const struct kv_groups *k, int64_t n_tok)
{
    int64_t n = DIV_UP(n_tok, T);
    return n * k->n_full + MIN(n, kv_groups_kept(k)) * kv_groups_windowed(k);
}

int64_t kv_groups_longest(const struct kv_groups *k, int64_t n_blocks)
{
    int64_t n = n_blocks / k->n, kept = kv_groups_kept(k);
    if (n >= kept) n = k->n_full ? n_blocks - kept * kv_groups_windowed(k) : INT32_MAX;
    return MIN(n * T, INT32_MAX);
}

/* For the chunk of one step, beside what is kept. */
static int64_t spare(const struct kv_groups *k, int64_t n_tok, int32_t max_step_tokens)
{
    int64_t beyond = DIV_UP(n_tok, T) - kv_groups_kept(k);
    return MIN(MAX(beyond, 0), DIV_UP(max_step_tokens, T)) * kv_groups_windowed(k);
}

int64_t kv_groups_hold(const struct kv_groups *k, int64_t n_tok, int32_t context,
                       int32_t max_step_tokens)
{
    if (!k->window) return DIV_UP(n_tok, T);
    return n_tok / context * kv_groups_need(k, context) + kv_groups_need(k, n_tok % context) +
           spare(k, MIN(n_tok, context), max_step_tokens);
}

int64_t kv_groups_room(const struct kv_groups *k, int64_t n_blocks, int32_t context,
                       int32_t max_step_tokens)
{
    if (!k->window) return n_blocks * T;
    int64_t left = n_blocks - spare(k, context, max_step_tokens), each = kv_groups_need(k, context);
    if (left <= 0) return 0;
    return left / each * context + MIN(kv_groups_longest(k, left % each), context);
}
