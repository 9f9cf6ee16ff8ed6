/* weights.c: see weights.h and loader.h. One description of the tensors (tensors.c) drives the count of bytes, the memory and the list of
 * what load.c is to bring, so they cannot disagree. */
#include "engine/model/loader.h"

#include "engine/kernels/table.h"
#include "engine/model/made.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CACHE_LINE = 64, CHUNK = 64 << 20,
    PAGE = 4096, MAP_LEAST = 256 << 10 /* a smaller matrix is not worth pages of its own */
};

/* Chunks of CHUNK bytes or more, on huge pages where the system gives them: a pass over the weights
 * touches each page once, and a page of 4 KiB would cost a walk of the page table every 64 lines. The
 * rest of a chunk that the next tensor does not fit into is never touched. */
static enum err add_chunk(struct eng_weights *w, int64_t bytes)
{
    void *p = NULL;
    int64_t n = ROUND_UP(MAX(bytes, (int64_t)CHUNK), (int64_t)ENG_HUGE_PAGE);
    if (w->be) { /* made, and freed, there */
        enum err e = eng_backend_alloc(w->be, ENG_MEMORY_WEIGHTS, &p, n);
        if (!e) w->next = p, w->room = n;
        return e;
    }
    if (!(p = eng_huge_alloc(n)))
        return err_raise(ERR_NO_MEMORY,
                         "no memory for %.1f MB of weights after %.1f MB: use more ranks or a "
                         "smaller quantisation",
                         (double)bytes / 1e6, (double)w->bytes / 1e6);
    if (w->n_blocks == w->cap_blocks) {
        w->cap_blocks = MAX(64, 2 * w->cap_blocks);
        w->blocks = xrealloc(w->blocks, (size_t)w->cap_blocks * sizeof *w->blocks);
        w->used = xrealloc(w->used, (size_t)w->cap_blocks * sizeof *w->used);
        w->sizes = xrealloc(w->sizes, (size_t)w->cap_blocks * sizeof *w->sizes);
    }
    w->sizes[w->n_blocks] = n;
    w->blocks[w->n_blocks++] = p;
    w->next = p;
    w->room = n;
    return OK;
}

static bool has_pages(int64_t bytes) { return bytes >= MAP_LEAST; }

