/* Any bytes as a file of a LoRA adapter: adapter_config.json, adapter_model.safetensors, or a GGUF file: refused with a sentence, or counted
 * beside a small base without leaving its shapes. The first byte picks the file. Seeds: corpus/adapter. */
#include "engine/model/lora.h"
#include "tests/support/hf_write.h"
#include "tests/support/scratch.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char config[] = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4}";
#define T(NAME, ROWS, COLS, FROM, TO) \
    "\"base_model.model.model.layers.0.self_attn." NAME ".weight\":{\"dtype\":\"F32\",\"shape\":[" ROWS "," COLS "],\"data_offsets\":[" FROM "," TO "]}"
static const char header[] = "{" T("q_proj.lora_A", "2", "8", "0", "64") "," T("q_proj.lora_B", "8", "2", "64", "128") "}";

/* A base of two layers, eight wide. */
static struct eng_spec base(void)
{
    struct eng_spec s = {.arch = "llama", .n_layers = 2, .d_model = 8, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4, .d_ffn = 64, .n_vocab = 32, .gated = true,
                         .rope_interleaved = true};
    return s;
}

static void use(const char *path)
{
    const struct eng_spec s = base();
    const struct eng_adapters a = {1, &path, NULL};
    struct eng_shard h;
    struct grid g;
    int64_t mats = 0, step = 0;
    if (eng_grid_even(&g, &s, 1, 1) || eng_shard_of(&h, &s, &g, 0)) abort();
    err_set_text("%s", "");
    if (eng_lora_count(&a, &s, &h, 16, NULL, &mats, &step)) ASSERT(*err_text());
    else ASSERT(mats > 0 && step > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *dir;
    static char *paths[3];
    struct buf weights = {0};
    if (!dir) {
        dir = hf_write_dir(NULL);
        paths[0] = xasprintf("%s/adapter_config.json", dir);
        paths[1] = xasprintf("%s/adapter_model.safetensors", dir);
        paths[2] = xstrdup(scratch_path("adapter.gguf"));
    }
    if (!n) return 0;
    int pick = data[0] % 3;
    buf_u64(&weights, sizeof header - 1);
    buf_puts(&weights, header);
    for (int i = 0; i < 128; i++) buf_u8(&weights, 0);
    scratch_write(paths[0], config, sizeof config - 1);
    scratch_write(paths[1], weights.data, weights.len);
    scratch_write(paths[pick], data + 1, n - 1);
    buf_free(&weights);
    use(pick == 2 ? paths[2] : dir);
    return 0;
}
