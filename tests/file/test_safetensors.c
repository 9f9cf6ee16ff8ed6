/* Checkpoints' directories: what is true arrives, what is not is refused with a sentence that names
 * file and key. */
#include "engine/file/model_file.h"

#include "engine/model/spec.h"
#include "tests/support/hf_write.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":4,\"num_attention_heads\":2,"
    "\"num_hidden_layers\":1,\"intermediate_size\":8,\"max_position_embeddings\":64,"
    "\"vocab_size\":3,\"rms_norm_eps\":1e-05}";
static const char header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[3,4],\"data_offsets\":[0,48]},"
    "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[48,56]}}";
enum { DATA = 56 };

/* DIR/NAME: the length, the header's text, then n bytes 0, 1, 2, ... */
static void put_weights(const char *dir, const char *name, const char *head, uint64_t length,
                        size_t n)
{
    struct buf b = {0};
    char *path = xasprintf("%s/%s", dir, name);
    buf_u64(&b, length);
    buf_puts(&b, head);
    for (size_t i = 0; i < n; i++) buf_u8(&b, (uint8_t)i);
    scratch_write(path, b.data, b.len);
    buf_free(&b);
    free(path);
}

static const char *checkpoint(const char *conf, const char *head)
{
    const char *files[] = {"config.json", conf, NULL}, *dir = hf_write_dir(files);
    put_weights(dir, "model.safetensors", head, strlen(head), DATA);
    return dir;
}

static struct eng_model_file *open_dir(const char *dir)
{
    struct eng_model_file *f = NULL;
    if (eng_model_file_open(&f, dir)) fail_msg("%s", err_text());
    return f;
}

static void a_checkpoint_opens_with_gguf_names_and_keys(void **state)
{
    (void)state;
    struct eng_model_file *f = open_dir(checkpoint(config, header));
    int64_t v;
    char *arch;
    bool interleaved;
    assert_string_equal(eng_model_file_format(f), "safetensors");
    assert_true(eng_model_file_is_dir(f));
    assert_int_equal(eng_model_file_parts(f), 1);
    assert_int_equal(eng_model_file_string(f, "general.architecture", &arch), OK);
    assert_string_equal(arch, "llama");
    free(arch);
    assert_int_equal(eng_model_file_int(f, "llama.block_count", 0, 0, 99, &v), OK);
    assert_int_equal(v, 1);
    assert_int_equal(eng_model_file_int(f, "llama.attention.head_count_kv", 0, 0, 99, &v), OK);
    assert_int_equal(v, 2);
    assert_int_equal(eng_model_file_bool(f, "tessera.rope.interleaved", true, &interleaved), OK);
    assert_false(interleaved);
    const struct model_tensor *t = eng_model_file_tensor_find(f, "token_embd.weight");
    assert_non_null(t);
    assert_true(t->dims[0] == 4 && t->dims[1] == 3 && t->type == DTYPE_F32 && t->n_dims == 2);
    uint8_t bytes[8];
    t = eng_model_file_tensor_find(f, "output_norm.weight");
    assert_non_null(t);
    assert_int_equal(t->type, DTYPE_BF16);
    assert_int_equal(eng_model_file_read(f, t, 2, 6, bytes), OK);
    for (int i = 0; i < 6; i++) assert_int_equal(bytes[i], 50 + i);
    struct eng_spec s;
    if (eng_spec_read(&s, f)) fail_msg("%s", err_text());
    assert_true(s.tied && !s.rope_interleaved && s.head_dim == 2);
    eng_model_file_close(f);
}

