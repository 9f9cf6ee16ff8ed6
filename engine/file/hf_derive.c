/* hf_derive.c: the tensors of a quantised checkpoint, module by module: MODULE.weight made of the codes, scales and zero points
 * that the file holds for it. Part of hf_quant.h.
 *
 * What belongs to a module is hidden with it; what is left over stays visible under its own name, and is then refused like any
 * tensor that the family does not have. */
#include "engine/file/derived.h"
#include "engine/file/hf_quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct deriving {
    struct eng_model_file *f;
    struct eng_hf_quant *q;
    bool experts;                /* lie all in one tensor, as gpt-oss and Llama 4 have them */
    struct eng_name_table names; /* of f->raw */
    struct arena arena;          /* of the table */
};

/* A module while its tensor is made. */
struct module {
    const struct model_tensor *main; /* the codes */
    char name[256];
    const struct eng_quant_scheme *scheme;
    int64_t rows, cols;
};

/* ---- names ---- */

static const struct model_tensor *find(const struct deriving *d, const char *module, const char *what)
{
    char name[320];
    int n = snprintf(name, sizeof name, "%s.%s", module, what);
    int64_t i = eng_name_table_get(&d->names, name, (size_t)n);
    return i < 0 ? NULL : &d->f->raw[i];
}

static bool is_type(const struct model_tensor *t, const char *type) { return !strncmp(dtype_ggml_name(t->ggml_type), type, strlen(type)); }

/* "model.norm" and "weight" of "model.norm.weight". */
static const char *split(const char *name, char module[256])
{
    const char *dot = strrchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : 0;
    if (!dot || n > 255) return NULL;
    memcpy(module, name, n);
    module[n] = 0;
    return dot + 1;
}

/* A module's codes, or NULL: it is not quantised. */
static const struct model_tensor *codes_of(const struct deriving *d, const char *module)
{
    static const struct { const char *name, *type; } kinds[] = {{"weight", "F8_E"}, {"weight", "I8"}, {"weight", "U8"}, {"qweight", "I32"},
                                                                {"weight_packed", "I32"},
                                                                {"weight_packed", "U8"}};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        const struct model_tensor *t = find(d, module, kinds[i].name);
        if (t && is_type(t, kinds[i].type)) return t;
    }
    return NULL;
}

static bool among(const char *what, const char *const list[], size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(what, list[i])) return true;
    return false;
}

/* "MODULE.weight" or "MODULE.weight.quant_state" of bitsandbytes: are there codes? */
static bool belongs_to_nibbles(const struct deriving *d, const char *name)
{
    char module[256];
    const char *end = strstr(name, ".weight");
    if (!end) return false;
    snprintf(module, sizeof module, "%.*s", (int)(end - name), name);
    return find(d, module, "weight") && codes_of(d, module);
}

/* Says this tensor something about a module's codes (that are there), or about activations only? */
static bool belongs(const struct deriving *d, const char *module, const char *what)
{
    static const char *const of_codes[] = {"weight_scale_inv", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "qzeros", "scales", "g_idx",
                                           "input_scale", "input_zero_point", "activation_scale", "input_scale_ub", "output_scale",
                                           "weight_scale_2", "weight_global_scale", "input_global_scale"};
    static const char *const of_cache[] = {"k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point"};
    static const char *const of_bnb[] = {"absmax", "quant_map", "nested_absmax", "nested_quant_map", "bitsandbytes__nf4", "bitsandbytes__fp4"};
    if (d->q->method == QUANT_BNB && among(what, of_bnb, COUNT_OF(of_bnb))) return belongs_to_nibbles(d, module);
    if (among(what, of_cache, COUNT_OF(of_cache))) return d->q->method != QUANT_NONE;
    return among(what, of_codes, COUNT_OF(of_codes)) && codes_of(d, module);
}

/* ---- scales ---- */

static enum err bad_shape(const struct deriving *d, const struct module *m, const struct model_tensor *t, const char *needed)
{
    return err_raise(ERR_BAD_FILE, "%s: tensor '%s' is %s of [%" PRId64 ", %" PRId64 "], but %s.weight of [%" PRId64 ", %" PRId64 "] needs %s",
                     d->f->parts[t->part].path, eng_show(t->name, strlen(t->name)).s, dtype_ggml_name(t->ggml_type), t->dims[1], t->dims[0],
                     eng_show(m->name, strlen(m->name)).s, m->rows, m->cols, needed);
}

