/* fit.h: a few values as integer codes times a scale: the least squares behind every encoder. Internal to engine/file.
 *
 * Codes and scale are improved in turns from several beginnings: for given codes the best scale is known exactly, for a
 * given scale the best codes are the nearest ones. Errors are weighted, sum of w (x - y)^2. Pure: no libm that rounds
 * differently elsewhere, so a file depends on its input alone. Thr any. */
#ifndef ENGINE_FILE_FIT_H
#define ENGINE_FILE_FIT_H

#include <stdint.h>

enum { FIT_MAX = 32 };

/* What is to be fitted: n <= FIT_MAX values, weights above 0. */
struct fit {
    int32_t n;
    const float *x, *w;
    int32_t lo, hi; /* codes */
};

/* Nearest integer, ties to even. |x| < 2^22. */
static inline int32_t fit_round(float x) { return (int32_t)((x + 0x1.8p23f) - 0x1.8p23f); }

/* The scale d of y = d q; lo < 0. 0 when all values are 0. */
float fit_scale(const struct fit *f);
/* The scale of y = d q - m and *m; lo = 0. any_sign: m may be below 0. */
float fit_scale_min(const struct fit *f, int any_sign, float *m);
/* The scale of y = d book[q]; book ascending, 16 values. */
float fit_book(const struct fit *f, const int8_t book[16]);

/* The error of y = d q - m with the nearest codes. */
float fit_error(const struct fit *f, float d, float m);
/* Those codes, less lo. */
void fit_codes(const struct fit *f, float d, float m, uint8_t *code);

float fit_book_error(const struct fit *f, const int8_t book[16], float d);
void fit_book_codes(const struct fit *f, const int8_t book[16], float d, uint8_t *code);

#endif
