/* weights.c: see weights.h. One description of a layer's tensors (for_each_tensor) drives the count of bytes,
 * the memory and the list of what load.c is to bring, so they cannot disagree. */
#include "engine/model/weights.h"

#include "engine/kernels/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CACHE_LINE = 64, HUGE_PAGE = 2 << 20, CHUNK = 64 << 20 };

struct loader {
    const struct eng_model_file *file;
    const struct eng_spec *spec;
    const struct eng_shard *shard;
    struct eng_weights *w;
    bool only_count;            /* bytes; keeps nothing */
    int64_t file_bytes, mem_bytes;
    struct eng_want *wants;     /* Own */
    int32_t n_wants, cap_wants;
};

/* Chunks of CHUNK bytes or more, on huge pages where the system gives them: a pass over the weights
 * touches each page once, and a page of 4 KiB would cost a walk of the page table every 64 lines. The
 * rest of a chunk that the next tensor does not fit into is never touched. */
static enum err add_chunk(struct eng_weights *w, int64_t bytes)
{
    void *p = NULL;
    int64_t n = ROUND_UP(MAX(bytes, (int64_t)CHUNK), (int64_t)HUGE_PAGE);
    if (posix_memalign(&p, HUGE_PAGE, (size_t)n))
        return err_raise(ERR_NO_MEMORY,
                         "no memory for %.1f MB of weights after %.1f MB: use more ranks or a "
                         "smaller quantisation",
                         (double)bytes / 1e6, (double)w->bytes / 1e6);
    (void)madvise(p, (size_t)n, MADV_HUGEPAGE); /* advice: without it merely slower */
    if (w->n_blocks == w->cap_blocks) {
        w->cap_blocks = MAX(64, 2 * w->cap_blocks);
        w->blocks = xrealloc(w->blocks, (size_t)w->cap_blocks * sizeof *w->blocks);
        w->used = xrealloc(w->used, (size_t)w->cap_blocks * sizeof *w->used);
    }
    w->blocks[w->n_blocks++] = p;
    w->next = p;
    w->room = n;
    return OK;
}

static enum err keep(struct eng_weights *w, void **out, int64_t bytes)
{
    enum err rc = OK;
    int64_t n = ROUND_UP(bytes, (int64_t)CACHE_LINE);
    if (n > w->room) TRY(add_chunk(w, n));
    *out = w->next;
    w->next += n;
    w->room -= n;
    w->bytes += bytes;
    w->used[w->n_blocks - 1] = w->next - (uint8_t *)w->blocks[w->n_blocks - 1];
out:
    return rc;
}

/* *place points, or will point, into a block. */
static void note(struct eng_weights *w, void *place)
{
    if (w->n_places == w->cap_places) {
        w->cap_places = MAX(256, 2 * w->cap_places);
        w->places = xrealloc(w->places, (size_t)w->cap_places * sizeof *w->places);
    }
    w->places[w->n_places++] = place;
}

static enum err find(const struct loader *l, const char *name, int64_t d0, int64_t d1, const struct model_tensor **out)
{
    const struct model_tensor *t = eng_model_file_tensor_find(l->file, name);
    if (!t) return err_raise(ERR_BAD_FILE, "%s: tensor %s is missing", eng_model_file_path(l->file), name);
    if (t->type >= DTYPE_COUNT)
        return err_raise(ERR_UNSUPPORTED, "tensor %s is of type %s, which this build does not compute with (F32, F16, BF16, Q8_0, "
                         "Q4_0, Q4_K, Q5_K, Q6_K are known)", name, dtype_ggml_name(t->ggml_type));
    if (t->dims[0] != d0 || t->dims[1] != d1 || t->dims[2] != 1 || t->dims[3] != 1)
        return err_raise(ERR_BAD_FILE, "tensor %s is [%lld, %lld, %lld, %lld], needed [%lld, %lld]", name,
                         (long long)t->dims[0], (long long)t->dims[1], (long long)t->dims[2], (long long)t->dims[3],
                         (long long)d0, (long long)d1);
    *out = t;
    return OK;
}

static void want(struct loader *l, const struct eng_want *w)
{
    if (l->n_wants == l->cap_wants) {
        l->cap_wants = MAX(256, 2 * l->cap_wants);
        l->wants = xrealloc(l->wants, (size_t)l->cap_wants * sizeof *l->wants);
    }
    l->wants[l->n_wants++] = *w;
}

