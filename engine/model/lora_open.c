/* lora_open.c: see lora.h: adapters checked against their base, cut as its matrices are, and brought into memory by the same loader.
 *
 * Rows of q and k stand in another order in GGUF files of a few families than in checkpoints (pairs of rope side by side). Where adapter and
 * base disagree about it B's rows are turned round in the packed tiles: the order changes inside a head, and a rank has whole heads. */
#include "engine/model/lora.h"

#include "engine/kernels/panel.h"
#include "engine/model/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"q", "k", "v", "o", "gate", "up", "down", "qkv"};

/* ---- the base's matrices ---- */

/* Inputs and outputs of a matrix, and what this rank has of them. */
struct size { int64_t cols, rows, k0, k1, r0, r1; };

static struct size size_of(const struct eng_spec *s, const struct eng_shard *h, enum eng_adapter_target target)
{
    int64_t d = s->d_model, hd = s->head_dim, nq = s->n_heads * hd, nkv = s->n_kv_heads * hd, w = s->d_ffn;
    switch (target) {
    case ADAPTER_Q: return (struct size){d, nq, 0, d, h->q0 * hd, h->q1 * hd};
    case ADAPTER_K:
    case ADAPTER_V: return (struct size){d, nkv, 0, d, h->kv0 * hd, h->kv1 * hd};
    case ADAPTER_O: return (struct size){nq, d, h->q0 * hd, h->q1 * hd, 0, d};
    case ADAPTER_GATE:
    case ADAPTER_UP: return (struct size){d, w, 0, d, h->ffn0, h->ffn1};
    case ADAPTER_DOWN: return (struct size){w, d, h->ffn0, h->ffn1, 0, d};
    default: return (struct size){d, nq + 2 * nkv, 0, d, 0, 0};
    }
}

static bool is_of(const char *arch, const char *list)
{
    char word[80];
    snprintf(word, sizeof word, " %s ", arch);
    return strstr(list, word) != NULL;
}

/* Families whose GGUF files have q and k in another order than their checkpoints. */
static bool turned_in_gguf(const struct eng_spec *s) { return is_of(s->arch, " llama granite smollm3 "); }

/* Does the adapter's order differ from the base's? A base from a checkpoint has none of its pairs side by side. */
static bool to_turn(const struct eng_spec *s, const struct eng_adapter *a) { return turned_in_gguf(s) && a->checkpoint == s->rope_interleaved; }

/* ---- one pair ---- */

static enum err check(const struct eng_model_file *f, const struct eng_spec *s, const struct eng_adapter_pair *p, bool fused)
{
    const char *path = eng_model_file_path(f);
    bool ffn = p->target == ADAPTER_GATE || p->target == ADAPTER_UP || p->target == ADAPTER_DOWN;
    if (p->layer >= s->n_layers)
        return err_raise(ERR_BAD_FILE, "%s: %s is of layer %d, the model has %d layers: it is the adapter of another base", path, p->module,
                         p->layer, s->n_layers);
    if (s->mla.kv_rank && !ffn)
        return err_raise(ERR_UNSUPPORTED, "%s: %s: adapters of attention over a latent are not computed here: merge the adapter into the base", path,
                         p->module);
    if (s->moe[p->layer] && ffn)
        return err_raise(ERR_UNSUPPORTED, "%s: %s: adapters of experts are not computed here, and the feed-forward of layer %d is experts", path,
                         p->module, p->layer);
    if (p->a->dims[1] > ENG_LORA_RANK)
        return err_raise(ERR_UNSUPPORTED, "%s: %s has rank %lld, at most %d are computed: train with a smaller r", path, p->module, (long long)p->a->dims[1],
                         ENG_LORA_RANK);
    const struct eng_shard none = {.rank = 0};
    struct size is = size_of(s, &none, p->target);
    int64_t rows = is.rows * (fused && p->target == ADAPTER_UP ? 2 : 1);
    if ((p->target == ADAPTER_GATE && !s->gated) || p->a->dims[0] != is.cols || p->b->dims[1] != rows)
        return err_raise(ERR_BAD_FILE, "%s: %s stands beside a matrix of %lld inputs and %lld outputs, the model's %s has %lld and %lld: it is the adapter of "
                         "another base", path, p->module, (long long)p->a->dims[0], (long long)p->b->dims[1], names[p->target], (long long)is.cols,
                         (long long)rows);
    return OK;
}