#define E "\"model.embed_tokens.weight\":"
#define T(dtype, shape, offsets)                                                                   \
    "{" E "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static const struct lie {
    const char *claim, *head;
    const char *says;
} lies[] = {
    {"no JSON", "{\"a\":", "not JSON"},
    {"an array", "[]", "not a JSON object"},
    {"nothing", "", "not JSON"},
    {"more after the object", "{}x", "not JSON"},
    {"a key twice", "{\"a\":{},\"a\":{}}", "duplicate"},
    {"tensor a number", "{" E "7}", "not a JSON object"},
    {"tensor without a name", "{\"\":{}}", "0 bytes"},
    {"no shape", "{" E "{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "'shape'"},
    {"five dimensions", T("\"F32\"", "[1,1,1,1,1]", "[0,4]"), "at most 4"},
    {"dimension 0", T("\"F32\"", "[0]", "[0,0]"), "dimension 0 = 0"},
    {"dimension -1", T("\"F32\"", "[3,-1]", "[0,4]"), "dimension 1 = -1"},
    {"dimension 1.5", T("\"F32\"", "[1.5]", "[0,4]"), "integer"},
    {"dimension a text", T("\"F32\"", "[\"3\"]", "[0,4]"), "integer"},
    {"a product above 2^63", T("\"F32\"", "[4611686018427387904,4]", "[0,4]"), "below 2^63"},
    {"more bytes than 2^63", T("\"F32\"", "[4611686018427387904]", "[0,4]"), "more bytes"},
    {"a number beyond 64 bits", T("\"F32\"", "[99999999999999999999]", "[0,4]"), "not JSON"},
    {"no dtype", "{" E "{\"shape\":[1],\"data_offsets\":[0,4]}}", "dtype '?'"},
    {"dtype X9", T("\"X9\"", "[1]", "[0,4]"), "'X9'"},
    {"a type of GGUF", T("\"Q4_K\"", "[256]", "[0,144]"), "Q4_K"},
    {"no offsets", "{" E "{\"dtype\":\"F32\",\"shape\":[1]}}", "'data_offsets'"},
    {"one offset", T("\"F32\"", "[1]", "[4]"), "two numbers"},
    {"three offsets", T("\"F32\"", "[1]", "[0,4,8]"), "two numbers"},
    {"offsets turned round", T("\"F32\"", "[1]", "[4,0]"), "two numbers"},
    {"offset -4", T("\"F32\"", "[1]", "[-4,0]"), "two numbers"},
    {"offset 1e3", T("\"F32\"", "[1]", "[0.0,4.0]"), "two numbers"},
    {"offset outside the file", T("\"F32\"", "[1]", "[54,58]"), "truncated"},
    {"offset 2^62", T("\"F32\"", "[1]", "[4611686018427387904,4611686018427387908]"), "truncated"},
    {"too few bytes for the shape", T("\"F32\"", "[3,4]", "[0,44]"), "need 48 bytes"},
    {"two over one another",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
     "overlaps"},
};

static void each_lie_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        struct eng_model_file *f = NULL;
        enum err e = eng_model_file_open(&f, checkpoint(config, lies[i].head));
        if (e != ERR_BAD_FILE || !strstr(err_text(), lies[i].says) ||
            !strstr(err_text(), "model.safetensors") || f)
            fail_msg("%s: error %d, \"%s\"", lies[i].claim, e, e ? err_text() : "");
    }
}

static void a_header_longer_than_the_file_costs_no_memory(void **state)
{
    static const uint64_t lengths[] = {200000, 99999999, 100000001, 1ull << 62, UINT64_MAX};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        const char *files[] = {"config.json", config, NULL}, *dir = hf_write_dir(files);
        struct eng_model_file *f = NULL;
        put_weights(dir, "model.safetensors", header, lengths[i], DATA);
        assert_int_equal(eng_model_file_open(&f, dir), ERR_BAD_FILE);
        assert_non_null(strstr(err_text(), "header claims"));
    }
}

