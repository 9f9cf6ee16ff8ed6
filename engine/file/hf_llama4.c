/* hf_llama4.c: what only Llama 4's config.json says, as keys: some are llama.cpp's, some Ollama's, some ours (hf_config.h). */
#include "engine/file/hf_config.h"
#include "engine/file/hf_json.h"
#include "proto/limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Layer by layer: has it rope, does it attend within its chunk? */
struct layers {
    int64_t n;
    bool rope[LIMIT_LAYERS], local[LIMIT_LAYERS];
};

/* The list no_rope_layers (1: with rope, in spite of its name); an empty one says nothing. */
static enum err read_rope(const struct eng_hf_obj *c, struct layers *l)
{
    const json_t *list = json_object_get(c->json, "no_rope_layers");
    int64_t interval;
    enum err rc = eng_hf_int(*c, "no_rope_layer_interval", 4, 1, 1 << 30, &interval);
    for (int64_t i = 0; i < l->n && !rc; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        l->rope[i] = json_array_size(list) ? json_integer_value(v) == 1 : (i + 1) % interval != 0;
        if (json_array_size(list) && (!json_is_integer(v) || (uint64_t)json_integer_value(v) > 1))
            rc = err_raise(ERR_BAD_FILE, "%s: entry %" PRId64 " of 'no_rope_layers' must be 0 or 1", c->what, i);
    }
    return rc;
}

/* The list layer_types; without it layers with rope are chunked. */
static enum err read_types(const struct eng_hf_obj *c, struct layers *l)
{
    const json_t *list = json_object_get(c->json, "layer_types");
    for (int64_t i = 0; i < l->n; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        l->local[i] = json_array_size(list) ? type && !strcmp(type, "chunked_attention") : l->rope[i];
        if (json_array_size(list) && !l->local[i] && (!type || strcmp(type, "full_attention")))
            return err_raise(ERR_BAD_FILE, "%s: entry %" PRId64 " of 'layer_types' must be \"chunked_attention\" or \"full_attention\"", c->what, i);
    }
    return OK;
}

/* What is as in every Llama 4 is not said: other programs know it. Without chunks (llama.cpp: sliding_window 0) rope is everywhere. */
static void key_layers(const struct layers *l, const char *arch, struct eng_hf_keys *k)
{
    bool usual = true, any = false, implied = true;
    for (int64_t i = 0; i < l->n; i++) any |= l->local[i];
    for (int64_t i = 0; i < l->n; i++) {
        usual &= l->local[i] == ((i + 1) % 4 != 0);
        implied &= l->rope[i] == (l->local[i] || !any);
    }
    if (!any) eng_hf_key_int(k, arch, "attention.sliding_window", 0);
    if (any && !usual) eng_hf_key_bools(k, arch, "attention.sliding_window_pattern", l->local, (uint64_t)l->n);
    if (!implied) eng_hf_key_bools(k, NULL, "tessera.rope.layers", l->rope, (uint64_t)l->n);
}

static enum err read_temperature(const struct eng_hf_obj *c, const char *arch, struct eng_hf_keys *k)
{
    enum err rc = OK;
    bool tuned;
    double scale;
    int64_t length;
    const json_t *tuning = json_object_get(c->json, "attn_temperature_tuning"); /* older files have a number: is it 0? */
    if (json_is_integer(tuning)) tuned = json_integer_value(tuning) != 0;
    else TRY(eng_hf_bool(*c, "attn_temperature_tuning", true, &tuned));
    TRY(eng_hf_int(*c, "floor_scale", 8192, 1, 1 << 30, &length));
    TRY(eng_hf_real(*c, "attn_scale", 0.1, &scale));
    eng_hf_key_int(k, arch, "attention.temperature_length", tuned ? length : 0);
    eng_hf_key_real(k, arch, "attention.temperature_scale", scale);
out:
    return rc;
}

enum err eng_hf_llama4_read(const struct eng_hf_obj *c, const char *arch, struct eng_hf_keys *k)
{
    enum err rc;
    struct layers l;
    int64_t chunk, step;
    bool norms;
    TRY(eng_hf_int(*c, "num_hidden_layers", 0, 1, LIMIT_LAYERS, &l.n));
    TRY(read_rope(c, &l));
    TRY(read_types(c, &l));
    key_layers(&l, arch, k);
    TRY(eng_hf_int(*c, "attention_chunk_size", 8192, 1, 1 << 30, &chunk));
    eng_hf_key_int(k, arch, "attention.chunk_size", chunk);
    TRY(read_temperature(c, arch, k));
    TRY(eng_hf_bool(*c, "use_qk_norm", true, &norms));
    eng_hf_key_bool(k, arch, "use_qk_norm", norms);
    TRY(eng_hf_int(*c, "interleave_moe_layer_step", 1, 0, 1 << 30, &step)); /* which layers have experts their tensors say */
    eng_hf_key_int(k, arch, "interleave_moe_layer_step", step);
out:
    return rc;
}
