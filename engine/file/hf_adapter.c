/* hf_adapter.c: PEFT's directory of a LoRA adapter as a model file: adapter_config.json said in GGUF's keys, the tensors as
 * adapter_model.safetensors names them. What would be computed otherwise than A and B beside a linear layer is refused here, by its key. */
#include "engine/file/hf_config.h"
#include "engine/file/hf_json.h"
#include "engine/file/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char config_name[] = "adapter_config.json", weights_name[] = "adapter_model.safetensors";
enum { LARGEST_CONFIG = 16 << 20 };

static bool exists(const struct eng_model_file *f, const char *name)
{
    char *path = xasprintf("%s/%s", f->path, name);
    bool yes = !access(path, F_OK);
    free(path);
    return yes;
}

bool eng_hf_adapter_is(const struct eng_model_file *f)
{
    return exists(f, config_name) && !exists(f, "model.safetensors") && !exists(f, "model.safetensors.index.json");
}

/* Does a key say something: neither absent, null, false, empty nor "none"? */
static bool said(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    if (!v || json_is_null(v) || json_is_false(v)) return false;
    if (json_is_string(v)) return *json_string_value(v) && strcmp(json_string_value(v), "none") != 0;
    if (json_is_array(v)) return json_array_size(v) > 0;
    if (json_is_object(v)) return json_object_size(v) > 0;
    return !json_is_integer(v) || json_integer_value(v);
}

/* What changes the arithmetic, and what to do instead. */
static const struct { const char *key, *what; } refused[] = {
    {"use_dora", "DoRA, which scales whole columns of the base, is not computed here: train with use_dora=False, or merge the adapter into the base"},
    {"modules_to_save", "whole modules trained beside the adapter are not taken: train without modules_to_save, or merge the adapter into the base"},
    {"bias", "trained biases are not taken: train with bias=\"none\", or merge the adapter into the base"},
    {"lora_bias", "biases of B are not taken: train with lora_bias=False, or merge the adapter into the base"},
    {"fan_in_fan_out", "transposed weights (fan_in_fan_out, of Conv1D layers) are not taken: merge the adapter into the base"},
    {"alpha_pattern", "alphas that differ between modules are not taken: train with one lora_alpha, or merge the adapter into the base"},
    {"layer_replication", "layers that are there several times are not taken: merge the adapter into the base"},
    {"target_parameters", "parameters of experts are not taken as targets: train linear layers alone, or merge the adapter into the base"},
    {"trainable_token_indices", "trained rows of the embedding are not taken: merge the adapter into the base"},
    {"alora_invocation_tokens", "activated LoRA, which begins within a prompt, is not computed here: train with LoRA"},
    {"use_qalora", "QALoRA is not computed here: train with LoRA"},
    {"use_bdlora", "LoRA of diagonal blocks is not computed here: train with LoRA"},
    {"arrow_config", "Arrow, which chooses among adapters for every token, is not computed here: train with LoRA"},
    {"kasa_config", "KaSA is not computed here: train with LoRA"},
    {"monteclora_config", "MonteCLoRA is not computed here: train with LoRA"},
};

/* Kinds of beginnings that change the base too. */
static bool moves_base(const json_t *config)
{
    static const char *const kinds[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    const char *s = json_string_value(json_object_get(config, "init_lora_weights"));
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (s && !strncmp(s, kinds[i], strlen(kinds[i]))) return true;
    return false;
}

static enum err check(const struct eng_hf_obj *o)
{
    enum err rc;
    const char *type;
    TRY(eng_hf_text(*o, "peft_type", "", &type));
    if (strcmp(type, "LORA") != 0)
        return err_raise(ERR_UNSUPPORTED, "%s: peft_type is '%s': only LORA is computed here", o->what, eng_show(type, strlen(type)).s);
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        if (said(o->json, refused[i].key)) return err_raise(ERR_UNSUPPORTED, "%s: key '%s': %s", o->what, refused[i].key, refused[i].what);
    if (moves_base(o->json))
        return err_raise(ERR_UNSUPPORTED, "%s: key 'init_lora_weights': the base was changed when training began: convert the adapter (PEFT's "
                         "path_initial_model_for_weight_conversion), or merge it into the base", o->what);
out:
    return rc;
}

static enum err read_config(struct eng_model_file *f, struct eng_hf_keys *k)
{
    enum err rc;
    json_t *config = NULL;
    char *what = xasprintf("%s/%s", f->path, config_name);
    double alpha;
    bool by_root;
    TRY(eng_hf_json_file(&config, f, config_name, LARGEST_CONFIG));
    const struct eng_hf_obj o = {config, what};
    TRY(check(&o));
    TRY(eng_hf_real(o, "lora_alpha", 0, &alpha));
    TRY(eng_hf_bool(o, "use_rslora", false, &by_root));
    eng_hf_key_text(k, NULL, "general.type", "adapter");
    eng_hf_key_text(k, NULL, "adapter.type", "lora");
    eng_hf_key_real(k, NULL, "adapter.lora.alpha", alpha);
    eng_hf_key_bool(k, NULL, "tessera.adapter.rslora", by_root);
out:
    json_decref(config);
    free(what);
    return rc;
}

static enum err read_weights(struct eng_model_file *f)
{
    if (!exists(f, weights_name))
        return exists(f, "adapter_model.bin")
                   ? err_raise(ERR_UNSUPPORTED, "%s: adapter_model.bin is a pickle, which can run code; save the adapter as safetensors", f->path)
                   : err_raise(ERR_BAD_FILE, "%s: %s is missing", f->path, weights_name);
    char *path = xasprintf("%s/%s", f->path, weights_name);
    enum err e = eng_model_file_add_part(f, path);
    free(path);
    return e ? e : eng_safetensors_read(f, f->n_parts - 1);
}

enum err eng_hf_adapter_read(struct eng_model_file *f)
{
    enum err rc;
    struct eng_hf_keys k = {.a = &f->arena};
    TRY(read_config(f, &k));
    TRY(read_weights(f));
    eng_hf_keys_give(&k, f);
    snprintf(f->version, sizeof f->version, "LoRA adapter");
out:
    free(k.at);
    return rc;
}