static void truncation_at_every_byte_is_an_error(void **state)
{
    (void)state;
    struct buf all = {0};
    const char *dir = checkpoint(config, header);
    char *path = xasprintf("%s/model.safetensors", dir);
    assert_true(scratch_read(path, &all));
    for (size_t n = 0; n < all.len; n++) {
        struct eng_model_file *f = NULL;
        scratch_write(path, all.data, n);
        assert_int_equal(eng_model_file_open(&f, dir), ERR_BAD_FILE);
        assert_non_null(strstr(err_text(), "model.safetensors"));
    }
    buf_free(&all);
    free(path);
}

/* ---- config.json ---- */

/* The honest config with one more key; a key said twice is a lie too, so the first is taken out. */
static char *with(const char *pair)
{
    char key[64], *out = xstrdup(config);
    snprintf(key, sizeof key, "%.*s", (int)(strchr(pair, ':') - pair), pair);
    char *at = strstr(out, key),
         *end = at ? strchr(at, *strchr(at, ':') && strchr(at, ':')[1] == '[' ? ']' : ',') : NULL;
    if (at && !end) end = strchr(at, '}');
    if (at && *end == ']') end++;
    if (at && *end == ',') end++;
    if (at) memmove(at, end, strlen(end) + 1);
    size_t n = strlen(out);
    if (out[n - 2] == ',') out[n - 2] = '}', out[n - 1] = 0;
    n = strlen(out);
    out[n - 1] = 0;
    char *full = xasprintf("%s,%s}", out, pair);
    free(out);
    return full;
}

#define V2 "\"architectures\":[\"DeepseekV2ForCausalLM\"],"
#define EXPERTS "\"n_routed_experts\":8,"