/* What the planner deals A or B out as. */
static struct model_part *part_of(struct model_weights *w, const struct eng_adapter_pair *p, enum eng_adapter_target target, bool b)
{
    struct model_layer *l = &w->layers[p->layer];
    bool cut = (target == ADAPTER_O || target == ADAPTER_DOWN) != b;
    if (!cut) return &l->rest;
    return target == ADAPTER_K || target == ADAPTER_V ? &l->kv : target == ADAPTER_Q || target == ADAPTER_O ? &l->q : &l->ffn;
}

/* Its matrices beside one of the base's; b: where that one's rows lie in B. */
static enum err take(struct eng_loader *l, const struct eng_adapter_pair *p, enum eng_adapter_target target, struct eng_place b, struct eng_lora_pair *y)
{
    enum err rc;
    const struct size is = size_of(l->spec, l->shard, target);
    const struct eng_place a = {.t = p->a};
    l->part = l->parts ? part_of(l->parts, p, target, false) : NULL;
    TRY(eng_loader_matrix(l, &y->a, &a, 0, p->a->dims[1], is.k0, is.k1));
    l->part = l->parts ? part_of(l->parts, p, target, true) : NULL;
    TRY(eng_loader_matrix(l, &y->b, &b, is.r0, is.r1, 0, p->a->dims[1]));
    y->scale = p->scale;
out:
    return rc;
}

/* ---- one adapter ---- */

struct list {
    struct eng_loader l;
    const struct eng_adapter *a;
    struct eng_lora_pair *pairs; /* [layers of the stage][ADAPTER_TARGETS] */
    bool seen[LIMIT_LAYERS][ADAPTER_TARGETS];
};

static enum err take_one(struct list *t, const struct eng_adapter_pair *p, enum eng_adapter_target target, struct eng_place b)
{
    struct eng_lora_pair none;
    const struct eng_shard *h = t->l.shard;
    if (t->seen[p->layer][target])
        return err_raise(ERR_BAD_FILE, "%s: layer %d has two adapters of its %s matrix: %s is the second", eng_model_file_path(t->l.file), p->layer,
                         names[target], p->module);
    t->seen[p->layer][target] = true;
    if (p->layer < h->layer0 || p->layer >= h->layer1) return OK;
    return take(&t->l, p, target, b, t->l.only_count ? &none : &t->pairs[(p->layer - h->layer0) * ADAPTER_TARGETS + target]);
}

/* Rows of q, k or v (part 0, 1, 2) in a fused B: behind each other, or, in checkpoints of Falcon, each group of heads by itself. */
static struct eng_place within_qkv(const struct list *t, const struct eng_adapter_pair *p, int part)
{
    const struct eng_spec *s = t->l.spec;
    int64_t hd = s->head_dim, nq = s->n_heads * hd, nkv = s->n_kv_heads * hd, group = nq / s->n_kv_heads;
    if (!t->a->checkpoint || !is_of(s->arch, " falcon ")) return (struct eng_place){.t = p->b, .first = part == 0 ? 0 : part == 1 ? nq : nq + nkv};
    return (struct eng_place){.t = p->b, .first = part == 0 ? 0 : part == 1 ? group : group + hd, .run = part == 0 ? group : hd, .stride = group + 2 * hd};
}

static enum err take_pair(struct list *t, const struct eng_adapter_pair *p)
{
    enum err rc;
    const struct eng_spec *s = t->l.spec;
    bool fused = p->target == ADAPTER_UP && s->gated && p->b->dims[1] == 2 * (int64_t)s->d_ffn; /* gate's rows first */
    TRY(check(t->l.file, s, p, fused));
    if (p->target == ADAPTER_QKV && within_qkv(t, p, 1).run % KRN_TILE)
        TRY(err_raise(ERR_UNSUPPORTED, "%s: %s: adapters of fused q, k, v with heads of %d values are not computed here", eng_model_file_path(t->l.file),
                      p->module, s->head_dim));
    for (int part = 0; part < 3 && p->target == ADAPTER_QKV; part++) TRY(take_one(t, p, (enum eng_adapter_target)(ADAPTER_Q + part), within_qkv(t, p, part)));
    if (fused) TRY(take_one(t, p, ADAPTER_GATE, (struct eng_place){.t = p->b}));
    if (p->target != ADAPTER_QKV) TRY(take_one(t, p, p->target, (struct eng_place){.t = p->b, .first = fused ? s->d_ffn : 0}));
out:
    return rc;
}

