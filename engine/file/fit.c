/* fit.c: see fit.h. */
#include "engine/file/fit.h"

#include "base/base.h"

#include <math.h>

enum { TURNS = 6 }; /* they settle after two or three */

static float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

static int32_t code_of(const struct fit *f, float v)
{
    return fit_round(CLAMP(v, (float)f->lo, (float)f->hi));
}

/* ---- y = d q - m with the nearest codes ---- */

float fit_error(const struct fit *f, float d, float m)
{
    float inv = inverse(d), sum[4] = {0};
    for (int32_t i = 0; i < f->n; i++) {
        float e = d * (float)code_of(f, (f->x[i] + m) * inv) - m - f->x[i];
        sum[i % 4] += f->w[i] * e * e;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void fit_codes(const struct fit *f, float d, float m, uint8_t *code)
{
    float inv = inverse(d);
    for (int32_t i = 0; i < f->n; i++) code[i] = (uint8_t)(code_of(f, (f->x[i] + m) * inv) - f->lo);
}

/* ---- a scale ---- */

static float largest(const struct fit *f)
{
    float big = 0;
    for (int32_t i = 0; i < f->n; i++)
        if (fabsf(f->x[i]) > fabsf(big)) big = f->x[i];
    return big;
}

/* The best scale for the codes nearest to x / d; *gain: by how much it lowers the error of all zeros. */
static float better_scale(const struct fit *f, float d, float *gain)
{
    float inv = inverse(d), xq = 0, qq = 0;
    for (int32_t i = 0; i < f->n; i++) {
        float q = (float)code_of(f, f->x[i] * inv);
        xq += f->w[i] * f->x[i] * q;
        qq += f->w[i] * q * q;
    }
    *gain = qq > 0 ? xq * xq / qq : 0;
    return qq > 0 ? xq / qq : 0;
}

float fit_scale(const struct fit *f)
{
    float big = largest(f), best = 0, best_gain = 0;
    if (big == 0) return 0;
    /* the largest value at the end of the codes that reaches further, or a little inside or beyond it */
    for (int32_t step = -8; step <= 8; step++) {
        float d = big / ((float)f->lo - (float)step * 0.125f), gain = 0, before = -1;
        for (int32_t turn = 0; turn < TURNS && (turn < 1 || gain > before); turn++) {
            before = gain;
            float next = better_scale(f, d, &gain);
            if (gain > best_gain) {
                best_gain = gain;
                best = next;
            }
            d = next;
        }
    }
    return best;
}

/* ---- a scale and a minimum ---- */

/* The best d and m for the codes nearest to (x + m) / d; returns the error. */
static float better_line(const struct fit *f, int any_sign, float *d, float *m)
{
    float inv = inverse(*d), w = 0, wx = 0, wq = 0, wqq = 0, wqx = 0;
    for (int32_t i = 0; i < f->n; i++) {
        float q = (float)code_of(f, (f->x[i] + *m) * inv), a = f->w[i] * q;
        w += f->w[i];
        wx += f->w[i] * f->x[i];
        wq += a;
        wqq += a * q;
        wqx += a * f->x[i];
    }
    float det = w * wqq - wq * wq;
    if (det > 0) {
        *d = (w * wqx - wq * wx) / det;
        *m = (wq * wqx - wqq * wx) / det;
    }
    if (!(det > 0) || *d <= 0 || (*m < 0 && !any_sign)) {
        *m = 0;
        *d = wqq > 0 ? MAX(wqx / wqq, 0.0f) : 0;
    }
    return fit_error(f, *d, *m);
}

float fit_scale_min(const struct fit *f, int any_sign, float *m)
{
    float lo = f->x[0], hi = f->x[0];
    for (int32_t i = 1; i < f->n; i++) {
        lo = MIN(lo, f->x[i]);
        hi = MAX(hi, f->x[i]);
    }
    if (!any_sign) {
        lo = MIN(lo, 0.0f);
        hi = MAX(hi, 0.0f);
    }
    float best = (hi - lo) / (float)f->hi, best_m = -lo, best_error = fit_error(f, best, best_m);
    for (int32_t step = -6; step <= 10 && hi > lo; step++) {
        float d = (hi - lo) / ((float)f->hi + (float)step * 0.125f), low = -lo, error = best_error, before;
        int32_t turn = 0;
        do {
            before = error;
            error = better_line(f, any_sign, &d, &low);
            if (error < best_error) {
                best_error = error;
                best = d;
                best_m = low;
            }
        } while (++turn < TURNS && (turn < 2 || error < before));
    }
    *m = best_m;
    return best;
}

/* ---- a book ---- */

static int32_t nearest(const int8_t book[16], float v)
{
    int32_t lo = 0;
    for (int32_t step = 8; step; step /= 2) /* the last that is not above v */
        if (lo + step < 16 && (float)book[lo + step] <= v) lo += step;
    if (lo == 15) return lo;
    return v - (float)book[lo] > (float)book[lo + 1] - v ? lo + 1 : lo;
}

float fit_book_error(const struct fit *f, const int8_t book[16], float d)
{
    float inv = inverse(d), sum = 0;
    for (int32_t i = 0; i < f->n; i++) {
        float e = d * (float)book[nearest(book, f->x[i] * inv)] - f->x[i];
        sum += f->w[i] * e * e;
    }
    return sum;
}

void fit_book_codes(const struct fit *f, const int8_t book[16], float d, uint8_t *code)
{
    float inv = inverse(d);
    for (int32_t i = 0; i < f->n; i++) code[i] = (uint8_t)nearest(book, f->x[i] * inv);
}

float fit_book(const struct fit *f, const int8_t book[16])
{
    float big = largest(f), best = 0, best_gain = 0;
    for (int32_t step = -8; step <= 8 && big != 0; step++) {
        float d = big / ((float)book[0] - (float)step * 4.0f), gain = 0, before = -1;
        for (int32_t turn = 0; turn < TURNS && (turn < 1 || gain > before); turn++) {
            float inv = inverse(d), xq = 0, qq = 0;
            before = gain;
            for (int32_t i = 0; i < f->n; i++) {
                float q = (float)book[nearest(book, f->x[i] * inv)];
                xq += f->w[i] * f->x[i] * q;
                qq += f->w[i] * q * q;
            }
            gain = qq > 0 ? xq * xq / qq : 0;
            d = qq > 0 ? xq / qq : 0;
            if (gain > best_gain) {
                best_gain = gain;
                best = d;
            }
        }
    }
    return best;
}
