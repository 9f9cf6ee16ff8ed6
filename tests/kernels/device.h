/* device.h: what the checks of a plug-in's kernels share (test_device.c): one device, opened anew for each test, and what lies on it. */
#ifndef TESTS_KERNELS_DEVICE_H
#define TESTS_KERNELS_DEVICE_H

#include "base/base.h"
#include "cases.h"
#include "engine/backend/backend.h"
#include "engine/kernels/pack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

extern struct eng_backend *be;

/* By subject: device_products.c, device_rows.c, device_attention.c, device_fused.c. */
extern const struct CMUnitTest device_products[], device_rows[], device_attention[], device_fused[];
extern const size_t n_device_products, n_device_rows, n_device_attention, n_device_fused;

static inline int finish(void **state)
{
    (void)state;
    eng_backend_close(be);
    be = NULL;
    return 0;
}

static inline int start(void **state)
{
    (void)state;
    if (eng_backend_open(&be, "cuda:0", "ref")) fail_msg("%s", err_text());
    return 0;
}

static inline void ok(enum err e)
{
    if (e) fail_msg("%s", err_text());
}

/* A copy on the device, off alignment by `shift` bytes. */
static inline void *there_off(const void *p, int64_t bytes, int32_t shift)
{
    void *d;
    ok(eng_backend_alloc(be, ENG_MEMORY_STEP, &d, bytes + shift));
    ok(eng_backend_upload(be, (uint8_t *)d + shift, p, bytes));
    return (uint8_t *)d + shift;
}
static inline void *there(const void *p, int64_t bytes) { return there_off(p, bytes, 0); }
static inline void here(void *dst, const void *d, int64_t bytes) { ok(eng_backend_download(be, dst, d, bytes)); }

/* Allocations of a test go with its device: close and open again. */
static inline void next_device(void)
{
    finish(NULL);
    start(NULL);
}

static inline struct krn_mat mat_there(const struct krn_mat *w)
{
    struct krn_mat m = *w;
    m.data = there(w->data, w->tile_bytes * DIV_UP(w->rows, KRN_TILE));
    return m;
}

static inline struct krn_act act_there(const struct krn_act *x)
{
    struct krn_act a = {.n_tok = x->n_tok, .cols = x->cols};
    a.x = there(x->x, (int64_t)x->n_tok * x->cols * 4);
    if (x->q) a.q = there(x->q, krn_act_q_bytes(x->n_tok, x->cols));
    return a;
}

static inline void assert_floats(const float *want, const void *d, int64_t n, const char *what, int64_t size)
{
    float *got = case_alloc((size_t)n * 4);
    here(got, d, n * 4);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&want[i], &got[i], 4) != 0)
            fail_msg("%s at size %lld: value %lld is %a, not %a", what, (long long)size, (long long)i, (double)got[i], (double)want[i]);
    free(got);
}

#endif