/* How the scales lie over rows and columns: by the scheme, or, where it does not say, by how many there are. */
static enum err lay_scales(const struct deriving *d, const struct module *m, const struct model_tensor *s, struct eng_derived *x)
{
    int64_t n = s->dims[0] * s->dims[1];
    const struct eng_quant_scheme *c = m->scheme;
    char needed[96];
    x->scales = s;
    x->scale_rows = m->rows, x->scale_cols = m->cols;
    if (c->spread == SPREAD_BLOCK) x->scale_rows = c->block_rows, x->scale_cols = c->block_cols;
    else if (c->spread == SPREAD_GROUP) x->scale_rows = 1, x->scale_cols = c->group;
    else if (c->spread == SPREAD_CHANNEL || (c->spread == SPREAD_ANY && n > 1)) x->scale_rows = 1;
    x->n_scale_rows = DIV_UP(m->rows, x->scale_rows);
    x->n_scale_cols = DIV_UP(m->cols, x->scale_cols);
    snprintf(needed, sizeof needed, "[%" PRId64 ", %" PRId64 "] of F32, F16 or BF16", x->n_scale_rows, x->n_scale_cols);
    bool flat = x->n_scale_cols == 1 && s->dims[1] == 1 && s->dims[0] == x->n_scale_rows;
    bool fits = s->dims[0] == x->n_scale_cols && s->dims[1] == x->n_scale_rows;
    if ((!flat && !fits) || s->dims[2] * s->dims[3] != 1 || !eng_raw_is_float(s)) return bad_shape(d, m, s, needed);
    return OK;
}

/* ---- kinds ---- */

static enum err derive_fp8(struct deriving *d, struct module *m, struct eng_derived *x, enum dtype *type)
{
    const struct model_tensor *s = find(d, m->name, "weight_scale_inv");
    if (!s) s = find(d, m->name, "weight_scale");
    *x = (struct eng_derived){.recipe = &eng_recipe_fp8, .codes = m->main, .bits = 8, .scale_rows = m->rows, .scale_cols = m->cols, .n_scale_rows = 1,
                              .n_scale_cols = 1};
    *type = d->q->dense;
    if (!m->scheme) { /* plain FP8: every code is a BF16 */
        if (s) return bad_shape(d, m, s, "no scale: config.json has no quantization_config");
        *type = DTYPE_BF16;
        return OK;
    }
    if (!s)
        return err_raise(ERR_BAD_FILE, "%s: tensor '%s.weight_scale' (or weight_scale_inv) is missing", d->f->path, eng_show(m->name, strlen(m->name)).s);
    if (!m->scheme->is_float) return bad_shape(d, m, m->main, "integers, as config.json says");
    return lay_scales(d, m, s, x);
}

/* A tensor of this type and shape. */
static enum err need(const struct deriving *d, const struct module *m, const char *what, const char *type, int64_t rows, int64_t cols,
                     const struct model_tensor **out)
{
    char needed[96];
    *out = find(d, m->name, what);
    if (!*out) return err_raise(ERR_BAD_FILE, "%s: tensor '%s.%s' is missing", d->f->path, eng_show(m->name, strlen(m->name)).s, what);
    snprintf(needed, sizeof needed, "[%" PRId64 ", %" PRId64 "] of %s", rows, cols, type);
    const struct model_tensor *t = *out;
    bool fits = t->dims[0] == cols && t->dims[1] == rows && t->dims[2] * t->dims[3] == 1;
    bool any_float = *type == 'F' && strncmp(type, "F8", 2);
    if (!fits || (any_float ? !eng_raw_is_float(t) : !is_type(t, type))) return bad_shape(d, m, t, needed);
    return OK;
}

/* The type that holds scale * (code - zero) of this scheme: in codes if they fit and groups are whole units, else widened. */
static enum dtype int_type(const struct deriving *d, const struct module *m, const struct eng_derived *x)
{
    int32_t bits = x->bits;
    const struct model_tensor *s = x->scales;
    bool half = s->type == DTYPE_F16 || s->type == DTYPE_BF16;
    enum dtype wide = half ? s->type : d->q->dense;
    if (!half || x->by_column || m->cols % 32 || (x->n_scale_cols > 1 && x->scale_cols % 32)) return wide;
    if (m->scheme->symmetric) return bits <= 4 ? DTYPE_Q4_0 : DTYPE_Q8_0;
    return bits <= 4 ? DTYPE_Q5_0 : bits < 8 ? DTYPE_Q8_0 : wide;
}