static const struct wrong {
    const char *pair;
    enum err err; /* of opening or, when that is well, of eng_spec_read */
    const char *says;
} wrongs[] = {
    {"\"architectures\":[\"MambaForCausalLM\"]", ERR_UNSUPPORTED,
     "MambaForCausalLM is not supported"},
    {"\"architectures\":[\"MambaForCausalLM\"]", ERR_UNSUPPORTED,
     "LlamaForCausalLM, MistralForCausalLM, MixtralForCausalLM, Qwen2ForCausalLM"},
    {"\"hidden_size\":\"4\"", ERR_BAD_FILE, "'hidden_size' is not an integer"},
    {"\"hidden_size\":0", ERR_BAD_FILE, "'hidden_size' is 0"},
    {"\"hidden_size\":null", ERR_BAD_FILE, "'hidden_size' is missing"},
    {"\"num_hidden_layers\":-3", ERR_BAD_FILE, "'num_hidden_layers' is -3"},
    {"\"max_position_embeddings\":1.5", ERR_BAD_FILE,
     "'max_position_embeddings' is not an integer"},
    {"\"rms_norm_eps\":\"tiny\"", ERR_BAD_FILE, "'rms_norm_eps' is not a number"},
    {"\"vocab_size\":5", ERR_BAD_FILE, "'vocab_size' is 5"},
    {"\"tie_word_embeddings\":false", ERR_BAD_FILE, "lm_head.weight is missing"},
    {"\"tie_word_embeddings\":7", ERR_BAD_FILE, "'tie_word_embeddings'"},
    {"\"partial_rotary_factor\":2", ERR_BAD_FILE, "'partial_rotary_factor' is 2"},
    {"\"rope_scaling\":{\"rope_type\":\"longrope\"}", ERR_BAD_FILE, "'long_factor'"},
    {"\"rope_scaling\":{\"rope_type\":\"longrope\",\"long_factor\":[1,0]}", ERR_BAD_FILE,
     "entry 1 of 'long_factor'"},
    {"\"rope_scaling\":{\"rope_type\":\"abacus\"}", ERR_UNSUPPORTED, "'abacus'"},
    {"\"layer_types\":[\"linear_attention\",\"linear_attention\"],\"sliding_window\":2",
     ERR_UNSUPPORTED, "'linear_attention'"},
    {"\"clip_qkv\":8.0", ERR_UNSUPPORTED, "clip_qkv"},
    {"\"rope_scaling\":{\"type\":\"linear\"}", ERR_BAD_FILE, "positive 'factor'"},
    {"\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}", ERR_BAD_FILE, "'low_freq_factor'"},
    {"\"architectures\":[\"OlmoeForCausalLM\"],\"mlp_bias\":true", ERR_UNSUPPORTED, "mlp_bias"},
    {"\"architectures\":[\"OlmoeForCausalLM\"],\"attention_bias\":true", ERR_UNSUPPORTED, "attention_bias"},
    {"\"architectures\":[\"Llama4ForCausalLM\"],\"intermediate_size_mlp\":8,\"no_rope_layers\":[2]", ERR_BAD_FILE, "entry 0 of 'no_rope_layers'"},
    {"\"architectures\":[\"Llama4ForCausalLM\"],\"intermediate_size_mlp\":8,\"layer_types\":[\"sliding_attention\"]",
     ERR_BAD_FILE, "entry 0 of 'layer_types'"},
    {"\"architectures\":[\"Llama4ForCausalLM\"],\"intermediate_size_mlp\":8,\"attention_chunk_size\":0", ERR_BAD_FILE, "'attention_chunk_size' is 0"},
    {"\"architectures\":[\"Llama4ForCausalLM\"],\"intermediate_size_mlp\":8,\"num_key_value_heads\":2,\"attn_scale\":-1.0", ERR_BAD_FILE,
     "a temperature of scale -1"},
    {"\"architectures\":[\"Llama4ForCausalLM\"]", ERR_BAD_FILE, "'intermediate_size_mlp' is missing"},
    {"\"hidden_act\":\"gelu\"", ERR_UNSUPPORTED, "'gelu'"},
    {V2 "\"kv_lora_rank\":0", ERR_BAD_FILE, "'kv_lora_rank' is 0"},
    {V2 "\"kv_lora_rank\":100000", ERR_BAD_FILE, "'kv_lora_rank' is 100000"},
    {V2 "\"q_lora_rank\":-1", ERR_BAD_FILE, "'q_lora_rank' is -1"},
    {V2 "\"qk_nope_head_dim\":0", ERR_BAD_FILE, "'qk_nope_head_dim' is 0"},
    {V2 "\"qk_rope_head_dim\":1", ERR_BAD_FILE, "'qk_rope_head_dim' is 1"},
    {V2 "\"qk_rope_head_dim\":7", ERR_BAD_FILE, "rope of 7 dims"},
    {V2 "\"v_head_dim\":2000", ERR_BAD_FILE, "'v_head_dim' is 2000"},
    {V2 "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":1,\"mscale_all_dim\":-3}", ERR_BAD_FILE, "yarn_log_multiplier"},
    {V2 "\"n_routed_experts\":100000", ERR_BAD_FILE, "'n_routed_experts' is 100000"},
    {V2 EXPERTS "\"num_experts_per_tok\":9", ERR_BAD_FILE, "'num_experts_per_tok' is 9"},
    {V2 "\"n_routed_experts\":8", ERR_BAD_FILE, "'num_experts_per_tok' must be above 0"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"routed_scaling_factor\":-1.0", ERR_BAD_FILE, "'routed_scaling_factor' must be above 0"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"moe_layer_freq\":0", ERR_BAD_FILE, "'moe_layer_freq' is 0"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"first_k_dense_replace\":-1", ERR_BAD_FILE, "'first_k_dense_replace' is -1"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"topk_method\":\"group_limited_greedy\",\"n_group\":9", ERR_BAD_FILE, "'n_group' is 9"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"topk_method\":\"group_limited_greedy\",\"n_group\":2,\"topk_group\":3", ERR_BAD_FILE, "'topk_group' is 3"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"topk_method\":\"noaux_tc\"", ERR_UNSUPPORTED, "topk_method 'noaux_tc'"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"scoring_func\":\"sigmoid\"", ERR_UNSUPPORTED, "scoring_func 'sigmoid'"},
    {V2 EXPERTS "\"num_experts_per_tok\":2,\"norm_topk_prob\":true", ERR_UNSUPPORTED, "norm_topk_prob true"},
    {V2 EXPERTS "\"num_experts_per_tok\":2", ERR_BAD_FILE, "no layer has a router"},
    {V2 "\"num_key_value_heads\":1", ERR_UNSUPPORTED, "num_key_value_heads 1"},
    {V2 "\"attention_bias\":true", ERR_UNSUPPORTED, "attention_bias"},
    {"\"architectures\":[\"DeepseekV3ForCausalLM\"]," EXPERTS "\"topk_method\":\"greedy\"", ERR_UNSUPPORTED, "topk_method 'greedy'"},
    {"\"architectures\":[\"DeepseekV3ForCausalLM\"]," EXPERTS "\"scoring_func\":\"softmax\"", ERR_UNSUPPORTED, "scoring_func 'softmax'"},
    {"\"quantization_config\":{\"quant_method\":\"hqq\"}", ERR_UNSUPPORTED, "'hqq'"},
    {"\"quantization_config\":7", ERR_BAD_FILE, "'quantization_config' is not an object"},
};

