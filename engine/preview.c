/* preview.c: see engine.h: what a model's headers say before anything is loaded: its description, its fingerprint, the grids it can be cut
 * into, what a rank of one needs, and what its parts weigh for the planner. */
#include "engine/engine.h"
#include "engine/file/fingerprint.h"

#include <stdio.h>

static enum err open_header(const char *path, struct eng_model_file **f, struct eng_spec *s)
{
    enum err e = eng_model_file_open(f, path);
    return e ? e : eng_spec_read(s, *f);
}

enum err eng_engine_fingerprint(const char *path, uint64_t *out)
{
    struct eng_model_file *f = NULL;
    enum err e = eng_model_file_open(&f, path);
    if (!e) e = eng_fingerprint(f, out);
    eng_model_file_close(f);
    return e;
}

enum err eng_engine_model_info(const char *path, struct model_info *out)
{
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    enum err e = open_header(path, &f, &s);
    if (!e) eng_spec_info(&s, f, out);
    eng_model_file_close(f);
    return e;
}

enum err eng_engine_grid(const char *path, int32_t tp, int32_t pp, struct grid *out)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    struct eng_shard h;
    struct grid g;
    TRY(open_header(path, &f, &s));
    TRY(eng_grid_even(&g, &s, tp, pp));
    for (int32_t r = 0; r < grid_ranks(&g); r++) TRY(eng_shard_of(&h, &s, &g, r));
    *out = g;
out:
    eng_model_file_close(f);
    return rc;
}

enum err eng_engine_need(const char *path, const struct grid *g, int32_t rank, enum kv_type kv_type, int32_t max_step_tokens,
                         int32_t context, struct eng_engine_need *out)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    struct eng_shard h;
    TRY(open_header(path, &f, &s));
    TRY(eng_shard_of(&h, &s, g, rank));
    int64_t file_bytes;
    TRY(eng_weights_count(f, &s, &h, &file_bytes, &out->weight_bytes));
    out->block_bytes = eng_shard_kv_block_bytes(&h, &s, kv_type, context);
    out->buffer_bytes = leaf_buffer_bytes(&(struct leaf_buffers){
        .d_model = s.d_model, .head_dim = s.head_dim, .rope_dim = s.rope_dim, .n_vocab = s.n_vocab, .heads = h.q1 - h.q0,
        .kv_heads = h.kv1 - h.kv0, .ffn_cols = h.ffn1 - h.ffn0, .nodes = MAX(h.attn.n_nodes, h.ffn.n_nodes), .vocab_rows = h.embd1 - h.embd0,
        .last = h.last, .max_step_tokens = max_step_tokens, .context = context, .n_slots = 64, .n_tables = eng_spec_groups(&s, context).n,
        .experts = eng_shard_experts(&h, &s), .latent = {s.mla.kv_rank, s.mla.q_rank, s.mla.key, s.mla.rope}});
out:
    eng_model_file_close(f);
    return rc;
}

enum err eng_engine_adapters_need(const char *path, const struct eng_adapters *a, const struct grid *g, int32_t rank, int32_t max_step_tokens,
                                  struct eng_engine_need *out)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    struct eng_shard h;
    *out = (struct eng_engine_need){0};
    if (!a->n) return OK;
    TRY(open_header(path, &f, &s));
    TRY(eng_shard_of(&h, &s, g, rank));
    TRY(eng_lora_count(a, &s, &h, max_step_tokens, NULL, &out->weight_bytes, &out->buffer_bytes));
out:
    eng_model_file_close(f);
    return rc;
}

/* ---- for the planner ---- */

enum err eng_engine_adapters_weigh(const char *path, const struct eng_adapters *a, struct model_weights *w)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    struct eng_shard h;
    struct grid g;
    int64_t mats, step;
    if (!a->n) return OK;
    TRY(open_header(path, &f, &s));
    TRY(eng_grid_even(&g, &s, 1, 1));
    TRY(eng_shard_of(&h, &s, &g, 0));
    TRY(eng_lora_count(a, &s, &h, 1, w, &mats, &step));
out:
    eng_model_file_close(f);
    return rc;
}

enum err eng_engine_weights(const char *path, struct model_weights *out)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    TRY(open_header(path, &f, &s));
    TRY(eng_weights_parts(f, &s, out));
out:
    eng_model_file_close(f);
    return rc;
}