/* qweight, qzeros, scales; the two methods differ in how they pack. */
static enum err derive_gptq(struct deriving *d, struct module *m, struct eng_derived *x, enum dtype *type)
{
    enum err rc;
    bool awq = d->q->method == QUANT_AWQ;
    if ((!awq && d->q->method != QUANT_GPTQ) || !m->scheme) return bad_shape(d, m, m->main, "no qweight: config.json speaks of neither gptq nor awq");
    int32_t bits = m->scheme->bits;
    int64_t words = m->main->dims[1], across = m->main->dims[0]; /* of qweight */
    m->rows = awq ? across * 8 : across;
    m->cols = awq ? words : words * 32 / bits;
    if (!awq && (words * 32 % bits || m->cols % 32 || m->rows * bits % 32))
        TRY(bad_shape(d, m, m->main, "rows and columns in 32s, as GPTQ packs them"));
    *x = (struct eng_derived){.recipe = awq ? &eng_recipe_awq : &eng_recipe_gptq, .codes = m->main, .bits = bits, .scale_rows = 1,
                              .scale_cols = m->scheme->group ? m->scheme->group : m->cols, .zero_add = m->scheme->zero_less_one,
                              .code_layout = awq ? INT_AWQ : INT_ACROSS, .zero_layout = awq ? INT_AWQ : INT_ACROSS, .scales_across = true,
                              .by_column = m->scheme->by_column};
    x->n_scale_rows = m->rows;
    x->n_scale_cols = DIV_UP(m->cols, x->scale_cols);
    TRY(need(d, m, "qzeros", "I32", x->n_scale_cols, m->rows * bits / 32, &x->zeros));
    TRY(need(d, m, "scales", "F16, BF16 or F32", x->n_scale_cols, m->rows, &x->scales));
    if (x->by_column || find(d, m->name, "g_idx")) TRY(need(d, m, "g_idx", "I32", 1, m->cols, &x->order));
    *type = int_type(d, m, x);
out:
    return rc;
}

/* weight_packed, or a weight of bytes. */
static enum err derive_compressed(struct deriving *d, struct module *m, struct eng_derived *x, enum dtype *type)
{
    enum err rc;
    bool packed = is_type(m->main, "I32");
    const struct eng_quant_scheme *c = m->scheme;
    if (!c || c->is_float || (!packed && c->bits != 8)) TRY(bad_shape(d, m, m->main, "another type, as config.json's quantization_config says"));
    if (packed && m->cols * 32 % c->bits) TRY(bad_shape(d, m, m->main, "columns in 32s"));
    if (packed) m->cols = m->cols * 32 / c->bits;
    int32_t middle = packed ? 1 << (c->bits - 1) : 0;
    *x = (struct eng_derived){.recipe = &eng_recipe_int, .codes = m->main, .bits = c->bits, .zero_add = middle,
                              .code_layout = packed ? INT_ALONG_ROWS : INT_BYTES, .by_column = c->by_column};
    const struct model_tensor *scales = find(d, m->name, "weight_scale"), *zeros = find(d, m->name, "weight_zero_point");
    if (!scales) TRY(need(d, m, "weight_scale", "F32, F16 or BF16", m->rows, 1, &scales));
    TRY(lay_scales(d, m, scales, x));
    if (!c->symmetric && !zeros) TRY(need(d, m, "weight_zero_point", packed ? "I32" : "I8", m->rows, x->n_scale_cols, &zeros));
    if (!c->symmetric && is_type(zeros, "I32")) {
        if (x->scale_rows != 1) TRY(bad_shape(d, m, zeros, "the strategy 'group' or 'channel'"));
        TRY(need(d, m, "weight_zero_point", "I32", DIV_UP(m->rows * c->bits, 32), x->n_scale_cols, &x->zeros));
        x->zero_layout = INT_DOWN;
        x->zero_add = 0;
    } else if (!c->symmetric) {
        TRY(need(d, m, "weight_zero_point", "I8", x->n_scale_rows, x->n_scale_cols, &x->zeros));
        x->zero_layout = INT_BYTES;
    }
    if (x->by_column) TRY(need(d, m, "weight_g_idx", "I32", 1, m->cols, &x->order));
    x->shape = packed ? find(d, m->name, "weight_shape") : NULL;
    if (x->shape && (x->shape->dims[0] != 2 || x->shape->dims[1] != 1 || !(is_type(x->shape, "I64") || is_type(x->shape, "I32"))))
        TRY(bad_shape(d, m, x->shape, "2 integers"));
    *type = int_type(d, m, x);
out:
    return rc;
}