static void each_wrong_switch_of_config_json_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(wrongs); i++) {
        struct eng_model_file *f = NULL;
        struct eng_spec s;
        char *conf = with(wrongs[i].pair);
        enum err e = eng_model_file_open(&f, checkpoint(conf, header));
        if (!e) e = eng_spec_read(&s, f);
        if (e != wrongs[i].err || !strstr(err_text(), wrongs[i].says))
            fail_msg("%s: error %d, \"%s\"", wrongs[i].pair, e, e ? err_text() : "");
        eng_model_file_close(f);
        free(conf);
    }
}

static void what_a_family_does_not_have_is_refused_and_listed(void **state)
{
    static const char extra[] = "{\"model.layers.0.self_attn.r_proj.bias\":{\"dtype\":\"F32\","
                                "\"shape\":[1],\"data_offsets\":[0,4]}}";
    static const char wide[] = "{\"model.embed_tokens.weight\":{\"dtype\":\"I16\",\"shape\":[3,"
                               "4],\"data_offsets\":[0,24]}}";
    (void)state;
    struct eng_spec s;
    struct eng_model_file *f = open_dir(checkpoint(config, extra));
    assert_int_equal(eng_spec_read(&s, f), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "self_attn.r_proj.bias"));
    assert_non_null(eng_model_file_tensor_find(f, "model.layers.0.self_attn.r_proj.bias"));
    eng_model_file_close(f);
    f = open_dir(checkpoint(config, wide));
    const struct model_tensor *t = eng_model_file_tensor_find(f, "token_embd.weight");
    uint8_t b[4];
    assert_int_equal(t->type, DTYPE_COUNT);
    assert_int_equal(eng_model_file_read(f, t, 0, 4, b), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "I16"));
    eng_model_file_close(f);
}

/* LLaVA 1.5 as published: its text_config says next to nothing of a Llama of the class's own sizes. Where no text_config is, sizes must be said. */
static void what_llava_leaves_unsaid_is_known(void **state)
{
    static const char said[] =
        "{\"architectures\":[\"LlavaForConditionalGeneration\"],\"image_token_index\":32000,\"model_type\":\"llava\","
        "\"text_config\":{\"_name_or_path\":\"lmsys/vicuna-7b-v1.5\",\"architectures\":[\"LlamaForCausalLM\"],\"max_position_embeddings\":4096,"
        "\"model_type\":\"llama\",\"rms_norm_eps\":1e-05,\"torch_dtype\":\"float16\"},\"tie_word_embeddings\":false,"
        "\"vision_config\":{\"hidden_size\":1024,\"model_type\":\"clip_vision_model\",\"num_attention_heads\":16}}";
    static const char head[] = "{\"language_model.model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[3,4],\"data_offsets\":[0,48]},"
                               "\"language_model.lm_head.weight\":{\"dtype\":\"BF16\",\"shape\":[1,4],\"data_offsets\":[48,56]}}";
    (void)state;
    struct eng_spec s;
    struct eng_model_file *f = open_dir(checkpoint(said, head));
    if (eng_spec_read(&s, f)) fail_msg("%s", err_text());
    assert_true(s.n_layers == 32 && s.d_model == 4096 && s.d_ffn == 11008 && s.n_heads == 32 && s.n_kv_heads == 32 && s.head_dim == 128);
    assert_true(s.context == 4096 && !s.tied && !s.window && !strcmp(s.arch, "llama"));
    eng_model_file_close(f);
}

