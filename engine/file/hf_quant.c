/* hf_quant.c: see hf_quant.h. */
#include "engine/file/hf_quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_CONFIG = 1 << 20, MOST_GROUP = 1 << 20 };

struct reading {
    struct eng_hf_quant *q;
    struct eng_hf_obj o;     /* the object that is read */
    struct eng_hf_keys *k;
};

static void refuse(const struct reading *r, const char *key, const char *seen, const char *known)
{
    r->q->refused = true;
    eng_hf_refuse(r->k, "%s: %s '%s' is not supported (known: %s)", r->o.what, key, seen, known);
}

/* A text that must be one of the list (" a b c "), when it is said. */
static enum err one_of(const struct reading *r, const char *key, const char *def, const char *list, const char **out)
{
    char word[80];
    enum err rc = eng_hf_text(r->o, key, def, out);
    if (rc || !*out) return rc;
    struct eng_shown seen = eng_show(*out, strlen(*out));
    snprintf(word, sizeof word, " %s ", seen.s);
    if (!strstr(list, word)) refuse(r, key, seen.s, list);
    return OK;
}

static enum err number(const struct reading *r, const char *key, const char *also, int64_t def, int64_t min, int64_t max, int64_t *out)
{
    enum err rc = eng_hf_int(r->o, also, def, min, max, out);
    return rc ? rc : eng_hf_int(r->o, key, *out, min, max, out);
}

/* -1, and nothing said, is the whole row: 0 here. */
static enum err group_size(const struct reading *r, const char *key, const char *also, struct eng_quant_scheme *s)
{
    int64_t group;
    enum err rc = number(r, key, also, -1, -1, MOST_GROUP, &group);
    if (rc) return rc;
    if (!group) return err_raise(ERR_BAD_FILE, "%s: key '%s' is 0, it must be -1 (all) or more than 0", r->o.what, key);
    s->group = MAX(group, 0);
    s->spread = s->group ? SPREAD_GROUP : SPREAD_CHANNEL;
    return OK;
}

/* ---- FP8 ---- */

static enum err block_shape(const struct reading *r, const char *key, struct eng_quant_scheme *s)
{
    const json_t *b = json_object_get(r->o.json, key);
    if (!b || json_is_null(b)) return OK;
    int64_t rows = json_integer_value(json_array_get(b, 0)), cols = json_integer_value(json_array_get(b, 1));
    if (json_array_size(b) != 2 || rows < 1 || cols < 1 || rows > MOST_GROUP || cols > MOST_GROUP)
        return err_raise(ERR_BAD_FILE, "%s: key '%s' must be two numbers above 0", r->o.what, key);
    s->spread = SPREAD_BLOCK;
    s->block_rows = rows;
    s->block_cols = cols;
    return OK;
}

/* DeepSeek's and Qwen's, and what Hugging Face calls fbgemm_fp8. */
static enum err read_fp8(const struct reading *r)
{
    enum err rc;
    const char *text;
    struct eng_quant_scheme *s = r->q->schemes;
    *s = (struct eng_quant_scheme){.is_float = true, .bits = 8};
    TRY(one_of(r, "fmt", NULL, " e4m3 e5m2 float8_e4m3fn float8_e5m2 ", &text));
    TRY(block_shape(r, "weight_block_size", s));
out:
    return rc;
}

/* ---- compressed-tensors ---- */

static enum err names_of(const struct reading *r, const char *key, struct eng_quant_names *out)
{
    const json_t *list = json_object_get(r->o.json, key);
    *out = (struct eng_quant_names){0};
    if (!list || json_is_null(list)) return OK;
    out->n = json_array_size(list);
    out->at = arena_alloc(r->k->a, (out->n + 1) * sizeof *out->at);
    for (size_t i = 0; i < out->n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name) return err_raise(ERR_BAD_FILE, "%s: key '%s' is not a list of texts", r->o.what, key);
        out->at[i] = arena_strndup(r->k->a, name, strlen(name));
    }
    return json_is_array(list) ? OK : err_raise(ERR_BAD_FILE, "%s: key '%s' is not a list of texts", r->o.what, key);
}