static enum err take_all(struct list *t)
{
    enum err rc = OK;
    memset(t->seen, 0, sizeof t->seen);
    for (int32_t i = 0; i < t->a->n; i++) TRY(take_pair(t, &t->a->pairs[i]));
out:
    return rc;
}

static int32_t largest_rank(const struct eng_adapter *a)
{
    int64_t most = 0;
    for (int32_t i = 0; i < a->n; i++) most = MAX(most, a->pairs[i].a->dims[1]);
    return (int32_t)most;
}

/* ---- the order of rows ---- */

/* Row of an adapter's B that is row r of the base, where orders differ: to GGUF's, or back. */
static int32_t turned(int32_t r, int32_t head_dim, bool to_gguf)
{
    int32_t half = head_dim / 2, head = r / head_dim * head_dim, in = r % head_dim;
    return to_gguf ? head + in % 2 * half + in / 2 : head + in % half * 2 + in / half;
}

/* F32, F16 and BF16 lie as [columns][KRN_TILE rows] in a tile. */
static void turn(struct krn_mat *b, int32_t head_dim, bool to_gguf)
{
    size_t size = (size_t)dtype_bytes(b->type, 1);
    int64_t bytes = b->tile_bytes * DIV_UP(b->rows, KRN_TILE);
    if (!b->rows) return;
    uint8_t *from = xmalloc((size_t)bytes), *to = (uint8_t *)(uintptr_t)b->data;
    memcpy(from, to, (size_t)bytes);
    for (int32_t r = 0; r < b->rows; r++) {
        int32_t f = turned(r, head_dim, to_gguf);
        for (int32_t k = 0; k < b->cols; k++)
            memcpy(to + r / KRN_TILE * b->tile_bytes + (size_t)(k * KRN_TILE + r % KRN_TILE) * size,
                   from + f / KRN_TILE * b->tile_bytes + (size_t)(k * KRN_TILE + f % KRN_TILE) * size, size);
    }
    free(from);
}

static void turn_all(const struct eng_model *m, struct eng_lora_pair *pairs)
{
    for (int32_t i = 0; i < m->lora->n_layers * ADAPTER_TARGETS; i++)
        if (i % ADAPTER_TARGETS == ADAPTER_Q || i % ADAPTER_TARGETS == ADAPTER_K) turn(&pairs[i].b, m->spec.head_dim, m->spec.rope_interleaved);
}

/* ---- open, close ---- */

static enum err open_one(struct eng_model *m, const char *path, uint64_t sum, struct trn_coll *world, struct eng_lora_pair *pairs)
{
    enum err rc;
    struct eng_lora *lora = m->lora;
    struct eng_peers peers;
    struct eng_load_stats stats;
    struct eng_model_file *f = NULL;
    struct eng_adapter a = {0};
    struct list *t = xcalloc(1, sizeof *t);
    TRY(eng_peers_open(&peers, &f, path, sum, world));
    TRY(eng_adapter_read(&a, f, m->spec.arch));
    *t = (struct list){.l = {.file = f, .spec = &m->spec, .shard = &m->shard, .w = lora->mem, .only_count = true}, .a = &a, .pairs = pairs};
    TRY(take_all(t)); /* checks everything before memory is taken */
    t->l.only_count = false;
    TRY(take_all(t));
    const struct eng_load_conf load = {.file = f, .team = m->team, .peers = &peers};
    TRY(eng_load(&load, t->l.wants, t->l.n_wants, &stats));
    if (to_turn(&m->spec, &a)) turn_all(m, pairs);
    lora->room = MAX(lora->room, eng_lora_room(largest_rank(&a)));
out:
    free(t->l.wants);
    free(t);
    eng_adapter_free(&a);
    eng_model_file_close(f);
    return rc;
}