/* Values [i0,i1) of a one-dimensional tensor as f32. */
static enum err load_vector(struct loader *l, float **out, const char *name, int64_t n, int64_t i0, int64_t i1)
{
    enum err rc;
    void *p;
    struct eng_want w = {.row1 = 1, .k0 = i0, .k1 = i1};
    TRY(find(l, name, n, 1, &w.t));
    l->file_bytes += eng_want_bytes(&w);
    l->mem_bytes += (i1 - i0) * (int64_t)sizeof(float);
    if (l->only_count) goto out;
    TRY(keep(l->w, &p, (i1 - i0) * (int64_t)sizeof(float)));
    *out = w.floats = p;
    note(l->w, out);
    want(l, &w);
out:
    return rc;
}

/* Rows [r0,r1), columns [k0,k1) of the matrix `name` of n rows and k columns. */
static enum err load_matrix(struct loader *l, struct krn_mat *out, const char *name, int64_t n, int64_t k, int64_t r0,
                            int64_t r1, int64_t k0, int64_t k1)
{
    enum err rc;
    void *p;
    struct eng_want w = {.row0 = r0, .row1 = r1, .k0 = k0, .k1 = k1};
    TRY(find(l, name, k, n, &w.t));
    if (dtype_block(w.t->type) > 1 && (k0 % KRN_UNIT || k1 % KRN_UNIT)) {
        rc = err_raise(ERR_UNSUPPORTED, "tensor %s (%s) would be cut at column %lld, not a multiple of %d: use another width",
                       name, dtype_name(w.t->type), (long long)(k0 % KRN_UNIT ? k0 : k1), KRN_UNIT);
        goto out;
    }
    w.tile_bytes = krn_pack_tile_bytes(w.t->type, (int32_t)(k1 - k0));
    int64_t bytes = w.tile_bytes * DIV_UP(r1 - r0, KRN_TILE);
    l->file_bytes += eng_want_bytes(&w);
    l->mem_bytes += bytes;
    if (l->only_count) goto out;
    TRY(keep(l->w, &p, bytes));
    w.tiles = p;
    *out = (struct krn_mat){.type = w.t->type, .rows = (int32_t)(r1 - r0), .cols = (int32_t)(k1 - k0), .tile_bytes = w.tile_bytes, .data = p};
    note(l->w, &out->data);
    if (r1 > r0) want(l, &w);
out:
    return rc;
}

static enum err load_layer(struct loader *l, int32_t layer, struct eng_layer *y)
{
    enum err rc;
    const struct eng_spec *s = l->spec;
    const struct eng_shard *h = l->shard;
    char name[96];
    int64_t d = s->d_model, hd = s->head_dim, nq = s->n_heads * hd, nkv = s->n_kv_heads * hd, ffn = s->d_ffn;
    int64_t q0 = h->q0 * hd, q1 = h->q1 * hd, kv0 = h->kv0 * hd, kv1 = h->kv1 * hd, f0 = h->ffn0, f1 = h->ffn1;
#define NAME(what) (snprintf(name, sizeof name, "blk.%d.%s", layer, what), name)
    TRY(load_vector(l, &y->attn_norm, NAME("attn_norm.weight"), d, 0, d));
    TRY(load_matrix(l, &y->q, NAME("attn_q.weight"), nq, d, q0, q1, 0, d));
    TRY(load_matrix(l, &y->k, NAME("attn_k.weight"), nkv, d, kv0, kv1, 0, d));
    TRY(load_matrix(l, &y->v, NAME("attn_v.weight"), nkv, d, kv0, kv1, 0, d));
    if (s->qkv_bias) {
        TRY(load_vector(l, &y->bq, NAME("attn_q.bias"), nq, q0, q1));
        TRY(load_vector(l, &y->bk, NAME("attn_k.bias"), nkv, kv0, kv1));
        TRY(load_vector(l, &y->bv, NAME("attn_v.bias"), nkv, kv0, kv1));
    }
    if (s->qk_norm) {
        TRY(load_vector(l, &y->q_norm, NAME("attn_q_norm.weight"), hd, 0, hd));
        TRY(load_vector(l, &y->k_norm, NAME("attn_k_norm.weight"), hd, 0, hd));
    }
    TRY(load_matrix(l, &y->o, NAME("attn_output.weight"), d, nq, 0, d, q0, q1));
    TRY(load_vector(l, &y->ffn_norm, NAME("ffn_norm.weight"), d, 0, d));
    TRY(load_matrix(l, &y->gate, NAME("ffn_gate.weight"), ffn, d, f0, f1, 0, d));
    TRY(load_matrix(l, &y->up, NAME("ffn_up.weight"), ffn, d, f0, f1, 0, d));
    TRY(load_matrix(l, &y->down, NAME("ffn_down.weight"), d, ffn, 0, d, f0, f1));
#undef NAME
    if (!l->only_count && dtype_block(y->o.type) > 1 && l->spec->head_dim * 2 % KRN_UNIT)
        rc = err_raise(ERR_UNSUPPORTED, "%s attention output with heads of %d values is not supported: use an F16 file",
                       dtype_name(y->o.type), l->spec->head_dim);
out:
    return rc;
}

