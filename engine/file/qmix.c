/* qmix.c: see qmix.h. */
#include "engine/file/qmix.h"

#include "base/base.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum mix { PLAIN, MIX_Q2_K, MIX_Q2_K_S, MIX_Q3_K_M, MIX_Q3_K_L, MIX_Q4_K_S, MIX_Q4_K_M, MIX_Q5_K_M, MIX_IQ4, MIX_OLD };

static const struct row {
    struct eng_qmix r;
    enum mix mix;
} rows[] = {
    {{"F32", DTYPE_F32, 0}, PLAIN},
    {{"F16", DTYPE_F16, 1}, PLAIN},
    {{"BF16", DTYPE_BF16, 32}, PLAIN},
    {{"Q8_0", DTYPE_Q8_0, 7}, PLAIN},
    {{"Q6_K", DTYPE_Q6_K, 18}, PLAIN},
    {{"Q5_K_M", DTYPE_Q5_K, 17}, MIX_Q5_K_M},
    {{"Q5_K", DTYPE_Q5_K, 17}, MIX_Q5_K_M},
    {{"Q5_K_S", DTYPE_Q5_K, 16}, PLAIN},
    {{"Q4_K_M", DTYPE_Q4_K, 15}, MIX_Q4_K_M},
    {{"Q4_K", DTYPE_Q4_K, 15}, MIX_Q4_K_M},
    {{"Q4_K_S", DTYPE_Q4_K, 14}, MIX_Q4_K_S},
    {{"IQ4_XS", DTYPE_IQ4_XS, 30}, MIX_IQ4},
    {{"IQ4_NL", DTYPE_IQ4_NL, 25}, MIX_IQ4},
    {{"Q3_K_L", DTYPE_Q3_K, 13}, MIX_Q3_K_L},
    {{"Q3_K_M", DTYPE_Q3_K, 12}, MIX_Q3_K_M},
    {{"Q3_K", DTYPE_Q3_K, 12}, MIX_Q3_K_M},
    {{"Q3_K_S", DTYPE_Q3_K, 11}, PLAIN},
    {{"Q2_K", DTYPE_Q2_K, 10}, MIX_Q2_K},
    {{"Q2_K_S", DTYPE_Q2_K, 21}, MIX_Q2_K_S},
    {{"Q5_1", DTYPE_Q5_1, 9}, PLAIN},
    {{"Q5_0", DTYPE_Q5_0, 8}, MIX_OLD},
    {{"Q4_1", DTYPE_Q4_1, 3}, PLAIN},
    {{"Q4_0", DTYPE_Q4_0, 2}, MIX_OLD},
};

const struct eng_qmix *eng_qmix_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (!strcasecmp(rows[i].r.name, name)) return &rows[i].r;
    return NULL;
}

const char *eng_qmix_names(void)
{
    return "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S, IQ4_XS, IQ4_NL, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K, Q2_K_S, Q5_1, Q5_0, Q4_1, Q4_0";
}

/* The first eighth of the layers, the last, and every third between. */
static bool more_bits(int32_t layer, int32_t n) { return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2; }

static bool in(const char *name, const char *what) { return strstr(name, what) != NULL; }

static enum dtype of_value(enum mix mix, enum dtype t, const struct eng_qmix_model *m, int32_t layer)
{
    bool shared = m->n_kv_heads > 0 && m->n_heads / m->n_kv_heads >= 4; /* few values, used by many heads */
    if (m->n_expert == 8) return DTYPE_Q8_0;
    switch (mix) {
    case MIX_Q2_K: t = shared ? DTYPE_Q4_K : DTYPE_Q3_K; break;
    case MIX_Q2_K_S: t = shared ? DTYPE_Q4_K : t; break;
    case MIX_Q3_K_M: t = layer < 2 ? DTYPE_Q5_K : DTYPE_Q4_K; break;
    case MIX_Q3_K_L: t = DTYPE_Q5_K; break;
    case MIX_IQ4: t = shared ? DTYPE_Q5_K : t; break;
    case MIX_Q4_K_M:
    case MIX_Q5_K_M: t = more_bits(layer, m->n_layers) ? DTYPE_Q6_K : t; break;
    case MIX_Q4_K_S: t = layer < 4 ? DTYPE_Q5_K : t; break;
    default: break;
    }
    bool seventy = (!strcmp(m->arch, "llama") || !strcmp(m->arch, "qwen2")) && m->n_layers == 80 && m->n_heads != m->n_kv_heads;
    return seventy && (t == DTYPE_Q3_K || t == DTYPE_Q4_K) ? DTYPE_Q5_K : t;
}

