/* fit.c: see fit.h. */
#include "cli/fit.h"

#include "base/rng.h"

#include <string.h>

static uint64_t mix_bytes(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) h = rng_mix(h ^ ((const uint8_t *)p)[i]);
    return rng_mix(h ^ n);
}

static uint64_t mix_option(uint64_t h, const struct common_options *o, const struct conf_opt *c)
{
    const char *at = (const char *)o + c->offset, *text;
    if (c->type != CONF_TITLE) h = mix_bytes(h, c->name, strlen(c->name));
    switch (c->type) {
    case CONF_FLAG: return mix_bytes(h, at, sizeof(bool));
    case CONF_INT:
    case CONF_SIZE: return mix_bytes(h, at, sizeof(int64_t));
    case CONF_FLOAT: return mix_bytes(h, at, sizeof(double));
    case CONF_ENUM: return mix_bytes(h, at, sizeof(int32_t));
    case CONF_STR:
    case CONF_LIST:
        memcpy(&text, at, sizeof text);
        return text ? mix_bytes(h, text, strlen(text) + 1) : rng_mix(h);
    case CONF_TITLE: break;
    }
    return h;
}

/* The values of these options (names end with NULL), and what came before. */
static uint64_t hash_options(const struct common_options *o, const char *const names[], uint64_t before)
{
    const struct conf_opt *const tables[] = {model_option_table, cluster_option_table};
    for (size_t t = 0; t < COUNT_OF(tables); t++)
        for (const struct conf_opt *c = tables[t]; c->name; c++)
            for (const char *const *n = names; *n; n++)
                if (!strcmp(*n, c->name)) before = mix_option(before, o, c);
    return before;
}

static uint64_t mix_adapters(uint64_t h, const struct adapters *a)
{
    for (int32_t i = 0; i < a->n; i++) {
        h = mix_bytes(h, a->names[i], strlen(a->names[i]) + 1);
        h = mix_bytes(h, &a->sums[i], sizeof a->sums[i]);
    }
    return h;
}

uint64_t fit_load(const struct common_options *o, const struct placement *p)
{
    static const char *const cluster[] = {"topo", "hostfile", "launch", "ranks", "replicas", "mpirun-args", "listen", "tls-cert", "tls-ca", NULL};
    uint64_t h = mix_bytes(p->fingerprint, p->model_path, strlen(p->model_path));
    for (const struct conf_opt *c = model_option_table; c->name; c++) h = mix_option(h, o, c);
    for (int32_t i = 0; i < p->adapters.n; i++) h = mix_bytes(h, p->adapters.paths[i], strlen(p->adapters.paths[i]));
    return hash_options(o, cluster, mix_adapters(h, &p->adapters));
}

uint64_t fit_answers(const struct common_options *o, const struct placement *p, const char *chat_template, const char *sampling)
{
    static const char *const names[] = {"kv-type", "activations", "exact", "experts", NULL};
    uint64_t h = hash_options(o, names, p->fingerprint);
    h = mix_adapters(mix_bytes(h, sampling, strlen(sampling)), &p->adapters);
    return chat_template ? mix_bytes(h, chat_template, strlen(chat_template)) : h;
}