static enum err read_spread(const struct reading *r, struct eng_quant_scheme *s)
{
    enum err rc;
    const char *strategy;
    TRY(one_of(r, "strategy", NULL, " tensor channel group block tensor_group ", &strategy));
    if (r->q->refused) goto out;
    TRY(group_size(r, "group_size", "group_size", s));
    if (!strategy) goto out;
    bool in_groups = strstr(strategy, "group") != NULL;
    if (in_groups && !s->group) rc = err_raise(ERR_BAD_FILE, "%s: key 'group_size' is missing", r->o.what);
    if (!strcmp(strategy, "tensor")) s->spread = SPREAD_TENSOR;
    if (!strcmp(strategy, "channel")) s->spread = SPREAD_CHANNEL;
    if (!in_groups) s->group = 0;
    if (strcmp(strategy, "block")) goto out;
    const char *text = json_string_value(json_object_get(r->o.json, "block_structure"));
    long rows = 0, cols = 0;
    if (!text) {
        TRY(block_shape(r, "block_structure", s));
    } else if (sscanf(text, "%7ldx%7ld", &rows, &cols) == 2 && rows > 0 && cols > 0) {
        s->block_rows = rows;
        s->block_cols = cols;
    }
    s->spread = SPREAD_BLOCK;
    if (!s->block_rows) rc = err_raise(ERR_BAD_FILE, "%s: key 'block_structure' must be two numbers above 0", r->o.what);
out:
    return rc;
}

/* The object "weights" of a group. */
static enum err read_weights(const struct reading *r, struct eng_quant_scheme *s)
{
    enum err rc;
    const char *type, *order;
    int64_t bits;
    const json_t *actorder = json_object_get(r->o.json, "actorder");
    TRY(one_of(r, "type", "int", " int float ", &type));
    TRY(eng_hf_int(r->o, "num_bits", 8, 1, 32, &bits));
    TRY(eng_hf_bool(r->o, "symmetric", true, &s->symmetric));
    s->is_float = !strcmp(type, "float");
    s->bits = (int32_t)bits;
    TRY(read_spread(r, s));
    if (json_is_true(actorder)) s->by_column = true;
    if (json_is_string(actorder)) {
        TRY(one_of(r, "actorder", NULL, " weight static group dynamic ", &order));
        s->by_column = !strcmp(order, "group") || !strcmp(order, "dynamic");
    }
    bool fp4 = s->is_float && bits == 4 && (s->group == 16 || s->group == 32);
    if (bits > 8 || (s->is_float && bits != 8 && !fp4))
        refuse(r, "num_bits", bits == 4 ? "4" : "of this width", s->is_float ? "8 for float, 4 in groups of 16 or 32" : "1 to 8 for int");
    if (s->is_float && !s->symmetric) refuse(r, "symmetric", "false", "true for float");
out:
    return rc;
}

static enum err read_group(const struct reading *r, const char *name, struct eng_quant_scheme *s)
{
    enum err rc;
    const char *format;
    char *what = xasprintf("%s.config_groups.%s", r->q->what, eng_show(name, strlen(name)).s);
    char *inner = xasprintf("%s.weights", what);
    struct reading g = {r->q, {r->o.json, what}, r->k};
    const json_t *weights = json_object_get(r->o.json, "weights");
    if (!json_is_object(r->o.json)) TRY(err_raise(ERR_BAD_FILE, "%s is not an object", what));
    TRY(names_of(&g, "targets", &s->targets));
    TRY(one_of(&g, "format", NULL, " pack-quantized int-quantized float-quantized naive-quantized nvfp4-pack-quantized mxfp4-pack-quantized dense ", &format));
    if (json_is_object(weights)) {
        struct reading w = {r->q, {weights, inner}, r->k};
        TRY(read_weights(&w, s));
    } else {
        s->targets.n = 0; /* only activations are quantised */
    }
out:
    free(what);
    free(inner);
    return rc;
}