/* As published: what is the class's default is not said, and vision comes first. */
static void what_gemma3_leaves_unsaid_is_known(void **state)
{
    static const char said[] =
        "{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"eos_token_id\":[1,106],\"model_type\":\"gemma3\","
        "\"text_config\":{\"hidden_size\":4,\"intermediate_size\":8,\"model_type\":\"gemma3_text\",\"num_hidden_layers\":12,"
        "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},\"sliding_window\":1024},"
        "\"torch_dtype\":\"bfloat16\",\"vision_config\":{\"hidden_size\":1152,\"num_attention_heads\":16}}";
    (void)state;
    struct eng_spec s;
    struct eng_model_file *f = open_dir(checkpoint(said, header));
    if (eng_spec_read(&s, f)) fail_msg("%s", err_text());
    assert_true(s.n_heads == 8 && s.n_kv_heads == 4 && s.head_dim == 256 && s.d_model == 4 && s.context == 131072 && s.tied);
    const struct model_kv *eos = eng_model_file_find(f, "tokenizer.ggml.eos_token_ids");
    assert_true(eos && eos->a.n == 2 && eng_model_file_array_int(eos, 1) == 106);
    eng_model_file_close(f);
}

static void a_directory_without_weights_opens_for_its_words(void **state)
{
    const char *files[] = {"config.json", config, NULL}, *none[] = {"notes.txt", "", NULL};
    (void)state;
    struct eng_spec s;
    struct eng_model_file *f = open_dir(hf_write_dir(files));
    assert_int_equal(eng_spec_read(&s, f), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "no weights"));
    eng_model_file_close(f);
    const char *pickle[] = {"config.json", config, "pytorch_model.bin", "x", NULL};
    f = open_dir(hf_write_dir(pickle));
    assert_int_equal(eng_spec_read(&s, f), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "pickle"));
    eng_model_file_close(f);
    f = NULL;
    assert_int_equal(eng_model_file_open(&f, hf_write_dir(none)), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "without config.json"));
    char *path = xasprintf("%s/model.safetensors", checkpoint(config, header));
    assert_int_equal(eng_model_file_open(&f, path), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "give its directory"));
    free(path);
}

