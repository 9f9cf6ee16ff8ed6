/* hf_rope.c: rope_scaling of config.json (newer files: rope_parameters) as GGUF's keys. */
#include "engine/file/hf_config.h"

#include "engine/file/hf_json.h"

#include <math.h>
#include <string.h>

struct rope {
    struct eng_hf_obj o;
    const char *arch;
    struct eng_hf_keys *keys;
    int64_t context;
    struct eng_hf_obj config;
};

enum { MOST_FACTORS = 512 };

static enum err copy_real(const struct rope *r, const char *from, const char *to, bool needed)
{
    double v;
    enum err rc = eng_hf_real(r->o, from, 0, &v);
    if (rc) return rc;
    if (v < 0 || (needed && v == 0))
        return err_raise(ERR_BAD_FILE, "%s: rope scaling needs a positive '%s'", r->o.what, from);
    if (v > 0) eng_hf_key_real(r->keys, r->arch, to, v);
    return OK;
}

static enum err copy_original(const struct rope *r, int64_t *original)
{
    enum err rc =
        eng_hf_int(r->o, "original_max_position_embeddings", r->context, 1, 1 << 30, original);
    if (!rc) eng_hf_key_int(r->keys, r->arch, "rope.scaling.original_context_length", *original);
    return rc;
}

static enum err read_llama3(struct rope *r)
{
    enum err rc;
    int64_t original;
    TRY(copy_real(r, "factor", "rope.scaling.factor", true));
    TRY(copy_real(r, "low_freq_factor", "rope.scaling.low_freq_factor", true));
    TRY(copy_real(r, "high_freq_factor", "rope.scaling.high_freq_factor", true));
    TRY(copy_original(r, &original));
out:
    return rc;
}

static enum err read_yarn(struct rope *r)
{
    enum err rc;
    int64_t original;
    double factor, mscale, all_dim;
    bool truncate;
    TRY(copy_real(r, "factor", "rope.scaling.factor", true));
    TRY(copy_real(r, "beta_fast", "rope.scaling.yarn_beta_fast", false));
    TRY(copy_real(r, "beta_slow", "rope.scaling.yarn_beta_slow", false));
    TRY(copy_original(r, &original));
    TRY(eng_hf_real(r->o, "factor", 1, &factor));
    TRY(eng_hf_real(r->o, "mscale", 0, &mscale));
    TRY(eng_hf_real(r->o, "mscale_all_dim", 0, &all_dim));
    TRY(eng_hf_bool(r->o, "truncate", true, &truncate));
    double attention;
    TRY(eng_hf_real(r->o, "attention_factor", 0, &attention));
    if (attention > 0)
        eng_hf_key_real(r->keys, NULL, "tessera.rope.attention_factor", attention);
    else if (mscale != 0 && mscale == all_dim) /* their quotient is one */
        eng_hf_key_real(r->keys, NULL, "tessera.rope.attention_factor", 1);
    else if (mscale != 0 && all_dim != 0 && factor > 1)
        eng_hf_key_real(r->keys, NULL, "tessera.rope.attention_factor", (0.1 * mscale * log(factor) + 1) / (0.1 * all_dim * log(factor) + 1));
    if (!strcmp(r->arch, "deepseek2") && all_dim != 0) eng_hf_key_real(r->keys, r->arch, "rope.scaling.yarn_log_multiplier", 0.1 * all_dim);
    eng_hf_key_bool(r->keys, NULL, "tessera.rope.truncate", truncate);
    double reach = (double)original * factor;
    if (reach > (double)r->context && reach < 1 << 30) r->context = (int64_t)reach;
out:
    return rc;
}

/* Dynamic NTK: nothing within the original context; past it a base that the context in use decides. */
static enum err read_dynamic(struct rope *r)
{
    enum err rc;
    int64_t original;
    double factor;
    TRY(copy_real(r, "factor", "rope.scaling.factor", true));
    TRY(copy_original(r, &original));
    TRY(eng_hf_real(r->o, "factor", 1, &factor));
    double reach = (double)original * factor;
    if (reach > (double)r->context && reach < 1 << 30) r->context = (int64_t)reach;
out:
    return rc;
}