/* Parts of it that must be empty: what they would do we do not. */
static enum err must_be_idle(const struct reading *r)
{
    enum err rc;
    const char *text;
    const json_t *sparse = json_object_get(r->o.json, "sparsity_config"), *turns = json_object_get(r->o.json, "transform_config");
    struct reading s = {r->q, {sparse, r->o.what}, r->k};
    TRY(one_of(&s, "format", NULL, " dense ", &text));
    if (json_object_size(json_object_get(turns, "config_groups"))) refuse(r, "transform_config", "of rotations", "none");
    TRY(one_of(r, "quantization_status", NULL, " compressed frozen initialized calibration ", &text));
out:
    return rc;
}

static enum err read_compressed(const struct reading *r)
{
    enum err rc;
    const char *format, *name;
    json_t *group, *groups = json_object_get(r->o.json, "config_groups");
    TRY(one_of(r, "format", NULL, " pack-quantized int-quantized float-quantized naive-quantized nvfp4-pack-quantized mxfp4-pack-quantized "
               "mixed-precision dense ", &format));
    TRY(must_be_idle(r));
    TRY(names_of(r, "ignore", &r->q->ignore));
    if (groups && !json_is_object(groups)) TRY(err_raise(ERR_BAD_FILE, "%s: key 'config_groups' is not an object", r->q->what));
    r->q->n_schemes = 0;
    json_object_foreach(groups, name, group)
    {
        struct reading g = {r->q, {group, r->q->what}, r->k};
        if (r->q->n_schemes == QUANT_MOST_SCHEMES)
            TRY(err_raise(ERR_BAD_FILE, "%s: more than %d config_groups", r->q->what, QUANT_MOST_SCHEMES));
        TRY(read_group(&g, name, &r->q->schemes[r->q->n_schemes++]));
    }
out:
    return rc;
}

/* ---- GPTQ, AWQ ---- */

/* A part of the config that must be empty: it says other things of single modules. */
static void must_be_empty(const struct reading *r, const char *key)
{
    const json_t *v = json_object_get(r->o.json, key);
    if (json_object_size(v) || json_array_size(v)) refuse(r, key, "for single modules", "none");
}

static enum err width(const struct reading *r, const char *key, const char *also, const char *known, struct eng_quant_scheme *s)
{
    int64_t bits;
    char text[16];
    enum err rc = number(r, key, also, 4, 1, 32, &bits);
    if (rc) return rc;
    snprintf(text, sizeof text, " %d ", (int)bits);
    s->bits = (int32_t)bits;
    if (!strstr(known, text)) refuse(r, key, text, known);
    return OK;
}

static enum err read_gptq(const struct reading *r)
{
    enum err rc;
    const char *format, *old;
    bool marlin, order;
    struct eng_quant_scheme *s = r->q->schemes;
    *s = (struct eng_quant_scheme){0};
    TRY(width(r, "bits", "bits", " 2 3 4 8 ", s));
    TRY(group_size(r, "group_size", "group_size", s));
    TRY(eng_hf_bool(r->o, "sym", true, &s->symmetric));
    TRY(eng_hf_bool(r->o, "desc_act", false, &order));
    TRY(eng_hf_text(r->o, "format", "gptq", &old));
    TRY(one_of(r, "checkpoint_format", old, " gptq gptq_v2 ", &format));
    TRY(eng_hf_bool(r->o, "is_marlin_format", false, &marlin));
    if (marlin) refuse(r, "is_marlin_format", "true", "false");
    must_be_empty(r, "dynamic");
    s->by_column = order && s->group;
    s->zero_less_one = !strcmp(format, "gptq");
out:
    return rc;
}

