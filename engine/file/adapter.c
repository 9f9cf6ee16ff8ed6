/* adapter.c: see adapter.h. A module's name goes to GGUF's by the table of its family's checkpoints (hf_names.c), so a family that is
 * known as a model is known as the base of an adapter. */
#include "engine/file/adapter.h"

#include "engine/file/format.h"
#include "engine/file/hf_config.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool says(const struct eng_model_file *f, const char *key, const char *text)
{
    const struct model_kv *kv = eng_model_file_find(f, key);
    return kv && kv->kind == KV_STRING && kv->s.n == strlen(text) && !memcmp(kv->s.p, text, kv->s.n);
}

bool eng_adapter_is(const struct eng_model_file *f) { return says(f, "general.type", "adapter"); }

void eng_adapter_free(struct eng_adapter *a)
{
    free(a->pairs);
    *a = (struct eng_adapter){0};
}

/* ---- names ---- */

static bool ends_with(const char *name, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n >= m && !memcmp(name + n - m, end, m);
}

/* How names of A and B end. */
static const char *const *ends_of(bool checkpoint)
{
    static const char *const peft[] = {".lora_A.weight", ".lora_B.weight"}, *const gguf[] = {".weight.lora_a", ".weight.lora_b"};
    return checkpoint ? peft : gguf;
}

/* "base_model.model.model.layers.0.self_attn.q_proj" of PEFT's name of a matrix, "blk.0.attn_q" of GGUF's; 0: it is none. b: is it B? */
static size_t module_of(const char *name, bool checkpoint, bool *b)
{
    size_t n = strlen(name);
    const char *const *ends = ends_of(checkpoint);
    for (int i = 0; i < 2; i++) {
        *b = i;
        if (ends_with(name, n, ends[i])) return n - strlen(ends[i]);
    }
    return 0;
}

static const struct { const char *gguf; enum eng_adapter_target target; } targets[] = {
    {"attn_q", ADAPTER_Q}, {"attn_k", ADAPTER_K}, {"attn_v", ADAPTER_V}, {"attn_output", ADAPTER_O}, {"attn_qkv", ADAPTER_QKV},
    {"ffn_gate", ADAPTER_GATE}, {"ffn_up", ADAPTER_UP}, {"ffn_down", ADAPTER_DOWN},
};

/* Why a matrix that the base has cannot have an adapter here. */
static const char *why_not(const char *gguf)
{
    if (!strncmp(gguf, "token_embd", 10) || !strncmp(gguf, "output", 6)) return "of the embedding or the output matrix";
    if (strstr(gguf, "_exps") || strstr(gguf, "_shexp") || strstr(gguf, "ffn_gate_inp")) return "of experts or their router";
    for (const char *p = gguf; (p = strchr(p, '.')); p++)
        if (p > gguf + 4 && isdigit((unsigned char)p[1])) return "of experts or their router";
    return "of a matrix that is neither q, k, v, o nor of a dense feed-forward";
}

/* gguf: "blk.0.attn_q", in which the layer and the target are found. */
static enum err place(const struct eng_model_file *f, const char *gguf, struct eng_adapter_pair *p)
{
    int layer, n = 0;
    if (sscanf(gguf, "blk.%6d.%n", &layer, &n) == 1 && n && layer >= 0)
        for (size_t i = 0; i < COUNT_OF(targets); i++)
            if (!strcmp(gguf + n, targets[i].gguf)) {
                p->layer = layer;
                p->target = targets[i].target;
                return OK;
            }
    return err_raise(ERR_UNSUPPORTED, "%s: %s is an adapter %s, which is not computed here: train one of the layers' q, k, v, o, gate, up and down matrices "
                     "alone", eng_model_file_path(f), p->module, why_not(gguf));
}

static enum err place_pair(const struct eng_model_file *f, const char *module, size_t len, const char *arch, bool checkpoint, struct eng_adapter_pair *p)
{
    static const char before[] = "base_model.model.";
    char name[320], gguf[96];
    snprintf(name, sizeof name, "%.*s", (int)len, module);
    const char *own = strncmp(name, before, sizeof before - 1) ? name : name + sizeof before - 1;
    snprintf(p->module, sizeof p->module, "%s", eng_show(own, strlen(own)).s);
    if (!checkpoint) return place(f, name, p);
    char tensor[340];
    snprintf(tensor, sizeof tensor, "%s.weight", own);
    if (!eng_hf_tensor_name(arch, tensor, gguf))
        return err_raise(ERR_UNSUPPORTED, "%s: module %s is not one of a model of architecture %s: is it the adapter of another base?",
                         eng_model_file_path(f), p->module, arch);
    gguf[strlen(gguf) - strlen(".weight")] = 0;
    return place(f, gguf, p);
}

/* ---- pairs ---- */