/* Two FP4 codes in a byte: with an exponent for each 32 columns (MXFP4), or an E4M3 scale for each 16 and a factor (NVFP4). */
static enum err derive_fp4(struct deriving *d, struct module *m, struct eng_derived *x, enum dtype *type)
{
    enum err rc = OK;
    const struct eng_quant_scheme *c = m->scheme;
    if (!c) TRY(bad_shape(d, m, m->main, "a word on what its codes mean: quantization_config in config.json, or hf_quant_config.json"));
    if (!c->is_float || c->bits != 4) TRY(bad_shape(d, m, m->main, "another type, as config.json says"));
    m->cols *= 2;
    if ((c->group != 16 && c->group != 32) || m->cols % c->group) TRY(bad_shape(d, m, m->main, "columns in groups of 16 (NVFP4) or 32 (MXFP4)"));
    bool mx = c->group == 32;
    *x = (struct eng_derived){.recipe = mx ? &eng_recipe_mxfp4 : &eng_recipe_nvfp4, .codes = m->main, .bits = 4, .scale_rows = 1, .scale_cols = c->group,
                              .n_scale_rows = m->rows, .n_scale_cols = m->cols / c->group, .rows_each = m->rows, .stride = 1};
    *type = mx ? DTYPE_MXFP4 : d->q->dense;
    TRY(need(d, m, "weight_scale", mx ? "U8" : "F8_E4M3", m->rows, x->n_scale_cols, &x->scales));
    if (mx) goto out;
    x->factor_divides = d->q->method == QUANT_COMPRESSED;
    TRY(need(d, m, x->factor_divides ? "weight_global_scale" : "weight_scale_2", "F32", 1, 1, &x->factor));
out:
    return rc;
}

/* bitsandbytes: the file tells the shape in a tensor only; config.json tells it too, and derived_nibbles.c compares the two. */
static enum err derive_bnb(struct deriving *d, struct module *m, struct eng_derived *x, enum dtype *type)
{
    enum err rc = OK;
    int64_t n = m->main->bytes * 2, cols = eng_hf_quant_cols(d->q, m->name);
    const struct model_tensor *scales = find(d, m->name, "weight.absmax");
    if (!scales) TRY(need(d, m, "weight.absmax", "F32", 1, n / 64, &scales));
    if (cols < 2 || cols % 2 || n % cols) TRY(bad_shape(d, m, m->main, "as many columns as config.json says"));
    m->cols = cols;
    m->rows = n / cols;
    int64_t block = 64;
    while (block < n && DIV_UP(n, block) != scales->dims[0]) block *= 2;
    if (DIV_UP(n, block) != scales->dims[0]) TRY(bad_shape(d, m, scales, "a scale for each block of 64 weights, 128 or so"));
    *x = (struct eng_derived){.recipe = &eng_recipe_bnb, .codes = m->main, .scales = scales, .bits = 4, .scale_cols = block};
    *type = d->q->dense;
    TRY(need(d, m, "weight.quant_map", "F32", 1, 16, &x->table));
    x->state = find(d, m->name, "weight.quant_state.bitsandbytes__nf4");
    if (!x->state) x->state = find(d, m->name, "weight.quant_state.bitsandbytes__fp4");
    if (!x->state || !is_type(x->state, "U8"))
        TRY(err_raise(ERR_BAD_FILE, "%s: tensor '%s.weight.quant_state.bitsandbytes__nf4' is missing", d->f->path, eng_show(m->name, strlen(m->name)).s));
    if (is_type(scales, "F32")) goto out;
    if (!is_type(scales, "U8")) TRY(bad_shape(d, m, scales, "scales of F32 or U8"));
    x->nested = find(d, m->name, "weight.nested_absmax");
    if (!x->nested || !eng_raw_is_float(x->nested)) TRY(need(d, m, "weight.nested_absmax", "F32", 1, DIV_UP(scales->dims[0], 256), &x->nested));
    TRY(need(d, m, "weight.nested_quant_map", "F32", 1, 256, &x->nested_table));
out:
    return rc;
}

/* The scheme of a module: one for all, or by its name. */
static enum err find_scheme(struct deriving *d, struct module *m)
{
    m->scheme = d->q->method == QUANT_NONE ? NULL : d->q->schemes;
    if (d->q->method != QUANT_COMPRESSED) return OK;
    enum err rc = eng_hf_quant_of(d->q, m->name, &m->scheme);
    if (rc || m->scheme) return rc;
    return err_raise(ERR_BAD_FILE, "%s: tensor '%s' is quantised, but no config_group has it as a target (or 'ignore' names it)", d->q->what,
                     eng_show(m->main->name, strlen(m->main->name)).s);
}

