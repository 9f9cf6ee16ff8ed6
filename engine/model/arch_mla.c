/* arch_mla.c: the keys of attention over a latent (DeepSeek V2, V3).
 *
 * Older files give key_length and value_length of a head. Newer ones, made for programs that attend over the latent as one KV head, give there
 * what that head has, and a head's own as key_length_mla and value_length_mla. */
#include "engine/model/arch_keys.h"

#include "engine/model/rope.h"

#include <math.h>
#include <stdio.h>

enum { MOST_RANK = 2048, MOST_HEAD = 1024 };

static bool says(const struct eng_spec *s, const struct eng_model_file *f, const char *what)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", s->arch, what);
    return eng_model_file_find(f, key) != NULL;
}

enum err eng_arch_mla(struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    struct eng_latent *x = &s->mla;
    int32_t key, value, kv_heads;
    TRY(eng_arch_int(f, s->arch, "attention.kv_lora_rank", 0, 1, MOST_RANK, &x->kv_rank));
    TRY(eng_arch_int(f, s->arch, "attention.q_lora_rank", 0, 0, 1 << 16, &x->q_rank));
    TRY(eng_arch_int(f, s->arch, "rope.dimension_count", 0, 2, MOST_HEAD, &x->rope));
    TRY(eng_arch_int(f, s->arch, "attention.key_length", 0, 1, MOST_RANK + MOST_HEAD, &key));
    TRY(eng_arch_int(f, s->arch, "attention.value_length", 0, 1, MOST_RANK, &value));
    TRY(eng_arch_int(f, s->arch, "attention.key_length_mla", key, 1, MOST_HEAD, &x->key));
    TRY(eng_arch_int(f, s->arch, "attention.value_length_mla", value, 1, MOST_HEAD, &s->head_dim));
    TRY(eng_arch_int(f, s->arch, "attention.head_count_kv", s->n_heads, 1, s->n_heads, &kv_heads));
    if (says(s, f, "attention.key_length_mla") && (key != eng_latent_cached(x) || value != x->kv_rank))
        return err_raise(ERR_BAD_FILE, "%s: with a latent of %d and %d rotated values key_length and value_length are %d and %d, they must be %d and %d",
                         eng_model_file_path(f), x->kv_rank, x->rope, key, value, eng_latent_cached(x), x->kv_rank);
    if (x->key <= x->rope || x->key > MOST_HEAD || s->head_dim > MOST_HEAD)
        return err_raise(ERR_BAD_FILE, "%s: heads with keys of %d, %d of them rotated, and values of %d make no sense", eng_model_file_path(f), x->key,
                         x->rope, s->head_dim);
    if (kv_heads != 1 && kv_heads != s->n_heads)
        return err_raise(ERR_BAD_FILE, "%s: %d KV heads of %d heads: heads that share a latent have one each, or one for all", eng_model_file_path(f),
                         kv_heads, s->n_heads);
    s->n_kv_heads = 1;
out:
    return rc;
}

/* YaRN: scores are scaled by the square of 1 + log_multiplier * ln(factor), and cos and sin, where nothing else is said, by nothing. */
enum err eng_arch_mla_scale(struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    double by, more = 1;
    TRY(eng_arch_float(f, s->arch, "rope.scaling.yarn_log_multiplier", 0, &by));
    if (!(by >= 0 && by <= 100))
        return err_raise(ERR_BAD_FILE, "%s: key %s.rope.scaling.yarn_log_multiplier is %g, it must be between 0 and 100", eng_model_file_path(f), s->arch, by);
    if (s->rope_scaling == ROPE_YARN && s->rope_factor > 1 && by > 0) {
        more = 1 + by * eng_dlog(s->rope_factor);
        if (!(s->rope_attn_said > 0)) s->rope_attn_said = 1;
    }
    s->attn_scale = (float)(more * more / sqrt(s->mla.key));
out:
    return rc;
}
