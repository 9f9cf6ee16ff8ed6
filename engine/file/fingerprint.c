/* fingerprint.c: see fingerprint.h. */
#include "engine/file/fingerprint.h"

#include <string.h>
#include <xxhash.h>

enum { SAMPLES = 32, SAMPLE_BYTES = 1024 };

enum err eng_fingerprint(const struct eng_model_file *f, uint64_t *out)
{
    uint64_t h = (uint64_t)eng_model_file_bytes(f);
    int64_t n = eng_model_file_n_tensors(f), every = MAX(n / SAMPLES, 1);
    for (int64_t i = 0; i < n; i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        uint8_t sample[SAMPLE_BYTES];
        int64_t shape[] = {(int64_t)t->ggml_type, t->dims[0], t->dims[1], t->dims[2], t->dims[3], t->part, t->offset};
        h = XXH3_64bits_withSeed(t->name, strlen(t->name), h);
        h = XXH3_64bits_withSeed(shape, sizeof shape, h);
        if (i % every || t->type >= DTYPE_COUNT) continue;
        int64_t bytes = MIN(t->bytes, (int64_t)SAMPLE_BYTES);
        enum err e = eng_model_file_read(f, t, (t->bytes - bytes) / 2, bytes, sample);
        if (e) return e;
        h = XXH3_64bits_withSeed(sample, (size_t)bytes, h);
    }
    const struct model_kv *alpha = eng_model_file_find(f, "adapter.lora.alpha"); /* of an adapter: matrices alone do not say how much they count */
    if (alpha && alpha->kind == KV_FLOAT) h = XXH3_64bits_withSeed(&alpha->f, sizeof alpha->f, h);
    *out = h ? h : 1;
    return OK;
}