static enum err keep(struct eng_weights *w, void **out, int64_t bytes)
{
    enum err rc = OK;
    int64_t grain = has_pages(bytes) ? PAGE : CACHE_LINE, n = ROUND_UP(bytes, grain),
            skip = MIN((int64_t)(-(uintptr_t)w->next % (uintptr_t)grain), w->room);
    w->next += skip;
    w->room -= skip;
    if (n > w->room) TRY(add_chunk(w, n));
    *out = w->next;
    w->next += n;
    w->room -= n;
    w->bytes += bytes;
    if (!w->be && w->n_blocks) w->used[w->n_blocks - 1] = w->next - (uint8_t *)w->blocks[w->n_blocks - 1]; /* none: nothing so far was of any length */
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

void eng_loader_note(struct eng_loader *l, void *place)
{
    if (!l->only_count) note(l->w, place);
}

bool eng_loader_has(const struct eng_loader *l, const char *name) { return eng_model_file_tensor_find(l->file, name) != NULL; }

enum err eng_loader_find(const struct eng_loader *l, const char *name, int64_t d0, int64_t d1, int64_t d2, struct eng_place *out)
{
    const struct model_tensor *t = eng_model_file_tensor_find(l->file, name);
    if (!t) return err_raise(ERR_BAD_FILE, "%s: tensor %s is missing", eng_model_file_path(l->file), name);
    if (t->type >= DTYPE_COUNT)
        return err_raise(ERR_UNSUPPORTED, "tensor %s is of type %s, number %u, which this build does not compute with: requantise to one of %s",
                         name, dtype_ggml_name(t->ggml_type), t->ggml_type, dtype_all_names());
    if (t->dims[0] != d0 || t->dims[1] != d1 || t->dims[2] != d2 || t->dims[3] != 1)
        return err_raise(ERR_BAD_FILE, "tensor %s is [%lld, %lld, %lld, %lld], needed [%lld, %lld, %lld]", name,
                         (long long)t->dims[0], (long long)t->dims[1], (long long)t->dims[2], (long long)t->dims[3],
                         (long long)d0, (long long)d1, (long long)d2);
    *out = (struct eng_place){.t = t};
    return OK;
}

static void want(struct eng_loader *l, const struct eng_want *w)
{
    if (l->n_wants == l->cap_wants) {
        l->cap_wants = MAX(256, 2 * l->cap_wants);
        l->wants = xrealloc(l->wants, (size_t)l->cap_wants * sizeof *l->wants);
    }
    l->wants[l->n_wants++] = *w;
}

static void count(struct eng_loader *l, int64_t file, int64_t mem)
{
    l->file_bytes += file;
    l->mem_bytes += mem;
    if (!l->part) return;
    l->part->file += file;
    l->part->mem += mem;
}

enum err eng_loader_vector(struct eng_loader *l, float **out, const struct eng_place *at, int64_t i0, int64_t i1)
{
    enum err rc = OK;
    void *p;
    int64_t row = at->t->dims[0], first = at->first + i0, last = at->first + i1;
    if (!l->only_count) {
        TRY(keep(l->w, &p, (i1 - i0) * (int64_t)sizeof(float)));
        *out = p;
        note(l->w, out);
    }
    for (int64_t r = first / row; r * row < last; r++) { /* a want is of one row */
        struct eng_want w = {.t = at->t, .row0 = r, .row1 = r + 1, .k0 = MAX(first - r * row, 0), .k1 = MIN(last - r * row, row)};
        count(l, eng_want_bytes(&w), (w.k1 - w.k0) * (int64_t)sizeof(float));
        if (l->only_count) continue;
        w.floats = *out + (r * row + w.k0 - first);
        want(l, &w);
    }
out:
    return rc;
}

enum err eng_loader_floats(struct eng_loader *l, float **out, const float *from, int64_t n)
{
    enum err rc = OK;
    void *p;
    count(l, 0, n * (int64_t)sizeof(float));
    if (l->only_count) goto out;
    TRY(keep(l->w, &p, n * (int64_t)sizeof(float)));
    if (l->w->be) TRY(eng_backend_upload(l->w->be, p, from, n * (int64_t)sizeof *from));
    else memcpy(p, from, (size_t)n * sizeof *from);
    *out = p;
    note(l->w, out);
out:
    return rc;
}

enum err eng_loader_matrix(struct eng_loader *l, struct krn_mat *out, const struct eng_place *at, int64_t r0, int64_t r1, int64_t k0, int64_t k1)
{
    enum err rc = OK;
    void *p;
    struct eng_want w = {.t = at->t, .k0 = k0, .k1 = k1};
    enum dtype type = w.t->type;
    if (dtype_block(type) > 1 && (k0 % KRN_UNIT || k1 % KRN_UNIT)) {
        rc = err_raise(ERR_UNSUPPORTED, "tensor %s (%s) would be cut at column %lld, not a multiple of %d: use another width",
                       w.t->name, dtype_name(type), (long long)(k0 % KRN_UNIT ? k0 : k1), KRN_UNIT);
        goto out;
    }
    w.tile_bytes = krn_pack_tile_bytes(type, (int32_t)(k1 - k0));
    int64_t bytes = w.tile_bytes * DIV_UP(r1 - r0, KRN_TILE);
    w.row1 = r1 - r0;
    count(l, w.row1 ? eng_want_bytes(&w) : 0, bytes);
    if (l->only_count) goto out;
    TRY(keep(l->w, &p, bytes));
    *out = (struct krn_mat){.type = krn_pack_layout(type), .rows = (int32_t)(r1 - r0), .cols = (int32_t)(k1 - k0), .tile_bytes = w.tile_bytes, .data = p};
    note(l->w, &out->data);
    /* runs of rows that lie together in the file; every one but the last fills its tiles */
    for (int64_t r = r0, n; r < r1; r += n) {
        n = at->run ? MIN(at->run - r % at->run, r1 - r) : r1 - r;
        w.row0 = at->first + (at->run ? r / at->run * at->stride + r % at->run : r);
        w.row1 = w.row0 + n;
        w.tiles = (uint8_t *)p + (r - r0) / KRN_TILE * w.tile_bytes;
        w.pages = n == r1 - r0 && !l->w->be && has_pages(bytes);
        want(l, &w);
    }
out:
    return rc;
}

static enum err load_all(struct eng_loader *l)
{
    enum err rc;
    struct eng_layer none = {0};
    TRY(eng_tensors_ends(l));
    for (int32_t i = l->shard->layer0; i < l->shard->layer1; i++)
        TRY(eng_tensors_layer(l, i, l->only_count ? &none : &l->w->layers[i - l->shard->layer0]));
out:
    return rc;
}

enum err eng_weights_count(const struct eng_model_file *f, const struct eng_spec *s, const struct eng_shard *h, int64_t *file_bytes,
                           int64_t *mem_bytes)
{
    struct eng_weights w = {0};
    struct eng_loader l = {.file = f, .spec = s, .shard = h, .w = &w, .only_count = true};
    enum err e = load_all(&l);
    if (e) return e;
    *file_bytes = l.file_bytes;
    *mem_bytes = l.mem_bytes;
    return OK;
}

enum err eng_weights_parts(const struct eng_model_file *f, const struct eng_spec *s, struct model_weights *out)
{
    enum err rc;
    struct eng_shard h;
    struct grid g;
    struct eng_weights w = {0};
    struct eng_loader l = {.file = f, .spec = s, .shard = &h, .w = &w, .only_count = true, .parts = out};
    TRY(eng_grid_even(&g, s, 1, 1));
    TRY(eng_shard_of(&h, s, &g, 0));
    *out = (struct model_weights){.n_layers = s->n_layers, .tied = s->tied, .rope_dim = s->rope_dim};
    TRY(load_all(&l));
    if (s->tied) out->head = out->embd;
out:
    return rc;
}

static void note_mapped(struct eng_weights *w, const struct eng_want wants[], int32_t n)
{
    w->spans = xcalloc((size_t)MAX(n, 1), sizeof *w->spans);
    for (int32_t i = 0; i < n; i++)
        if (wants[i].mapped)
            w->spans[w->n_spans++] = (struct eng_span){wants[i].tiles, wants[i].tile_bytes * DIV_UP(wants[i].row1 - wants[i].row0, KRN_TILE)};
}

enum err eng_weights_to_huge(struct eng_weights *w, const struct eng_team *team)
{
    ASSERT(!w->huge);
    return w->n_spans ? eng_huge_open(&w->huge, w->spans, w->n_spans, team) : OK;
}

void eng_weights_settle(struct eng_weights *w) { eng_huge_settle(w->huge); }

enum err eng_weights_open(struct eng_weights **out, const struct eng_spec *s, const struct eng_shard *h, const struct eng_load_conf *load)
{
    enum err rc;
    struct eng_weights *w = xcalloc(1, sizeof *w);
    struct eng_loader l = {.file = load->file, .spec = s, .shard = h, .w = w, .only_count = true};
    w->be = load->made_on;
    w->n_layers = h->layer1 - h->layer0;
    w->layers = xcalloc((size_t)w->n_layers, sizeof *w->layers);
    TRY(load_all(&l)); /* checks every tensor before memory is taken or a byte is read */
    l.only_count = false;
    TRY(load_all(&l));
    if (w->be) TRY(eng_made_fill(w->be, l.wants, l.n_wants, load->made_seed));
    else TRY(eng_load(load, l.wants, l.n_wants, &w->loaded));
    if (s->norm_plus_one && !w->be) eng_tensors_plus_one(w, s);
    note_mapped(w, l.wants, l.n_wants);
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

static void free_blocks(struct eng_weights *w)
{
    for (int32_t i = 0; i < w->n_blocks; i++) eng_huge_free(w->blocks[i], w->sizes[i]);
    w->n_blocks = 0;
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
    free_blocks(w);
out:
    free(there);
    return rc;
}

void eng_weights_close(struct eng_weights *w)
{
    if (!w) return;
    eng_huge_close(w->huge);
    free_blocks(w);
    free(w->blocks);
    free(w->spans);
    free(w->sizes);
    free(w->used);
    free(w->places);
    for (int32_t i = 0; i < w->n_layers && w->layers; i++) {
        free(w->layers[i].experts);
        free(w->layers[i].mla.k_b); /* v_b lies behind it */
    }
    free(w->layers);
    free(w);
}
