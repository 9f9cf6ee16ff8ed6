/* hf_config.h: config.json said in GGUF's words, so that the rest of the engine knows one set of
 * keys and names. Private to engine/file.
 *
 * Keys: those of the GGUF specification under the family's name ("llama.block_count", ...), and
 * some that are ours:
 *   tessera.rope.interleaved      false: q and k stand in the checkpoint's own order of rows
 *   tessera.rope.attention_factor what cos and sin are multiplied with, when config.json says it
 *   tessera.rope.truncate         yarn's ramp lies on whole frequencies
 *   tessera.rope.long_factors     LongRoPE's divisors past the original context; short_factors: within it
 *   tessera.rope.layers           a list: which layers have rope
 *   tessera.norm.plus_one         norms multiply with one more than the file says
 *   tessera.qkv_grouped           attn_qkv holds q, k, v of one group of heads after the other
 *   tessera.unsupported           a sentence: why this checkpoint opens but does not run here
 *   tessera.rope.dynamic_factor   in GGUF files only: of dynamic NTK scaling; tessera.context_length: the context with it
 *   tokenizer.ggml.eos_token_ids  every id that ends a generation (GGUF's key has but one) */
#ifndef ENGINE_FILE_HF_CONFIG_H
#define ENGINE_FILE_HF_CONFIG_H

#include "engine/file/format.h"

/* A growing list of keys; everything in it lives in the arena. */
struct eng_hf_keys {
    struct arena *a;
    struct model_kv *at; /* Own: until given to the file */
    int64_t n, cap;
    bool refused; /* tessera.unsupported is there: the first reason stays */
};
void eng_hf_key_int(struct eng_hf_keys *k, const char *arch, const char *key, int64_t v);
void eng_hf_key_real(struct eng_hf_keys *k, const char *arch, const char *key, double v);
void eng_hf_key_bool(struct eng_hf_keys *k, const char *arch, const char *key, bool v);
void eng_hf_key_text(struct eng_hf_keys *k, const char *arch, const char *key, const char *v);
void eng_hf_key_reals(struct eng_hf_keys *k, const char *key, const double *v, uint64_t n);
void eng_hf_key_bools(struct eng_hf_keys *k, const char *arch, const char *key, const bool *v, uint64_t n);
void eng_hf_refuse(struct eng_hf_keys *k, const char *fmt, ...) PRINTF(2, 3);

struct eng_hf_quant;
/* What the tensors and their names depend on. */
struct eng_hf_model {
    char arch[64]; /* "llama"; the class's own name when it is not known */
    bool known;
    enum { TIE_UNSAID, TIE_NO, TIE_YES } tied;
    int64_t n_vocab; /* -1: not said */
    int64_t n_layers; /* layers from this one on are no part of the model (they predict further tokens) */
    bool within;     /* the language model of one that also sees: text_config, tensors under language_model */
    struct eng_hf_quant *quant; /* in the keys' arena */
};

/* Read DIR/config.json and generation_config.json. Without config.json the checkpoint is refused
 * (by key) but opens. Err BAD_FILE naming file and key. */
MUST_USE enum err eng_hf_config_read(struct eng_hf_model *out, struct eng_hf_keys *keys,
                                     const struct eng_model_file *f);

/* PEFT's directory of a LoRA adapter (hf_adapter.c): is it one; its keys and tensors. Err BAD_FILE, UNSUPPORTED naming the key. */
bool eng_hf_adapter_is(const struct eng_model_file *f);
MUST_USE enum err eng_hf_adapter_read(struct eng_model_file *f);

/* The keys become the file's. */
void eng_hf_keys_give(const struct eng_hf_keys *k, struct eng_model_file *f);

/* Which family the class or model_type names, and its keys; parts of eng_hf_config_read. */
struct eng_hf_obj;
/* The part of config.json that is about text: all of it, or, of a class that also sees, its text_config. */
struct eng_hf_obj eng_hf_family_text(struct eng_hf_obj config, struct eng_hf_model *m);
void eng_hf_family_pick(const struct eng_hf_obj *config, struct eng_hf_model *m, struct eng_hf_keys *keys);
MUST_USE enum err eng_hf_family_read(const struct eng_hf_obj *config, struct eng_hf_keys *keys, struct eng_hf_model *m);

/* What only Llama 4 has: layers without rope, chunks, temperatures; part of eng_hf_config_read. Err BAD_FILE. */
MUST_USE enum err eng_hf_llama4_read(const struct eng_hf_obj *config, const char *arch, struct eng_hf_keys *keys);
/* What DeepSeek's classes say of heads over a latent; and they, GLM-4.5's and dots1's of experts. */
MUST_USE enum err eng_hf_latent_heads(const struct eng_hf_obj *config, const char *arch, struct eng_hf_keys *keys, int64_t heads);
MUST_USE enum err eng_hf_latent_experts(const struct eng_hf_obj *config, const char *arch, struct eng_hf_keys *keys, const char *class);

/* A rope_scaling (or rope_parameters) object; part of eng_hf_config_read. `context` is made larger
 * where the scaling makes it so. */
MUST_USE enum err eng_hf_rope_read(const struct eng_hf_obj *config, const char *arch,
                                   struct eng_hf_keys *keys, int64_t *context);

/* Names of the tensors from the checkpoint's to GGUF's; what a known family does not have refuses
 * the checkpoint. Err BAD_FILE. */
MUST_USE enum err eng_hf_names(struct eng_model_file *f, const struct eng_hf_model *m,
                               struct eng_hf_keys *keys);
/* One name ("model.layers.0.mlp.up_proj.weight") of a model of GGUF's architecture `arch`. False: such a model has none of that name. */
bool eng_hf_tensor_name(const char *arch, const char *name, char out[96]);

#endif