static enum err read_awq(const struct reading *r)
{
    enum err rc;
    const char *version;
    bool zero_point;
    char low[16] = "";
    struct eng_quant_scheme *s = r->q->schemes;
    *s = (struct eng_quant_scheme){0};
    TRY(width(r, "bits", "w_bit", " 4 ", s));
    TRY(group_size(r, "group_size", "q_group_size", s));
    TRY(eng_hf_bool(r->o, "zero_point", true, &zero_point));
    if (!zero_point) refuse(r, "zero_point", "false", "true");
    TRY(eng_hf_text(r->o, "version", "gemm", &version));
    for (size_t i = 0; i + 1 < sizeof low && version[i]; i++) low[i] = (char)(version[i] | 32);
    if (strcmp(low, "gemm")) refuse(r, "version", eng_show(version, strlen(version)).s, "gemm");
out:
    return rc;
}

/* ---- MXFP4 ---- */

/* Nothing is said: only experts are of it (hf_experts.c). */
static enum err read_mxfp4(const struct reading *r)
{
    *r->q->schemes = (struct eng_quant_scheme){.is_float = true, .bits = 4};
    return OK;
}

/* ---- ModelOpt, Quark ---- */

/* What exclude_modules names is not quantised in the files either. */
static enum err read_modelopt(const struct reading *r)
{
    enum err rc;
    const char *algo;
    struct eng_quant_scheme *s = r->q->schemes;
    *s = (struct eng_quant_scheme){.is_float = true, .bits = 8, .symmetric = true};
    TRY(one_of(r, "quant_algo", "(unsaid)", " FP8 NVFP4 ", &algo));
    if (!strcmp(algo, "NVFP4")) s->bits = 4, s->group = 16, s->spread = SPREAD_GROUP;
out:
    return rc;
}

static enum err read_quark(const struct reading *r)
{
    enum err rc;
    const char *type, *spread, *scales;
    int64_t group;
    const json_t *all = json_object_get(r->o.json, "global_quant_config"), *weight = json_object_get(all, "weight");
    struct reading w = {r->q, {weight, r->o.what}, r->k};
    struct eng_quant_scheme *s = r->q->schemes;
    *s = (struct eng_quant_scheme){.is_float = true, .bits = 8, .symmetric = true};
    TRY(one_of(&w, "dtype", "(unsaid)", " fp8_e4m3 fp4 ", &type));
    TRY(one_of(&w, "qscheme", "(unsaid)", " per_tensor per_channel per_group ", &spread));
    TRY(eng_hf_int(w.o, "group_size", 32, 0, MOST_GROUP, &group));
    TRY(one_of(&w, "scale_format", NULL, " e8m0 float32 ", &scales));
    bool fp4 = !strcmp(type, "fp4"), groups = !strcmp(spread, "per_group");
    if (json_object_size(json_object_get(r->o.json, "layer_quant_config"))) refuse(r, "layer_quant_config", "of single modules", "none");
    if (fp4 != groups || (fp4 && group != 32)) refuse(&w, "qscheme", spread, fp4 ? "per_group, of 32" : "per_tensor, per_channel");
    if (fp4) s->bits = 4, s->group = 32, s->spread = SPREAD_GROUP;
out:
    return rc;
}

/* ---- bitsandbytes ---- */

static enum err read_bnb(const struct reading *r)
{
    enum err rc;
    bool four, eight;
    const char *type;
    *r->q->schemes = (struct eng_quant_scheme){.bits = 4};
    TRY(eng_hf_bool(r->o, "load_in_4bit", false, &four));
    TRY(eng_hf_bool(r->o, "load_in_8bit", false, &eight));
    TRY(one_of(r, "bnb_4bit_quant_type", "fp4", " nf4 fp4 ", &type));
    if (!four || eight)
        refuse(r, "load_in_8bit", "true", "load_in_4bit; its 8 bits are made for its own kernels: give the checkpoint it was made of, or a GGUF file");
out:
    return rc;
}

/* ---- AutoRound ---- */

