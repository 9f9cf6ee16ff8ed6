/* loops_amx.c: see loops.h. Memory and multiply-adds are AVX-512's; int8 products as the kernels form them: tiles
 * of 16 lanes x 32 values x 16 rows, on four sums. */
#include "engine/bench/loops.h"

#include <immintrin.h>

enum { PRODUCTS = 4, EVERY = 16 /* rounds of the others for one of these */ };

static uint64_t read_all(const uint8_t *p, int64_t bytes) { return bench_loops_avx512.read(p, bytes); }
static void multiply_add(int64_t n) { bench_loops_avx512.fma(n); }

static void dot(int64_t n)
{
    _Alignas(64) static const int8_t ones[16 * 64] = {1, 2, 3};
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1, .row_bytes = {64, 64, 64, 64, 32, 64}, .rows = {16, 16, 16, 16, 16, 8}};
    _tile_loadconfig(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 32);
    _tile_loadd(5, ones, 64);
    for (int64_t i = 0; i < n / EVERY; i++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
}

const struct bench_loops bench_loops_amx = {
    "amx", read_all, dot, multiply_add, PRODUCTS * 16 * 32 * 16 * 2 / EVERY, 12 * 16 * 2,
};