static enum err check_pair(const struct eng_model_file *f, const struct eng_adapter_pair *p)
{
    const struct model_tensor *const both[] = {p->a, p->b};
    for (int i = 0; i < 2; i++) {
        enum dtype t = both[i]->type;
        if (t != DTYPE_F32 && t != DTYPE_F16 && t != DTYPE_BF16)
            return err_raise(ERR_UNSUPPORTED, "%s: tensor %s is of type %s, an adapter's are read as F32, F16 or BF16: convert it again as F16",
                             eng_model_file_path(f), eng_show(both[i]->name, strlen(both[i]->name)).s, dtype_ggml_name(both[i]->ggml_type));
    }
    if (p->a->dims[2] == 1 && p->b->dims[2] == 1 && p->a->dims[1] == p->b->dims[0] && p->a->dims[1] > 0) return OK;
    return err_raise(ERR_BAD_FILE, "%s: %s: A is [%lld, %lld] and B is [%lld, %lld] (columns, rows): A's rows must be B's columns", eng_model_file_path(f),
                     eng_show(p->a->name, strlen(p->a->name)).s, (long long)p->a->dims[0], (long long)p->a->dims[1], (long long)p->b->dims[0],
                     (long long)p->b->dims[1]);
}

static const struct model_tensor *other_half(const struct eng_model_file *f, const struct model_tensor *t, bool checkpoint, size_t module, bool want_b)
{
    char *name = xasprintf("%.*s%s", (int)module, t->name, ends_of(checkpoint)[want_b]);
    const struct model_tensor *other = eng_model_file_tensor_find(f, name);
    free(name);
    return other;
}

/* Tensor i, if it is an A: with its B it becomes a pair. */
static enum err take(struct eng_adapter *a, const struct eng_model_file *f, const char *arch, const struct model_tensor *t, double alpha, bool by_root)
{
    enum err rc;
    bool b;
    size_t module = module_of(t->name, a->checkpoint, &b);
    struct eng_adapter_pair p = {.a = t};
    if (!module)
        return err_raise(ERR_UNSUPPORTED, "%s: tensor %s is neither A nor B of a linear layer's LoRA (whole modules, embeddings and DoRA's magnitudes are not "
                         "taken): train with LoRA on linear layers alone", eng_model_file_path(f), eng_show(t->name, strlen(t->name)).s);
    const struct model_tensor *other = other_half(f, t, a->checkpoint, module, !b);
    if (!other)
        return err_raise(ERR_BAD_FILE, "%s: tensor %s is there without the %s that belongs to it", eng_model_file_path(f), eng_show(t->name, strlen(t->name)).s,
                         b ? "A" : "B");
    if (b) return OK;
    p.b = other;
    TRY(place_pair(f, t->name, module, arch, a->checkpoint, &p));
    TRY(check_pair(f, &p));
    double rank = (double)t->dims[1];
    p.scale = (float)(alpha / (by_root ? sqrt(rank) : rank));
    a->pairs[a->n++] = p;
out:
    return rc;
}

enum err eng_adapter_read(struct eng_adapter *out, const struct eng_model_file *f, const char *arch)
{
    enum err rc;
    double alpha;
    bool by_root;
    struct eng_adapter a = {.checkpoint = eng_model_file_is_dir(f)};
    int64_t n = eng_model_file_n_tensors(f);
    if (!eng_adapter_is(f))
        TRY(err_raise(ERR_UNSUPPORTED, "%s is not a LoRA adapter: give PEFT's directory (adapter_config.json, adapter_model.safetensors) or a GGUF file whose "
                      "general.type is adapter", eng_model_file_path(f)));
    if (!says(f, "adapter.type", "lora"))
        TRY(err_raise(ERR_UNSUPPORTED, "%s: an adapter that is not LoRA: only LoRA is computed here", eng_model_file_path(f)));
    if (eng_model_file_find(f, "general.architecture") && !says(f, "general.architecture", arch))
        TRY(err_raise(ERR_UNSUPPORTED, "%s: the adapter of another architecture than the model's, which is %s", eng_model_file_path(f), arch));
    TRY(eng_model_file_float(f, "adapter.lora.alpha", 0, &alpha));
    TRY(eng_model_file_bool(f, "tessera.adapter.rslora", false, &by_root));
    if (!(alpha > 0)) TRY(err_raise(ERR_BAD_FILE, "%s: adapter.lora.alpha is %g, it must be above 0", eng_model_file_path(f), alpha));
    if (n < 2 || n > INT32_MAX) TRY(err_raise(ERR_BAD_FILE, "%s: the adapter has no matrices", eng_model_file_path(f)));
    a.pairs = xcalloc((size_t)n, sizeof *a.pairs);
    for (int64_t i = 0; i < n; i++) TRY(take(&a, f, arch, eng_model_file_tensor(f, i), alpha, by_root));
    *out = a, a.pairs = NULL;
out:
    eng_adapter_free(&a);
    return rc;
}