static enum dtype of_down(enum mix mix, enum dtype t, const struct eng_qmix_model *m, int32_t layer)
{
    bool falcon = !strcmp(m->arch, "falcon"), early = layer < m->n_layers / 8, more = more_bits(layer, m->n_layers);
    switch (mix) {
    case MIX_Q2_K: return DTYPE_Q3_K;
    case MIX_Q2_K_S: return early ? DTYPE_Q4_K : t;
    case MIX_Q3_K_M: return layer < m->n_layers / 16 ? DTYPE_Q5_K : !falcon || more ? DTYPE_Q4_K : t;
    case MIX_Q3_K_L: return falcon ? DTYPE_Q4_K : DTYPE_Q5_K;
    case MIX_Q4_K_M:
        if (falcon) return layer < m->n_layers / 16 ? DTYPE_Q6_K : more ? DTYPE_Q5_K : t;
        return more ? DTYPE_Q6_K : t;
    case MIX_Q5_K_M: return more ? DTYPE_Q6_K : t;
    case MIX_Q4_K_S: return !falcon && early ? DTYPE_Q5_K : t;
    case MIX_IQ4: return early && !m->has_imatrix ? DTYPE_Q5_K : t;
    case MIX_OLD: return m->has_imatrix && early ? t == DTYPE_Q4_0 ? DTYPE_Q4_1 : DTYPE_Q5_1 : t;
    default: return t;
    }
}

static enum dtype of_output_projection(enum mix mix, enum dtype t, const struct eng_qmix_model *m)
{
    if (!strcmp(m->arch, "falcon")) return mix == MIX_Q3_K_L ? DTYPE_Q4_K : t;
    if (m->n_expert == 8) return t == DTYPE_Q2_K || t == DTYPE_Q3_K || t == DTYPE_Q4_K || t == DTYPE_IQ4_NL || t == DTYPE_IQ4_XS ? DTYPE_Q5_K : t;
    return mix == MIX_Q2_K ? DTYPE_Q3_K : mix == MIX_Q3_K_M ? DTYPE_Q4_K : mix == MIX_Q3_K_L ? DTYPE_Q5_K : t;
}

static enum dtype of_fused(enum mix mix, enum dtype t)
{
    switch (mix) {
    case MIX_Q3_K_M:
    case MIX_Q3_K_L: return DTYPE_Q4_K;
    case MIX_Q4_K_M: return DTYPE_Q5_K;
    case MIX_Q5_K_M: return DTYPE_Q6_K;
    default: return t;
    }
}

/* Rows that are no multiple of the type's block. */
static enum dtype that_fits(enum dtype t, int64_t cols)
{
    if (cols % dtype_block(t) == 0) return t;
    if (cols % 32) return DTYPE_F16;
    switch (t) {
    case DTYPE_Q4_K: return DTYPE_Q5_0;
    case DTYPE_Q5_K: return DTYPE_Q5_1;
    case DTYPE_Q6_K: return DTYPE_Q8_0;
    default: return DTYPE_IQ4_NL;
    }
}

static bool keeps(const char *name, const int64_t dims[2])
{
    size_t n = strlen(name);
    return dims[1] < 2 || n < 7 || strcmp(name + n - 7, ".weight") || in(name, "_norm.weight") || in(name, "ffn_gate_inp") ||
           in(name, "rope_freqs") || in(name, "rope_factors");
}

enum dtype eng_qmix_type(const struct eng_qmix *r, const struct eng_qmix_model *m, const char *name, const int64_t dims[2], enum dtype now)
{
    const enum mix mix = ((const struct row *)(const void *)r)->mix; /* r is the first of a row */
    int32_t layer = -1;
    enum dtype t = r->type;
    if (keeps(name, dims)) return dtype_block(now) == 1 ? DTYPE_F32 : now; /* as readers expect norms, biases, routers */
    if (dtype_block(t) == 1) return t;
    (void)sscanf(name, "blk.%8d.", &layer);
    /* two heads that are no whole units of 32 could not be cut: this engine refuses such a file */
    if (in(name, "attn_output.weight") && m->head_dim * 2 % 32) return DTYPE_F16;
    if (!strcmp(name, "output.weight") || (!m->has_output && !strcmp(name, "token_embd.weight")))
        return !strcmp(m->arch, "falcon") || dims[0] % dtype_block(t) ? that_fits(DTYPE_Q8_0, dims[0]) : that_fits(t == DTYPE_Q8_0 ? t : DTYPE_Q6_K, dims[0]);
    if (in(name, "attn_v.weight")) t = of_value(mix, t, m, layer);
    else if (in(name, "attn_k.weight")) t = m->n_expert == 8 ? DTYPE_Q8_0 : t;
    else if (in(name, "ffn_down")) t = of_down(mix, t, m, layer);
    else if (in(name, "attn_output.weight")) t = of_output_projection(mix, t, m);
    else if (in(name, "attn_qkv.weight")) t = of_fused(mix, t);
    return that_fits(t, dims[0]);
}