static enum err load_ends(struct loader *l)
{
    enum err rc = OK;
    const struct eng_spec *s = l->spec;
    const struct eng_shard *h = l->shard;
    struct eng_weights *w = l->w;
    if (h->first || (h->last && s->tied))
        TRY(load_matrix(l, &w->embd, "token_embd.weight", s->n_vocab, s->d_model, h->embd0, h->embd1, 0, s->d_model));
    if (h->last) {
        if (s->tied) {
            w->head = w->embd;
            if (!l->only_count) note(w, &w->head.data);
        } else
            TRY(load_matrix(l, &w->head, "output.weight", s->n_vocab, s->d_model, h->embd0, h->embd1, 0, s->d_model));
        TRY(load_vector(l, &w->out_norm, "output_norm.weight", s->d_model, 0, s->d_model));
    }
    if (s->rope_freqs) TRY(load_vector(l, &w->rope_freqs, "rope_freqs.weight", s->rope_dim / 2, 0, s->rope_dim / 2));
out:
    return rc;
}

static enum err load_all(struct loader *l)
{
    enum err rc;
    struct eng_layer none;
    TRY(load_ends(l));
    for (int32_t i = l->shard->layer0; i < l->shard->layer1; i++)
        TRY(load_layer(l, i, l->only_count ? &none : &l->w->layers[i - l->shard->layer0]));
out:
    return rc;
}

enum err eng_weights_count(const struct eng_model_file *f, const struct eng_spec *s, const struct eng_shard *h, int64_t *file_bytes,
                           int64_t *mem_bytes)
{
    struct eng_weights w = {0};
    struct loader l = {.file = f, .spec = s, .shard = h, .w = &w, .only_count = true};
    enum err e = load_all(&l);
    if (e) return e;
    *file_bytes = l.file_bytes;
    *mem_bytes = l.mem_bytes;
    return OK;
}

enum err eng_weights_open(struct eng_weights **out, const struct eng_spec *s, const struct eng_shard *h, const struct eng_load_conf *load)
{
    enum err rc;
    struct eng_weights *w = xcalloc(1, sizeof *w);
    struct loader l = {.file = load->file, .spec = s, .shard = h, .w = w, .only_count = true};
    w->n_layers = h->layer1 - h->layer0;
    w->layers = xcalloc((size_t)w->n_layers, sizeof *w->layers);
    TRY(load_all(&l)); /* checks every tensor before memory is taken or a byte is read */
    l.only_count = false;
    TRY(load_all(&l));
    TRY(eng_load(load, l.wants, l.n_wants, &w->loaded));
    *out = w, w = NULL;
out:
    free(l.wants);
    eng_weights_close(w);
    return rc;
}

static void rebase(struct eng_weights *w, const uint8_t *from, int64_t bytes, uint8_t *to)
{
    for (int32_t i = 0; i < w->n_places; i++) {
        uint8_t *p;
        memcpy(&p, w->places[i], sizeof p); /* a pointer to floats or to bytes */
        if (p < from || p >= from + bytes) continue;
        p = to + (p - from);
        memcpy(w->places[i], &p, sizeof p);
    }
}

enum err eng_weights_move(struct eng_weights *w, struct eng_backend *be)
{
    enum err rc = OK;
    uint8_t **there = xcalloc((size_t)MAX(w->n_blocks, 1), sizeof *there);
    for (int32_t i = 0; i < w->n_blocks; i++) {
        void *p;
        TRY(eng_backend_alloc(be, ENG_MEMORY_WEIGHTS, &p, w->used[i]));
        TRY(eng_backend_upload(be, p, w->blocks[i], w->used[i]));
        there[i] = p;
    }
    TRY(eng_backend_sync(be));
    for (int32_t i = 0; i < w->n_blocks; i++) rebase(w, w->blocks[i], w->used[i], there[i]);
    for (int32_t i = 0; i < w->n_blocks; i++) free(w->blocks[i]);
    w->n_blocks = 0;
out:
    free(there);
    return rc;
}

void eng_weights_close(struct eng_weights *w)
{
    if (!w) return;
    for (int32_t i = 0; i < w->n_blocks; i++) free(w->blocks[i]);
    free(w->blocks);
    free(w->used);
    free(w->places);
    free(w->layers);
    free(w);
}
