/* hf_latent.c: config.json of DeepSeek V2 and V3: heads over a latent, and experts in groups, which GLM-4.5 and dots1 took over. */
#include "engine/file/hf_config.h"

#include "engine/file/hf_json.h"
#include "proto/limits.h"

#include <string.h>

/* ---- heads ---- */

/* null: queries are made from the residual; the class's own default where it is not said at all. */
static enum err query_rank(const struct eng_hf_obj *c, int64_t *out)
{
    const json_t *v = json_object_get(c->json, "q_lora_rank");
    return eng_hf_int(*c, "q_lora_rank", v ? 0 : 1536, 1, 1 << 16, out);
}

enum err eng_hf_latent_heads(const struct eng_hf_obj *c, const char *arch, struct eng_hf_keys *k, int64_t heads)
{
    enum err rc;
    int64_t kv_rank, q_rank, nope, rope, value, kv_heads;
    TRY(eng_hf_int(*c, "kv_lora_rank", 512, 1, 2048, &kv_rank));
    TRY(query_rank(c, &q_rank));
    TRY(eng_hf_int(*c, "qk_nope_head_dim", 128, 1, 1024, &nope));
    TRY(eng_hf_int(*c, "qk_rope_head_dim", 64, 2, 1024, &rope));
    TRY(eng_hf_int(*c, "v_head_dim", 128, 1, 1024, &value));
    TRY(eng_hf_int(*c, "num_key_value_heads", heads, 1, 1 << 30, &kv_heads));
    if (kv_heads != heads) eng_hf_refuse(k, "%s: num_key_value_heads %lld beside %lld heads is not supported for this architecture", c->what,
                                         (long long)kv_heads, (long long)heads);
    eng_hf_key_int(k, arch, "attention.head_count_kv", 1);
    eng_hf_key_int(k, arch, "attention.kv_lora_rank", kv_rank);
    if (q_rank) eng_hf_key_int(k, arch, "attention.q_lora_rank", q_rank);
    eng_hf_key_int(k, arch, "attention.key_length", kv_rank + rope);
    eng_hf_key_int(k, arch, "attention.value_length", kv_rank);
    eng_hf_key_int(k, arch, "attention.key_length_mla", nope + rope);
    eng_hf_key_int(k, arch, "attention.value_length_mla", value);
    eng_hf_key_int(k, arch, "rope.dimension_count", rope);
out:
    return rc;
}

/* ---- experts ---- */

/* A text that must be one of two here; *second: it is the second. */
static enum err one_of(const struct eng_hf_obj *c, struct eng_hf_keys *k, const char *key, const char *first, const char *other, bool *second)
{
    const char *v;
    enum err rc = eng_hf_text(*c, key, first, &v);
    if (rc) return rc;
    *second = other && !strcmp(v, other);
    if (!*second && strcmp(v, first))
        eng_hf_refuse(k, "%s: %s '%s' is not supported for this architecture (known: %s%s%s)", c->what, key, eng_show(v, strlen(v)).s, first,
                      other ? ", " : "", other ? other : "");
    return OK;
}

/* What a class leaves unsaid. */
struct unsaid {
    const char *class;
    bool sigmoid;              /* experts by sigmoids and a shift, within groups; else by the softmax, the largest of all or of the best groups */
    const char *scoring;       /* what scoring_func must be; NULL: it says nothing */
    int64_t n, used, width, shared, dense, groups, groups_used;
    bool renorm;
    double scale;
};

static const struct unsaid *unsaid_of(const char *class)
{
    static const struct unsaid all[] = {
        {"DeepseekV2ForCausalLM", false, "softmax", 0, 0, 1407, 0, 0, 1, 1, false, 1},
        {"DeepseekV3ForCausalLM", true, "sigmoid", 0, 8, 2048, 0, 3, 8, 4, true, 2.5},
        {"Glm4MoeForCausalLM", true, NULL, 128, 8, 1408, 1, 1, 1, 1, true, 1},
        {"Dots1ForCausalLM", true, NULL, 0, 0, 1408, 0, 0, 1, 1, false, 1},
    };
    size_t i = 0;
    while (strcmp(class, all[i].class)) i++;
    return &all[i];
}

static enum err read_choice(const struct eng_hf_obj *c, const char *arch, struct eng_hf_keys *k, const struct unsaid *u, int64_t n)
{
    enum err rc;
    int64_t groups, used;
    bool in_groups, other, renorm;
    TRY(one_of(c, k, "topk_method", u->sigmoid ? "noaux_tc" : "greedy", u->sigmoid ? NULL : "group_limited_greedy", &in_groups));
    if (u->scoring) TRY(one_of(c, k, "scoring_func", u->scoring, NULL, &other));
    TRY(eng_hf_bool(*c, "norm_topk_prob", u->renorm, &renorm));
    if (renorm && !u->sigmoid) eng_hf_refuse(k, "%s: norm_topk_prob true is not supported for this architecture", c->what);
    eng_hf_key_int(k, arch, "expert_gating_func", u->sigmoid ? 2 : 1);
    eng_hf_key_bool(k, arch, "expert_weights_norm", renorm);
    if (!in_groups && !u->sigmoid) goto out;
    TRY(eng_hf_int(*c, "n_group", u->groups, 1, n, &groups));
    TRY(eng_hf_int(*c, "topk_group", u->groups_used, 1, groups, &used));
    eng_hf_key_int(k, arch, "expert_group_count", groups);
    eng_hf_key_int(k, arch, "expert_group_used_count", used);
out:
    return rc;
}

enum err eng_hf_latent_experts(const struct eng_hf_obj *c, const char *arch, struct eng_hf_keys *k, const char *class)
{
    enum err rc;
    const struct unsaid *u = unsaid_of(class);
    int64_t n, used, width, shared, dense, step;
    double scale;
    TRY(eng_hf_int(*c, "n_routed_experts", u->n, 1, LIMIT_EXPERTS, &n));
    if (!n) goto out;
    TRY(eng_hf_int(*c, "num_experts_per_tok", u->used, 1, n, &used));
    TRY(eng_hf_int(*c, "moe_intermediate_size", u->width, 1, 1 << 22, &width));
    TRY(eng_hf_int(*c, "n_shared_experts", u->shared, 0, LIMIT_EXPERTS, &shared));
    TRY(eng_hf_int(*c, "first_k_dense_replace", u->dense, 0, LIMIT_LAYERS, &dense));
    TRY(eng_hf_int(*c, "moe_layer_freq", 1, 1, LIMIT_LAYERS, &step));
    TRY(eng_hf_real(*c, "routed_scaling_factor", u->scale, &scale));
    if (!used || !(scale > 0)) {
        rc = err_raise(ERR_BAD_FILE, "%s: key '%s' must be above 0", c->what, used ? "routed_scaling_factor" : "num_experts_per_tok");
        goto out;
    }
    eng_hf_key_int(k, arch, "expert_count", n);
    eng_hf_key_int(k, arch, "expert_used_count", used);
    eng_hf_key_int(k, arch, "expert_feed_forward_length", width);
    eng_hf_key_int(k, arch, "expert_shared_count", shared);
    eng_hf_key_int(k, arch, "leading_dense_block_count", dense);
    if (step > 1) eng_hf_key_int(k, arch, "interleave_moe_layer_step", step);
    eng_hf_key_real(k, arch, "expert_weights_scale", scale);
    TRY(read_choice(c, arch, k, u, n));
out:
    return rc;
}
