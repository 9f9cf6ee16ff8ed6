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
    out->block_bytes = eng_shard_kv_block_bytes(&h, &s, kv_type);
    out->buffer_bytes = leaf_buffer_bytes(&(struct leaf_buffers){
        .d_model = s.d_model, .head_dim = s.head_dim, .rope_dim = s.rope_dim, .n_vocab = s.n_vocab, .heads = h.q1 - h.q0,
        .kv_heads = h.kv1 - h.kv0, .ffn_cols = h.ffn1 - h.ffn0, .nodes = MAX(h.attn.n_nodes, h.ffn.n_nodes), .vocab_rows = h.embd1 - h.embd0,
        .last = h.last, .max_step_tokens = max_step_tokens, .context = context, .n_slots = 64});
out:
    eng_model_file_close(f);
    return rc;
}

/* ---- for the planner ---- */

static void add_part(struct model_part *p, const struct eng_model_file *f, const char *fmt, int32_t layer, int64_t bytes_of[])
{
    char name[96];
    snprintf(name, sizeof name, fmt, layer);
    const struct model_tensor *t = eng_model_file_tensor_find(f, name);
    if (!t) return;
    if (t->type >= DTYPE_COUNT || t->dims[1] == 1) { /* vectors lie in memory as f32 */
        p->mem += t->dims[1] == 1 ? t->dims[0] * 4 : t->bytes;
    } else {
        p->mem += krn_pack_tile_bytes(t->type, (int32_t)t->dims[0]) * DIV_UP(t->dims[1], KRN_TILE);
        bytes_of[t->type] += t->bytes;
    }
    p->file += t->bytes;
}

enum err eng_engine_weights(const char *path, struct model_weights *out)
{
    static const char *const q[] = {"blk.%d.attn_q.weight", "blk.%d.attn_q.bias", "blk.%d.attn_output.weight"};
    static const char *const kv[] = {"blk.%d.attn_k.weight", "blk.%d.attn_v.weight", "blk.%d.attn_k.bias", "blk.%d.attn_v.bias"};
    static const char *const ffn[] = {"blk.%d.ffn_gate.weight", "blk.%d.ffn_up.weight", "blk.%d.ffn_down.weight"};
    static const char *const rest[] = {"blk.%d.attn_norm.weight", "blk.%d.ffn_norm.weight", "blk.%d.attn_q_norm.weight", "blk.%d.attn_k_norm.weight"};
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    int64_t bytes_of[DTYPE_COUNT] = {0};
    TRY(open_header(path, &f, &s));
    *out = (struct model_weights){.n_layers = s.n_layers, .tied = s.tied, .rope_dim = s.rope_dim};
    for (int32_t l = 0; l < s.n_layers; l++) {
        struct model_layer *y = &out->layers[l];
        for (size_t i = 0; i < COUNT_OF(q); i++) add_part(&y->q, f, q[i], l, bytes_of);
        for (size_t i = 0; i < COUNT_OF(kv); i++) add_part(&y->kv, f, kv[i], l, bytes_of);
        for (size_t i = 0; i < COUNT_OF(ffn); i++) add_part(&y->ffn, f, ffn[i], l, bytes_of);
        for (size_t i = 0; i < COUNT_OF(rest); i++) add_part(&y->rest, f, rest[i], l, bytes_of);
    }
    add_part(&out->embd, f, "token_embd.weight", 0, bytes_of);
    add_part(&out->head, f, s.tied ? "token_embd.weight" : "output.weight", 0, bytes_of);
    add_part(&out->ends, f, "output_norm.weight", 0, bytes_of);
    int32_t most = 0;
    for (int32_t t = 1; t < DTYPE_COUNT; t++)
        if (bytes_of[t] > bytes_of[most]) most = t;
    snprintf(out->type, sizeof out->type, "%s", dtype_name((enum dtype)most));
out:
    eng_model_file_close(f);
    return rc;
}