/* Modules of other bits than the rest; of 16 are those that are not quantised. */
static bool has_other_bits(const struct reading *r)
{
    const char *name;
    json_t *module;
    const json_t *bits = json_object_get(r->o.json, "bits"), *group = json_object_get(r->o.json, "group_size");
    json_object_foreach(json_object_get(r->o.json, "extra_config"), name, module)
    {
        const json_t *b = json_object_get(module, "bits"), *g = json_object_get(module, "group_size");
        if (json_integer_value(b) < 16 && ((b && !json_equal(b, bits)) || (g && !json_equal(g, group)))) return true;
    }
    return false;
}

static enum err read_autoround(const struct reading *r)
{
    enum err rc;
    const char *packing, *type;
    TRY(one_of(r, "packing_format", "(unsaid)", " auto_round:auto_gptq auto_round:auto_awq ", &packing));
    TRY(one_of(r, "data_type", "int", " int ", &type));
    if (has_other_bits(r)) refuse(r, "extra_config", "of other bits", "one width for all");
    if (r->q->refused) goto out;
    if (!strcmp(packing, "auto_round:auto_awq")) r->q->method = QUANT_AWQ;
    rc = r->q->method == QUANT_AWQ ? read_awq(r) : read_gptq(r);
out:
    return rc;
}

/* ---- all ---- */

static const struct method {
    const char *name;
    enum eng_quant_method method;
    enum err (*read)(const struct reading *r); /* NULL: refused */
    const char *instead;
} methods[] = {
    {"fp8", QUANT_FP8, read_fp8, NULL},
    {"fbgemm_fp8", QUANT_FP8, read_fp8, NULL},
    {"gptq", QUANT_GPTQ, read_gptq, NULL},
    {"awq", QUANT_AWQ, read_awq, NULL},
    {"compressed-tensors", QUANT_COMPRESSED, read_compressed, NULL},
    {"mxfp4", QUANT_MXFP4, read_mxfp4, NULL},
    {"bitsandbytes", QUANT_BNB, read_bnb, NULL},
    {"modelopt", QUANT_FP8, read_modelopt, NULL},
    {"modelopt_fp4", QUANT_FP8, read_modelopt, NULL},
    {"quark", QUANT_FP8, read_quark, NULL},
    {"auto-round", QUANT_GPTQ, read_autoround, NULL},
    {"intel/auto-round", QUANT_GPTQ, read_autoround, NULL},
    {"torchao", QUANT_NONE, NULL, "its tensors are pickled objects of torchao: give the checkpoint it was made of, or a GGUF file"},
    {"hqq", QUANT_NONE, NULL, "HQQ's codes run in its own kernels: give the checkpoint it was made of, or a GGUF file"},
    {"exl2", QUANT_NONE, NULL, "EXL2 files run in exllama alone: give the checkpoint it was made of, or a GGUF file"},
    {"exl3", QUANT_NONE, NULL, "EXL3 files run in exllama alone: give the checkpoint it was made of, or a GGUF file"},
};

static const char instead[] = "use the unquantised checkpoint or a GGUF file";

/* config.json's "dtype", or "torch_dtype" as it was called before. */
static enum err read_dense(struct eng_hf_obj config, enum dtype *out)
{
    const char *text, *old;
    enum err rc = eng_hf_text(config, "torch_dtype", "float32", &old);
    if (!rc) rc = eng_hf_text(config, "dtype", old, &text);
    if (rc) return rc;
    *out = !strcmp(text, "bfloat16") ? DTYPE_BF16 : !strcmp(text, "float16") ? DTYPE_F16 : DTYPE_F32;
    return OK;
}

static enum err read_method(const struct reading *r, const char *unsaid)
{
    const char *name;
    enum err rc = eng_hf_text(r->o, "quant_method", unsaid, &name);
    for (size_t i = 0; i < COUNT_OF(methods) && !rc; i++) {
        if (strcmp(name, methods[i].name)) continue;
        r->q->method = methods[i].method;
        r->q->n_schemes = 1;
        if (methods[i].read) return methods[i].read(r);
        r->q->refused = true;
        eng_hf_refuse(r->k, "%s: weights quantised by '%s' are not supported; %s", r->o.what, name, methods[i].instead);
        return OK;
    }
    r->q->refused = true;
    if (!rc) eng_hf_refuse(r->k, "%s: weights quantised by '%s' are not supported; %s", r->o.what, eng_show(name, strlen(name)).s, instead);
    return rc;
}

