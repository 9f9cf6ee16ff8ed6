/* derived.c: see derived.h.
 *
 * Readers take a tile of rows, or part of one row, at a time; codes that lie packed across rows would then be read again and
 * again. So rows are made in bands of half a megabyte or more, and the newest bands are kept: as many as threads can be at work
 * on, and two. A band is made by one thread, outside the lock; who wants the same one meanwhile waits for it.
 * I1  a slot that is busy (being made, or being copied from) is not given away. */
#include "engine/file/derived.h"

#include "engine/file/half.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct slot {
    const struct model_tensor *t; /* NULL: nothing is in it */
    int64_t band, used;           /* used: when, by the count of uses */
    int32_t readers;
    bool making;
    uint8_t *data;
    int64_t cap;
};

struct eng_bands {
    pthread_mutex_t lock; /* of all below; held while looking, not while making or copying */
    pthread_cond_t turned;
    struct slot *slots;
    int32_t n;
    int64_t uses;
};

struct eng_bands *eng_bands_open(void)
{
    struct eng_bands *b = xcalloc(1, sizeof *b);
    b->n = (int32_t)(CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, 256) + 2);
    b->slots = xcalloc((size_t)b->n, sizeof *b->slots);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->turned, NULL);
    return b;
}

void eng_bands_close(struct eng_bands *b)
{
    if (!b) return;
    for (int32_t i = 0; i < b->n; i++) free(b->slots[i].data);
    free(b->slots);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->turned);
    free(b);
}

/* The slot that holds the band or is getting it; NULL: none. */
static struct slot *holder(struct eng_bands *b, const struct model_tensor *t, int64_t band)
{
    for (int32_t i = 0; i < b->n; i++)
        if (b->slots[i].t == t && b->slots[i].band == band) return &b->slots[i];
    return NULL;
}

/* The slot that was not used for longest and is not busy; NULL: all are. */
static struct slot *oldest(struct eng_bands *b)
{
    struct slot *old = NULL;
    for (int32_t i = 0; i < b->n; i++) {
        struct slot *s = &b->slots[i];
        if (!s->readers && !s->making && (!old || s->used < old->used)) old = s;
    }
    return old;
}

static enum err make(const struct eng_model_file *f, struct slot *s, int64_t band_rows)
{
    const struct model_tensor *t = s->t;
    int64_t row = dtype_bytes(t->type, t->dims[0]), rows = t->dims[1] * t->dims[2] * t->dims[3];
    int64_t first = s->band * band_rows, n = MIN(band_rows, rows - first);
    if (n * row > s->cap) {
        free(s->data);
        s->cap = 0;
        s->data = malloc((size_t)(n * row));
        if (!s->data) return err_raise(ERR_NO_MEMORY, "no %.1f MB to make rows of tensor %s in", (double)(n * row) / 1e6, t->name);
        s->cap = n * row;
    }
    enum err rc = t->derived->recipe->rows(f, t, first, n, s->data);
    return rc ? err_prefix(rc, "tensor '%s'", t->name) : OK;
}

/* A slot with the band in it, which stays there until drop(). */
static enum err take(const struct eng_model_file *f, const struct model_tensor *t, int64_t band, int64_t band_rows, struct slot **out)
{
    struct eng_bands *b = f->bands;
    struct slot *s;
    enum err rc = OK;
    pthread_mutex_lock(&b->lock);
    while ((s = holder(b, t, band)) ? s->making : !(s = oldest(b))) pthread_cond_wait(&b->turned, &b->lock);
    s->readers++;
    s->used = ++b->uses;
    if (s->t != t || s->band != band) {
        s->t = t;
        s->band = band;
        s->making = true;
        pthread_mutex_unlock(&b->lock);
        rc = make(f, s, band_rows);
        pthread_mutex_lock(&b->lock);
        s->making = false;
        if (rc) {
            s->t = NULL;
            s->readers--;
        }
        pthread_cond_broadcast(&b->turned);
    }
    pthread_mutex_unlock(&b->lock);
    *out = s;
    return rc;
}

