/* arch_rope.c: the keys of rotary positions. */
#include "engine/model/arch_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum err eng_arch_rope(struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    int32_t original, trained, most = s->mla.kv_rank ? s->mla.rope : s->head_dim;
    double factor;
    char key[128], *type = NULL;
    TRY(eng_arch_float(f, s->arch, "rope.freq_base", 10000, &s->rope_base));
    TRY(eng_arch_int(f, s->arch, "rope.dimension_count", most, 2, most, &s->rope_dim));
    TRY(eng_arch_float(f, s->arch, "rope.scale_linear", 1, &factor)); /* the key's first name */
    TRY(eng_arch_float(f, s->arch, "rope.scaling.factor", factor, &factor));
    s->rope_factor = factor == 0 ? 1 : factor;
    TRY(eng_model_file_float(f, "tessera.rope.dynamic_factor", 0, &factor)); /* of GGUF files made of checkpoints with it */
    TRY(eng_arch_int(f, s->arch, "context_length", 0, 1, 1 << 30, &trained)); /* s->context may be cut short */
    TRY(eng_arch_int(f, s->arch, "rope.scaling.original_context_length", trained, 1, 1 << 30, &original));
    s->rope_orig_context = original;
    TRY(eng_arch_float(f, s->arch, "rope.scaling.attn_factor", 1, &s->rope_attn_factor));
    snprintf(key, sizeof key, "%s.rope.scaling.type", s->arch);
    TRY(eng_model_file_string(f, key, &type));
    /* A file that gives a factor and no type means linear: early converters wrote no type. */
    if (type ? !strcmp(type, "none") : s->rope_factor == 1) s->rope_scaling = ROPE_NONE;
    else if (!type || !strcmp(type, "linear")) s->rope_scaling = ROPE_LINEAR;
    else if (!strcmp(type, "yarn")) s->rope_scaling = ROPE_YARN;
    else if (!strcmp(type, "llama3")) s->rope_scaling = ROPE_LLAMA3;
    else if (!strcmp(type, "dynamic")) s->rope_scaling = ROPE_DYNAMIC;
    else if (!strcmp(type, "longrope") || !strcmp(type, "su")) s->rope_scaling = ROPE_LONG;
    else rc = err_raise(ERR_UNSUPPORTED, "rope scaling '%s' is not supported (known: none, linear, dynamic, yarn, llama3, longrope)", type);
    if (rc) goto out;
    if (factor != 0) s->rope_scaling = ROPE_DYNAMIC, s->rope_factor = factor;
    if (s->rope_scaling == ROPE_LLAMA3) {
        TRY(eng_arch_float(f, s->arch, "rope.scaling.high_freq_factor", 4, &s->rope_fast));
        TRY(eng_arch_float(f, s->arch, "rope.scaling.low_freq_factor", 1, &s->rope_slow));
    } else {
        TRY(eng_arch_float(f, s->arch, "rope.scaling.yarn_beta_fast", 32, &s->rope_fast));
        TRY(eng_arch_float(f, s->arch, "rope.scaling.yarn_beta_slow", 1, &s->rope_slow));
    }
    /* files of Phi have the factors and no type */
    if (s->rope_scaling == ROPE_NONE && eng_model_file_tensor_find(f, "rope_factors_long.weight")) s->rope_scaling = ROPE_LONG;
    if (s->rope_scaling == ROPE_LONG) {
        TRY(eng_arch_float(f, s->arch, "rope.scaling.attn_factor", 0, &s->rope_attn_said));
        if (s->rope_factor == 1) s->rope_factor = (double)trained / s->rope_orig_context;
    }
    TRY(eng_arch_float(f, s->arch, "rope.freq_base_swa", 0, &factor));
    if (factor > 0) s->rope_base_local = factor;
    TRY(eng_model_file_bool(f, "tessera.rope.truncate", strcmp(s->arch, "gpt-oss") != 0, &s->rope_truncate));
    TRY(eng_model_file_float(f, "tessera.rope.attention_factor", s->rope_attn_said, &s->rope_attn_said));
    s->rope_freqs = eng_model_file_tensor_find(f, "rope_freqs.weight") != NULL;
    if (s->rope_dim % 2 || !(s->rope_base > 0) || !(s->rope_factor > 0) || !(s->rope_orig_context > 0) ||
        !(s->rope_slow > 0) || !(s->rope_fast > s->rope_slow || (s->rope_scaling == ROPE_LLAMA3 && s->rope_fast == s->rope_slow)))
        rc = err_raise(ERR_BAD_FILE, "%s: rope of %d dims, base %g, factor %g makes no sense", eng_model_file_path(f),
                       s->rope_dim, s->rope_base, s->rope_factor);
out:
    free(type);
    return rc;
}