static enum err copy_factors(const struct rope *r, const char *from, const char *to)
{
    const json_t *list = json_object_get(r->o.json, from);
    size_t n = json_array_size(list);
    double v[MOST_FACTORS];
    if (!json_is_array(list) || n < 1 || n > MOST_FACTORS)
        return err_raise(ERR_BAD_FILE, "%s: longrope needs a list '%s' of at most %d numbers", r->o.what, from, MOST_FACTORS);
    for (size_t i = 0; i < n; i++) {
        v[i] = json_number_value(json_array_get(list, i));
        if (!(v[i] > 0)) return err_raise(ERR_BAD_FILE, "%s: entry %zu of '%s' must be a positive number", r->o.what, i, from);
    }
    eng_hf_key_reals(r->keys, to, v, n);
    return OK;
}

/* The original context may stand beside the object, in config.json itself. */
static enum err read_long(struct rope *r)
{
    enum err rc;
    int64_t original;
    double factor, attention;
    TRY(copy_factors(r, "long_factor", "tessera.rope.long_factors"));
    TRY(copy_factors(r, "short_factor", "tessera.rope.short_factors"));
    TRY(eng_hf_int(r->config, "original_max_position_embeddings", r->context, 1, 1 << 30, &original));
    TRY(eng_hf_int(r->o, "original_max_position_embeddings", original, 1, 1 << 30, &original));
    eng_hf_key_int(r->keys, r->arch, "rope.scaling.original_context_length", original);
    TRY(eng_hf_real(r->o, "factor", (double)r->context / (double)original, &factor));
    eng_hf_key_real(r->keys, r->arch, "rope.scaling.factor", factor);
    TRY(eng_hf_real(r->o, "attention_factor", 0, &attention));
    if (attention > 0) eng_hf_key_real(r->keys, NULL, "tessera.rope.attention_factor", attention);
    const json_t *mscale = json_object_get(r->o.json, "short_mscale");
    if (mscale && !json_is_null(mscale)) eng_hf_refuse(r->keys, "%s: longrope with short_mscale is not supported", r->o.what);
out:
    return rc;
}

static enum err read_scaling(struct rope *r, const char *type)
{
    enum err rc = OK;
    const char *says = type;
    if (!strcmp(type, "default"))
        says = "none";
    else if (!strcmp(type, "dynamic"))
        TRY(read_dynamic(r));
    else if (!strcmp(type, "longrope") || !strcmp(type, "su"))
        TRY(read_long(r));
    else if (!strcmp(type, "linear"))
        TRY(copy_real(r, "factor", "rope.scaling.factor", true));
    else if (!strcmp(type, "llama3"))
        TRY(read_llama3(r));
    else if (!strcmp(type, "yarn"))
        TRY(read_yarn(r));
    else
        eng_hf_refuse(r->keys,
                      "%s: rope scaling '%s' is not supported (known: default, linear, dynamic, "
                      "llama3, yarn, longrope)",
                      r->o.what, eng_show(type, strlen(type)).s);
    eng_hf_key_text(r->keys, r->arch, "rope.scaling.type", says);
out:
    return rc;
}

enum err eng_hf_rope_read(const struct eng_hf_obj *config, const char *arch,
                          struct eng_hf_keys *keys, int64_t *context)
{
    enum err rc;
    double theta;
    const char *type;
    const json_t *now = json_object_get(config->json, "rope_parameters");
    const json_t *then = json_object_get(config->json, "rope_scaling");
    const json_t *scaling = json_is_object(now) ? now : json_is_object(then) ? then : NULL;
    /* Gemma 3 has one for the layers with a window beside the other */
    const json_t *full = json_object_get(scaling, "full_attention"), *local = json_object_get(scaling, "sliding_attention");
    if (json_is_object(full)) scaling = full;
    struct rope r = {{scaling, config->what}, arch, keys, *context, *config};
    TRY(eng_hf_real((struct eng_hf_obj){local, config->what}, "rope_theta", 0, &theta));
    TRY(eng_hf_real(*config, "rope_local_base_freq", theta, &theta));
    if (theta > 0) eng_hf_key_real(keys, arch, "rope.freq_base_swa", theta);
    TRY(eng_hf_real(*config, "rope_theta", !strcmp(arch, "gemma3") ? 1e6 : !strcmp(arch, "llama4") ? 5e5 : 10000, &theta));
    TRY(eng_hf_real(r.o, "rope_theta", theta, &theta));
    eng_hf_key_real(keys, arch, "rope.freq_base", theta);
    TRY(eng_hf_text(r.o, "type", "default", &type));
    TRY(eng_hf_text(r.o, "rope_type", type, &type));
    TRY(read_scaling(&r, type));
    *context = r.context;
out:
    return rc;
}