static void drop(struct eng_bands *b, struct slot *s)
{
    pthread_mutex_lock(&b->lock);
    if (--s->readers == 0) pthread_cond_broadcast(&b->turned);
    pthread_mutex_unlock(&b->lock);
}

enum err eng_derived_read(const struct eng_model_file *f, const struct model_tensor *t, int64_t offset, int64_t bytes, void *dst)
{
    int64_t row = dtype_bytes(t->type, t->dims[0]);
    int32_t least = t->derived->recipe->band_rows ? t->derived->recipe->band_rows : DERIVED_BAND_ROWS;
    int64_t band_rows = MAX(DERIVED_BAND_BYTES / row, least) / DERIVED_ROWS * DERIVED_ROWS, size = band_rows * row;
    for (uint8_t *to = dst; bytes > 0;) {
        struct slot *s;
        int64_t at = offset % size, n = MIN(bytes, size - at);
        enum err rc = take(f, t, offset / size, band_rows, &s);
        if (rc) return rc;
        memcpy(to, s->data + at, (size_t)n);
        drop(f->bands, s);
        to += n;
        offset += n;
        bytes -= n;
    }
    return OK;
}

/* ---- raw tensors ---- */

static int64_t value_bytes(const struct model_tensor *raw)
{
    int32_t block = 1, bytes = 1;
    (void)dtype_ggml_layout(raw->ggml_type, &block, &bytes);
    return bytes; /* of safetensors' types each value is a block */
}

enum err eng_raw_read(const struct eng_model_file *f, const struct model_tensor *raw, int64_t row0, int64_t n, int64_t b0, int64_t bytes, void *dst)
{
    int64_t row = raw->dims[0] * value_bytes(raw);
    const struct eng_part *p = &f->parts[raw->part];
    enum err rc = OK;
    ASSERT(row0 >= 0 && n >= 0 && b0 >= 0 && b0 + bytes <= row && (row0 + n) * row <= raw->bytes);
    if (bytes == row) return eng_part_read(p, raw->offset + row0 * row, n * row, dst);
    for (int64_t r = 0; r < n && !rc; r++) rc = eng_part_read(p, raw->offset + (row0 + r) * row + b0, bytes, (uint8_t *)dst + r * bytes);
    return rc;
}

bool eng_raw_is_float(const struct model_tensor *raw)
{
    return raw->type == DTYPE_F32 || raw->type == DTYPE_F16 || raw->type == DTYPE_BF16 || !strcmp(dtype_ggml_name(raw->ggml_type), "F8_E8M0");
}

enum err eng_raw_floats(const struct eng_model_file *f, const struct model_tensor *raw, int64_t first, int64_t n, float *dst)
{
    int64_t size = value_bytes(raw);
    ASSERT(first >= 0 && (first + n) * size <= raw->bytes);
    bool e4m3 = !strcmp(dtype_ggml_name(raw->ggml_type), "F8_E4M3");
    uint8_t *bytes = malloc((size_t)(n * size) + 1);
    if (!bytes) return err_raise(ERR_NO_MEMORY, "no memory for the scales of %s", raw->name);
    enum err rc = eng_part_read(&f->parts[raw->part], raw->offset + first * size, n * size, bytes);
    for (int64_t i = 0; i < n && !rc; i++) {
        uint16_t h;
        memcpy(&h, bytes + i * size, MIN((size_t)size, sizeof h));
        if (e4m3) dst[i] = eng_fp8_value(false, bytes[i]);
        else if (size == 1) dst[i] = bytes[i] == 0xff ? half_from_bits(0x7fc00000) : bytes[i] ? half_from_bits((uint32_t)bytes[i] << 23) : 0x1p-127f;
        else if (size == 4) memcpy(&dst[i], bytes + i * size, sizeof *dst);
        else dst[i] = raw->type == DTYPE_F16 ? half_f16_to_f32(h) : half_bf16_to_f32(h);
    }
    free(bytes);
    return rc;
}

void eng_raw_put(enum dtype type, const float *x, int64_t n, uint8_t *dst)
{
    if (type == DTYPE_F32) {
        memcpy(dst, x, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = type == DTYPE_F16 ? half_f32_to_f16(x[i]) : half_f32_to_bf16(x[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}