/* A thread's room for rows that are brought together, as they are and interleaved. */
static int64_t together_floats(int64_t wide) { return 2 * KRN_GROUP * MAX(wide, KRN_UNIT); }

static enum err take_buffers(struct eng_model *m)
{
    struct eng_lora *l = m->lora;
    void *p;
    enum err rc;
    l->groups = xcalloc((size_t)l->n, sizeof *l->groups);
    l->rows = xcalloc((size_t)m->max_tok, sizeof *l->rows);
    for (int64_t i = 0; i < (int64_t)l->n * l->n_layers * ADAPTER_TARGETS; i++) l->wide = MAX(l->wide, ROUND_UP(l->pairs[i].a.cols, KRN_UNIT));
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &p, (int64_t)ENG_LORA_TOGETHER * m->max_tok * l->room * (int64_t)sizeof(float)));
    l->u = p;
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &p, eng_team_size(m->team) * together_floats(l->wide) * (int64_t)sizeof(float)));
    l->together = p;
out:
    return rc;
}

enum err eng_lora_open(struct eng_model *m, const struct eng_adapters *a, struct trn_coll *world)
{
    enum err rc;
    if (!a->n) return OK;
    if (!m->be->on_host) return err_raise(ERR_UNSUPPORTED, "--lora: adapters are computed on the CPU, not on %s: --device cpu", m->be->name);
    struct eng_lora *l = m->lora = xcalloc(1, sizeof *l);
    l->n = a->n;
    l->n_layers = m->shard.layer1 - m->shard.layer0;
    int64_t each = (int64_t)l->n_layers * ADAPTER_TARGETS;
    l->mem = xcalloc(1, sizeof *l->mem);
    l->pairs = xcalloc((size_t)(each * a->n), sizeof *l->pairs);
    l->any = xcalloc((size_t)each, sizeof *l->any);
    for (int32_t i = 0; i < a->n; i++) TRY(open_one(m, a->paths[i], a->sums ? a->sums[i] : 0, world, l->pairs + i * each));
    for (int64_t i = 0; i < each * a->n; i++) l->any[i % each] |= l->pairs[i].a.rows > 0;
    TRY(take_buffers(m));
out:
    return rc;
}

void eng_lora_close(struct eng_lora *l)
{
    if (!l) return;
    eng_weights_close(l->mem);
    free(l->pairs);
    free(l->any);
    free(l->groups);
    free(l->rows);
    free(l);
}

/* ---- what they need ---- */

/* *wide: columns of the widest A on this rank. */
static enum err count_one(const char *path, struct list *t, int32_t *rank, int64_t *wide)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_adapter a = {0};
    TRY(eng_model_file_open(&f, path));
    TRY(eng_adapter_read(&a, f, t->l.spec->arch));
    t->a = &a;
    t->l.file = f;
    TRY(take_all(t));
    *rank = MAX(*rank, largest_rank(&a));
    for (int32_t i = 0; i < a.n; i++) {
        const struct size is = size_of(t->l.spec, t->l.shard, a.pairs[i].target);
        *wide = MAX(*wide, ROUND_UP(is.k1 - is.k0, KRN_UNIT));
    }
out:
    eng_adapter_free(&a);
    eng_model_file_close(f);
    return rc;
}

enum err eng_lora_count(const struct eng_adapters *a, const struct eng_spec *s, const struct eng_shard *h, int32_t max_tok, struct model_weights *parts,
                        int64_t *mat_bytes, int64_t *step_bytes)
{
    enum err rc = OK;
    int64_t wide = 0;
    int32_t rank = 0, nodes = MAX(h->attn.n_nodes, h->ffn.n_nodes) + 1; /* and the sum */
    struct list *t = xcalloc(1, sizeof *t);
    t->l = (struct eng_loader){.spec = s, .shard = h, .only_count = true, .parts = parts};
    for (int32_t i = 0; i < a->n; i++) TRY(count_one(a->paths[i], t, &rank, &wide));
    *mat_bytes = t->l.mem_bytes;
    *step_bytes = ((int64_t)(ENG_LORA_TOGETHER + nodes) * max_tok * eng_lora_room(rank) + ENG_LORA_THREADS * together_floats(wide)) * (int64_t)sizeof(float);
out:
    free(t);
    return rc;
}
