/* Any bytes as a model file: opening refuses with a sentence or succeeds, and then everything in it
 * can be looked at and the tensors read. Seeds: corpus/gguf. */
#include "engine/file/dequant.h"
#include "engine/file/model_file.h"
#include "engine/kernels/table.h"
#include "tests/support/scratch.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint64_t used;

static void use(const void *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) used += ((const uint8_t *)p)[i];
}

static void use_array(const struct model_kv *kv)
{
    for (uint64_t i = 0; i < kv->a.n; i++) {
        struct model_str s = {0};
        if (kv->a.kind == KV_STRING) s = eng_model_file_array_str(kv, i);
        else if (kv->a.kind == KV_FLOAT) used += eng_model_file_array_float(kv, i) > 0;
        else used += (uint64_t)eng_model_file_array_int(kv, i);
        use(s.p, s.n);
    }
}

static void use_kv(const struct eng_model_file *f, const struct model_kv *kv)
{
    char *key = xstrndup(kv->key.p, kv->key.n), *s = NULL;
    int64_t i;
    double d;
    bool b;
    ASSERT(eng_model_file_find(f, key) == kv);
    ASSERT(eng_model_file_int(f, key, 0, INT64_MIN, INT64_MAX, &i) || kv->kind == KV_INT);
    ASSERT(eng_model_file_float(f, key, 0, &d) || kv->kind == KV_FLOAT);
    ASSERT(eng_model_file_bool(f, key, false, &b) || kv->kind == KV_BOOL);
    ASSERT(eng_model_file_string(f, key, &s) || kv->kind == KV_STRING);
    if (kv->kind == KV_ARRAY) use_array(kv);
    free(key);
    free(s);
}

/* Any bytes are blocks of any type: they decode, and a tile of them holds the same values. */
static void use_values(const struct model_tensor *t, const uint8_t *p)
{
    int32_t block = dtype_block(t->type), n = block == 1 ? 32 : block;
    if (t->bytes < dtype_bytes(t->type, n) || t->dims[0] < n) return;
    const uint8_t *src[] = {p};
    float want[256], got[256];
    eng_dequant_row(t->type, p, want, n);
    struct krn_mat m = {.type = krn_pack_layout(t->type), .rows = 1, .cols = n, .tile_bytes = krn_pack_tile_bytes(t->type, n)};
    void *tile = xmalloc((size_t)m.tile_bytes);
    krn_pack_tile(t->type, tile, src, 1, 0, n);
    m.data = tile;
    krn_unpack_row(&m, 0, got);
    for (int32_t i = 0; i < n; i++) ASSERT(memcmp(got + i, want + i, sizeof *got) == 0 || (got[i] != got[i] && want[i] != want[i]));
    free(tile);
}

static void use_tensor(const struct eng_model_file *f, const struct model_tensor *t)
{
    ASSERT(eng_model_file_tensor_find(f, t->name) == t);
    ASSERT(t->offset >= 0 && t->bytes >= 0 && t->offset + t->bytes <= eng_model_file_bytes(f));
    uint8_t *p = xmalloc((size_t)t->bytes + 1);
    if (!eng_model_file_read(f, t, 0, t->bytes, p)) {
        use(p, (uint64_t)t->bytes);
        if (t->type < DTYPE_COUNT) use_values(t, p);
    }
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct eng_model_file *f = NULL;
    err_set_text("%s", "");
    if (eng_model_file_open(&f, scratch_bytes(data, n))) {
        ASSERT(*err_text() && !f);
        return 0;
    }
    for (int64_t i = 0; i < eng_model_file_n_kv(f); i++) use_kv(f, eng_model_file_kv(f, i));
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++)
        use_tensor(f, eng_model_file_tensor(f, i));
    eng_model_file_close(f);
    return 0;
}