static void models_of_other_programs_are_refused_by_name(void **state)
{
    static const struct {
        const char *file, *text, *says;
    } cases[] = {
        {"mlc-chat-config.json", "{}", "an MLC model"},
        {"ndarray-cache.json", "{}", "an MLC model"},
        {"genai_config.json", "{}", "an ONNX model"},
        {"decoder_model_merged.onnx", "x", "an ONNX model"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *files[] = {"config.json", config, cases[i].file, cases[i].text, NULL};
        struct eng_model_file *f = NULL;
        assert_int_equal(eng_model_file_open(&f, hf_write_dir(files)), ERR_UNSUPPORTED);
        assert_non_null(strstr(err_text(), cases[i].says));
        assert_non_null(strstr(err_text(), "tessera quantize"));
    }
    static const char *const single[] = {"model.onnx", "pytorch_model.bin"};
    for (size_t i = 0; i < COUNT_OF(single); i++) {
        const char *files[] = {single[i], "0123456789", NULL};
        struct eng_model_file *f = NULL;
        char *path = xasprintf("%s/%s", hf_write_dir(files), single[i]);
        assert_int_equal(eng_model_file_open(&f, path), ERR_UNSUPPORTED);
        assert_non_null(strstr(err_text(), i ? "pickle" : "an ONNX model"));
        free(path);
    }
}

/* ---- shards ---- */

static const struct shards {
    const char *claim, *index, *says; /* says NULL: opens */
} shards[] = {
    {"two files",
     "{\"weight_map\":{\"model.embed_tokens.weight\":\"a.safetensors\",\"model.norm.weight\":\"b."
     "safetensors\"}}",
     NULL},
    {"no map", "{}", "weight_map"},
    {"no JSON", "{", "not JSON"},
    {"another directory", "{\"weight_map\":{\"a\":\"../a.safetensors\"}}",
     "file of this directory"},
    {"an absolute path", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "file of this directory"},
    {"a number", "{\"weight_map\":{\"a\":1}}", "file of this directory"},
    {"a missing file", "{\"weight_map\":{\"a\":\"c.safetensors\"}}", "c.safetensors"},
    {"a tensor elsewhere",
     "{\"weight_map\":{\"model.norm.weight\":\"a.safetensors\",\"model.embed_tokens.weight\":\"b."
     "safetensors\"}}",
     "is not in"},
    {"a tensor nowhere", "{\"weight_map\":{\"x\":\"a.safetensors\"}}",
     "'x' is not in a.safetensors"},
    {"one in both",
     "{\"weight_map\":{\"model.embed_tokens.weight\":\"a.safetensors\",\"model.norm.weight\":\"b."
     "safetensors\",\"twice\":\"c2.safetensors\"}}",
     "twice"},
};

static void shards_are_joined_and_lies_of_the_index_refused(void **state)
{
    static const char embed[] =
        "{" E "{\"dtype\":\"F32\",\"shape\":[3,4],\"data_offsets\":[0,48]}}";
    static const char norm[] =
        "{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}";
    static const char both[] =
        "{\"twice\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
        "\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,32]}}";
    (void)state;
    for (size_t i = 0; i < COUNT_OF(shards); i++) {
        const char *files[] = {"config.json", config, "model.safetensors.index.json",
                               shards[i].index, NULL};
        const char *dir = hf_write_dir(files);
        struct eng_model_file *f = NULL;
        put_weights(dir, "a.safetensors", embed, strlen(embed), 48);
        put_weights(dir, "b.safetensors", norm, strlen(norm), 16);
        put_weights(dir, "c2.safetensors", both, strlen(both), 32);
        enum err e = eng_model_file_open(&f, dir);
        if (!shards[i].says) {
            if (e) fail_msg("%s", err_text());
            assert_int_equal(eng_model_file_parts(f), 2);
            assert_non_null(eng_model_file_tensor_find(f, "output_norm.weight"));
            eng_model_file_close(f);
        } else if (!e || !strstr(err_text(), shards[i].says))
            fail_msg("%s: error %d, \"%s\"", shards[i].claim, e, e ? err_text() : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_opens_with_gguf_names_and_keys),
        cmocka_unit_test(each_lie_is_refused_by_name),
        cmocka_unit_test(a_header_longer_than_the_file_costs_no_memory),
        cmocka_unit_test(truncation_at_every_byte_is_an_error),
        cmocka_unit_test(each_wrong_switch_of_config_json_is_refused_by_name),
        cmocka_unit_test(what_a_family_does_not_have_is_refused_and_listed),
        cmocka_unit_test(what_gemma3_leaves_unsaid_is_known),
        cmocka_unit_test(what_llava_leaves_unsaid_is_known),
        cmocka_unit_test(a_directory_without_weights_opens_for_its_words),
        cmocka_unit_test(models_of_other_programs_are_refused_by_name),
        cmocka_unit_test(shards_are_joined_and_lies_of_the_index_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
