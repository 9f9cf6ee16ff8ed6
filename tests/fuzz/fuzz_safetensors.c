/* Any bytes as model.safetensors or config.json of a checkpoint: opening refuses with a sentence or
 * succeeds, and then everything in it can be looked at, and every tensor read, those too that are made of
 * quantised ones. The first byte picks the file, and what stands beside it. Seeds: corpus/safetensors. */
#include "engine/model/spec.h"
#include "tests/support/hf_write.h"
#include "tests/support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":4,\"num_attention_heads\":2,"
    "\"num_hidden_layers\":1,\"intermediate_size\":8,\"max_position_embeddings\":64}";
static const char index_json[] = "{\"weight_map\":{\"model.norm.weight\":\"model.safetensors\"}}";
/* header of one tensor, and its bytes */
static const char weights[] = "\x51\0\0\0\0\0\0\0{\"model.embed_tokens.weight\":{\"dtype\":\"F32\","
                              "\"shape\":[1,4],\"data_offsets\":[0,16]}}"
                              "0123456789abcdef";

/* 4 to 11: weights beside a config that says how they are quantised */
static const char *const quantised[] = {
    "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"sym\":false,\"desc_act\":true}",
    "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32}",
    ("{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"a\":{\"targets\":[\"re:.*q_proj\"],\"weights\":{\"num_bits\":4,\"strategy\":\"group\","
    "\"group_size\":32,\"symmetric\":false}},\"b\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":8,\"strategy\":\"channel\"}}}}"),
    "{\"quant_method\":\"fp8\",\"weight_block_size\":[16,8]}",
    ("{\"quant_method\":\"compressed-tensors\",\"format\":\"nvfp4-pack-quantized\",\"config_groups\":{\"a\":{\"targets\":[\"Linear\"],"
     "\"weights\":{\"num_bits\":4,"
     "\"type\":\"float\",\"strategy\":\"tensor_group\",\"group_size\":16,\"symmetric\":true}}}}"),
    "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"nf4\",\"bnb_4bit_use_double_quant\":true}",
    "{\"quant_method\":\"quark\",\"global_quant_config\":{\"weight\":{\"dtype\":\"fp4\",\"qscheme\":\"per_group\",\"group_size\":32,"
    "\"scale_format\":\"e8m0\"}}}",
    "{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}",
};

enum { PICKS = 4 + COUNT_OF(quantised) };

static volatile uint64_t used;

static void use(const struct eng_model_file *f)
{
    struct eng_spec s;
    for (int64_t i = 0; i < eng_model_file_n_kv(f); i++) {
        const struct model_kv *kv = eng_model_file_kv(f, i);
        for (uint64_t k = 0; k < kv->key.n; k++) used += (uint8_t)kv->key.p[k];
        for (uint64_t k = 0; kv->kind == KV_STRING && k < kv->s.n; k++) used += (uint8_t)kv->s.p[k];
        for (uint64_t k = 0; kv->kind == KV_ARRAY && k < kv->a.n; k++)
            used += (uint64_t)eng_model_file_array_int(kv, k);
    }
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        ASSERT(eng_model_file_tensor_find(f, t->name) == t);
        ASSERT(t->offset >= 0 && t->bytes >= 0 && (t->derived || t->offset + t->bytes <= eng_model_file_bytes(f)));
        uint8_t *p = xmalloc((size_t)t->bytes + 1);
        (void)!eng_model_file_read(f, t, 0, t->bytes, p);
        free(p);
    }
    (void)!eng_spec_read(&s, f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *dir;
    static char *paths[3];
    static const char *const names[3] = {"config.json", "model.safetensors",
                                         "model.safetensors.index.json"};
    if (!dir) {
        dir = hf_write_dir(NULL);
        for (int i = 0; i < 3; i++) paths[i] = xasprintf("%s/%s", dir, names[i]);
    }
    if (!n) return 0;
    int pick = data[0] % PICKS;
    char *conf = xasprintf("%.*s,\"quantization_config\":%s}", (int)sizeof config - 2, config, pick < 4 ? "null" : quantised[pick - 4]);
    if (pick >= 4) pick = 1;
    scratch_write(paths[0], conf, strlen(conf));
    free(conf);
    scratch_write(paths[1], weights, sizeof weights - 1);
    remove(paths[2]);
    if (pick == 3) scratch_write(paths[2], index_json, sizeof index_json - 1);
    scratch_write(paths[pick % 3], data + 1, n - 1);
    struct eng_model_file *f = NULL;
    err_set_text("%s", "");
    if (eng_model_file_open(&f, dir))
        ASSERT(*err_text() && !f);
    else
        use(f);
    eng_model_file_close(f);
    return 0;
}