static enum err derive(struct deriving *d, const struct model_tensor *codes, const char *name, struct model_tensor *out)
{
    enum err rc;
    struct module m = {.main = codes, .rows = codes->dims[1], .cols = codes->dims[0]};
    struct eng_derived *x = arena_alloc(&d->f->arena, sizeof *x);
    enum dtype type = d->q->dense;
    snprintf(m.name, sizeof m.name, "%s", name);
    bool bnb = d->q->method == QUANT_BNB;
    if (codes->n_dims != 2)
        TRY(err_raise(ERR_BAD_FILE, "%s: tensor '%s' has %d dimensions, quantised ones have 2", d->f->parts[codes->part].path,
                      eng_show(codes->name, strlen(codes->name)).s, codes->n_dims));
    TRY(find_scheme(d, &m));
    if (is_type(codes, "U8")) TRY(bnb ? derive_bnb(d, &m, x, &type) : derive_fp4(d, &m, x, &type));
    else if (is_type(codes, "F8_E")) TRY(derive_fp8(d, &m, x, &type));
    else if (!strcmp(codes->name + strlen(name), ".qweight")) TRY(derive_gptq(d, &m, x, &type));
    else TRY(derive_compressed(d, &m, x, &type));
    char *full = xasprintf("%s.weight", name);
    *out = (struct model_tensor){.name = arena_strndup(&d->f->arena, full, strlen(full)), .type = type, .ggml_type = dtype_ggml(type), .n_dims = 2,
                                 .dims = {m.cols, m.rows, 1, 1}, .part = codes->part, .bytes = m.rows * dtype_bytes(type, m.cols), .derived = x};
    free(full);
out:
    return rc;
}

/* ---- all ---- */

static enum err name_raw(struct deriving *d)
{
    eng_name_table_open(&d->names, &d->arena, d->f->n_raw);
    for (int64_t i = 0; i < d->f->n_raw; i++) {
        const char *name = d->f->raw[i].name;
        if (eng_name_table_put(&d->names, name, strlen(name), i) < 0) continue;
        return err_raise(ERR_BAD_FILE, "%s: tensor '%s' is there twice", d->f->parts[d->f->raw[i].part].path, eng_show(name, strlen(name)).s);
    }
    return OK;
}

/* Types that no kernel has; or experts in a layout that none has. */
static bool is_foreign(const struct model_tensor *t, bool experts) { return t->type == DTYPE_COUNT || (experts && eng_hf_is_experts(t->name)); }

/* What becomes of a raw tensor: nothing, itself, or one or two others. */
static enum err derive_one(struct deriving *d, const struct model_tensor *t)
{
    enum err rc = OK;
    char module[256], scales[320];
    int n = 1;
    struct model_tensor *out = &d->f->tensors[d->f->n_tensors];
    const char *what = split(t->name, module);
    if (d->experts && what && eng_hf_is_experts_scales(t->name)) return OK;
    if (d->experts && what && eng_hf_is_experts(t->name)) {
        snprintf(scales, sizeof scales, "%s", what);
        char *end = strstr(scales, "_blocks");
        if (end) memcpy(end, "_scales", sizeof "_scales");
        TRY(eng_hf_derive_experts(d->f, t, end ? find(d, module, scales) : NULL, out, &n));
    } else if (what && belongs(d, module, what)) {
        n = 0;
    } else {
        *out = *t;
        if (what && codes_of(d, module) == t) TRY(derive(d, t, module, out));
    }
    d->f->n_tensors += n;
out:
    return rc;
}

enum err eng_hf_derive(struct eng_model_file *f, struct eng_hf_quant *q, const char *arch)
{
    enum err rc = OK;
    struct deriving d = {.f = f, .q = q, .experts = !strcmp(arch, "gpt-oss") || !strcmp(arch, "llama4")};
    bool any = false;
    for (int64_t i = 0; i < f->n_tensors; i++) any |= is_foreign(&f->tensors[i], d.experts);
    if (!any || q->refused) return OK;
    f->raw = f->tensors;
    f->n_raw = f->n_tensors;
    f->tensors = xmalloc(2 * (size_t)f->n_raw * sizeof *f->tensors);
    f->n_tensors = 0;
    f->bands = eng_bands_open();
    TRY(name_raw(&d));
    for (int64_t i = 0; i < f->n_raw; i++) TRY(derive_one(&d, &f->raw[i]));
out:
    arena_free(&d.arena);
    return rc;
}