/* Where the weights' quantisation is described: in config.json, or, by programs of 2023, in a file of its own. */
struct source {
    const json_t *json; /* NULL: nowhere */
    json_t *own;        /* Own: the other file */
    const char *where, *unsaid;
};

static enum err find_source(struct source *s, struct eng_hf_obj config, const struct eng_model_file *f)
{
    static const char *const keys[] = {"quantization_config", "compression_config"};
    static const char *const files[][2] = {{"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}, {"hf_quant_config.json", "modelopt"}};
    *s = (struct source){.unsaid = "?"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        s->json = json_object_get(config.json, s->where = keys[i]);
        if (s->json && !json_is_null(s->json))
            return json_is_object(s->json) ? OK : err_raise(ERR_BAD_FILE, "%s: key '%s' is not an object", config.what, keys[i]);
    }
    for (size_t i = 0; i < COUNT_OF(files) && !s->own; i++) {
        enum err rc = eng_hf_json_file(&s->own, f, s->where = files[i][0], LARGEST_CONFIG);
        if (rc) return rc;
        s->unsaid = files[i][1];
    }
    s->json = json_object_get(s->own, "quantization"); /* ModelOpt's */
    if (!json_is_object(s->json)) s->json = s->own;
    return OK;
}

/* A number that config.json's reader has put under the family's name. */
static int64_t number_of(const struct eng_hf_keys *k, const char *what)
{
    size_t n = strlen(what);
    for (int64_t i = 0; i < k->n; i++) {
        const struct model_kv *kv = &k->at[i];
        if (kv->kind == KV_INT && kv->key.n > n && kv->key.p[kv->key.n - n - 1] == '.' && !memcmp(kv->key.p + kv->key.n - n, what, n)) return kv->i;
    }
    return 0;
}

static void read_columns(struct eng_hf_quant *q, const struct eng_hf_keys *k)
{
    int64_t heads = number_of(k, "attention.head_count"), head = number_of(k, "attention.key_length");
    q->width = number_of(k, "embedding_length");
    q->ffn = number_of(k, "feed_forward_length");
    q->heads_width = head ? heads * head : q->width;
}

int64_t eng_hf_quant_cols(const struct eng_hf_quant *q, const char *module)
{
    static const char *const heads[] = {"o_proj", "self_attn.dense", "self_attention.dense"}, *const ffn[] = {"down_proj", "fc2", "dense_4h_to_h"};
    size_t n = strlen(module);
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        if (n > strlen(heads[i]) && !strcmp(module + n - strlen(heads[i]), heads[i])) return q->heads_width;
    for (size_t i = 0; i < COUNT_OF(ffn); i++)
        if (n > strlen(ffn[i]) && !strcmp(module + n - strlen(ffn[i]), ffn[i])) return q->ffn;
    return q->width;
}

enum err eng_hf_quant_read(struct eng_hf_quant *q, struct eng_hf_obj config, const struct eng_model_file *f, struct eng_hf_keys *k)
{
    enum err rc;
    struct source s = {0};
    *q = (struct eng_hf_quant){.what = arena_strndup(k->a, config.what, strlen(config.what))};
    TRY(read_dense(config, &q->dense));
    read_columns(q, k);
    TRY(find_source(&s, config, f));
    if (!s.json) goto out;
    char *what = s.own ? xasprintf("%s/%s", f->path, s.where) : xasprintf("%s: %s", config.what, s.where);
    q->what = arena_strndup(k->a, what, strlen(what));
    free(what);
    q->schemes = arena_alloc(k->a, QUANT_MOST_SCHEMES * sizeof *q->schemes);
    rc = read_method(&(struct reading){q, {s.json, q->what}, k}, s.unsaid);
out:
    json_decref(s.own);
    return rc;
}
