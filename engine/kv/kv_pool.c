/* kv_pool.c: see kv_pool.h. */
#include "engine/kv/kv_pool.h"

#include <stdlib.h>

enum err eng_kv_pool_open(struct eng_kv_pool **out, struct eng_backend *be, int32_t n_planes, int32_t n_blocks, const struct krn_kv *as)
{
    int64_t block = as->n_kv * KRN_KV_BLOCK * kv_row_bytes(as->type, as->head_dim), each = as->v_dim ? 1 : 2;
    int64_t bytes = block * n_blocks * n_planes * each;
    void *mem;
    enum err e = eng_backend_alloc(be, ENG_MEMORY_KV, &mem, bytes);
    if (e) return e;
    struct eng_kv_pool *p = xcalloc(1, sizeof *p);
    *p = (struct eng_kv_pool){.be = be, .n_planes = n_planes, .n_blocks = n_blocks, .block_bytes = block, .mem = mem, .bytes = bytes};
    p->planes = xcalloc((size_t)n_planes, sizeof *p->planes);
    for (int32_t i = 0; i < n_planes; i++) {
        uint8_t *k = p->mem + block * n_blocks * each * i;
        p->planes[i] = *as;
        p->planes[i].k = k;
        p->planes[i].v = as->v_dim ? NULL : k + block * n_blocks;
    }
    *out = p;
    return OK;
}

void eng_kv_pool_close(struct eng_kv_pool *p)
{
    if (!p) return;
    eng_backend_free(p->be, p->mem);
    free(p->planes);
    free(p);
}

enum err eng_kv_pool_copy(struct eng_kv_pool *p, int32_t src, int32_t dst)
{
    enum err rc = OK;
    for (int32_t i = 0; i < p->n_planes; i++) {
        uint8_t *k = p->planes[i].k, *v = p->planes[i].v;
        TRY(eng_backend_copy(p->be, k + dst * p->block_bytes, k + src * p->block_bytes, p->block_bytes));
        if (v) TRY(eng_backend_copy(p->be, v + dst * p->block_bytes, v + src * p->block_bytes, p->block_bytes));
    }
out:
    return rc;
}
