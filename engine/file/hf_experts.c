/* hf_experts.c: gpt-oss's and Llama 4's tensors of all experts (derived_experts.c) as tensors of gate, up and down. Part of hf_quant.h.
 * Shapes are what a tensor's header says, outermost first: gate_up_proj_blocks [experts][2 * width][cols / 32][16], gate_up_proj_scales
 * [experts][2 * width][cols / 32], gate_up_proj [experts][cols][2 * width], gate_up_proj_bias [experts][2 * width]; down's without the 2.
 * In gpt-oss's the rows of gate and up come in turns; Llama 4 has gate's first, then up's, and neither codes nor biases. */
#include "engine/file/derived.h"
#include "engine/file/hf_quant.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What a raw tensor is called within mlp.experts, and what becomes of it. */
static const struct kind {
    const char *raw, *scales;
    const struct eng_recipe *recipe;
    const char *made[2]; /* in turns; or one */
} kinds[] = {
    {"gate_up_proj_blocks", "gate_up_proj_scales", &eng_recipe_mxfp4, {"gate.weight", "up.weight"}},
    {"down_proj_blocks", "down_proj_scales", &eng_recipe_mxfp4, {"down.weight", NULL}},
    {"gate_up_proj", NULL, &eng_recipe_turned, {"gate.weight", "up.weight"}},
    {"down_proj", NULL, &eng_recipe_turned, {"down.weight", NULL}},
    {"gate_up_proj_bias", NULL, &eng_recipe_spaced, {"gate.bias", "up.bias"}},
    {"down_proj_bias", NULL, &eng_recipe_spaced, {"down.bias", NULL}},
};

static const struct kind *kind_of(const char *name, size_t *module, bool *halves)
{
    static const char turns[] = ".mlp.experts.", apart[] = ".feed_forward.experts.";
    const char *at = strstr(name, turns);
    *halves = !at;
    if (!at) at = strstr(name, apart);
    if (!at) return NULL;
    *module = (size_t)(at - name) + strlen(*halves ? apart : turns);
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (!strcmp(name + *module, kinds[i].raw) && (!*halves || kinds[i].recipe == &eng_recipe_turned)) return &kinds[i];
    return NULL;
}

bool eng_hf_is_experts(const char *name)
{
    size_t module;
    bool halves;
    return kind_of(name, &module, &halves) != NULL;
}

bool eng_hf_is_experts_scales(const char *name)
{
    const char *at = strstr(name, ".mlp.experts.");
    return at && (!strcmp(at, ".mlp.experts.gate_up_proj_scales") || !strcmp(at, ".mlp.experts.down_proj_scales"));
}

static enum err bad(const struct eng_model_file *f, const struct model_tensor *t, const char *needed)
{
    return err_raise(ERR_BAD_FILE, "%s: tensor '%s' is %s of [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "], %s", f->parts[t->part].path,
                     eng_show(t->name, strlen(t->name)).s, dtype_ggml_name(t->ggml_type), t->dims[3], t->dims[2], t->dims[1], t->dims[0], needed);
}

/* The shape of what is made, from the raw tensor's: columns, rows of an expert, experts. */
static enum err shape_of(const struct eng_model_file *f, const struct kind *k, const struct model_tensor *t, const struct model_tensor *scales, int64_t dims[3])
{
    int64_t turns = k->made[1] ? 2 : 1;
    if (k->recipe == &eng_recipe_mxfp4) {
        if (!scales) return bad(f, t, "but there are no scales beside it");
        bool fits = !strcmp(dtype_ggml_name(t->ggml_type), "U8") && !strcmp(dtype_ggml_name(scales->ggml_type), "U8") && t->dims[0] == 16 &&
                    scales->dims[0] == t->dims[1] && scales->dims[1] == t->dims[2] && scales->dims[2] == t->dims[3] && scales->dims[3] == 1;
        if (!fits || t->dims[2] % turns)
            return bad(f, t, "but blocks are U8 of [experts, rows, columns / 32, 16], scales beside them U8 of [experts, rows, columns / 32]");
        dims[0] = t->dims[1] * 32, dims[1] = t->dims[2] / turns, dims[2] = t->dims[3];
        return OK;
    }
    bool bias = k->recipe == &eng_recipe_spaced;
    if (!(t->type == DTYPE_F32 || t->type == DTYPE_F16 || t->type == DTYPE_BF16) || t->dims[3] != 1 || t->dims[0] % turns || (bias && t->dims[2] != 1))
        return bad(f, t, "but experts are F32, F16 or BF16, with as many rows of gate as of up");
    dims[0] = bias ? t->dims[0] / turns : t->dims[1];
    dims[1] = bias ? t->dims[1] : t->dims[0] / turns;
    dims[2] = bias ? 1 : t->dims[2];
    return OK;
}

enum err eng_hf_derive_experts(struct eng_model_file *f, const struct model_tensor *t, const struct model_tensor *scales, struct model_tensor out[2], int *n)
{
    size_t module;
    bool halves;
    int64_t dims[3] = {0};
    const struct kind *k = kind_of(t->name, &module, &halves);
    enum err rc = shape_of(f, k, t, scales, dims);
    if (rc) return rc;
    *n = k->made[1] ? 2 : 1;
    for (int i = 0; i < *n; i++) {
        struct eng_derived *x = arena_alloc(&f->arena, sizeof *x);
        enum dtype type = k->recipe == &eng_recipe_mxfp4 ? DTYPE_MXFP4 : t->type;
        *x = (struct eng_derived){.recipe = k->recipe, .codes = t, .scales = scales, .rows_each = dims[1], .stride = halves ? 1 : *n,
                                  .turn = halves ? i * dims[1] : i};
        char *name = xasprintf("%.*s%s", (int)module, t->name, k->made[i]);
        out[i] = (struct model_tensor){.name = arena_strndup(&f->arena, name, strlen(name)), .type = type, .ggml_type = dtype_ggml(type),
                                       .n_dims = dims[2] > 1 ? 3 : 2, .dims = {dims[0], dims[1], dims[2], 1}, .part = t->part,
                                       .bytes = dims[1] * dims[2] * dtype_bytes(type, dims[0]), .derived = x};
        free(name);
    }
    return OK;
}
