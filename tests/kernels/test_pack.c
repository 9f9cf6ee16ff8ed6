/* test_pack.c: packed tiles hold exactly the file's values, wherever the slice of K begins. */
#include "base/base.h"
#include "cases.h"
#include "engine/file/dequant.h"
#include "engine/kernels/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const enum dtype types[] = {
    DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K,
    DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_IQ4_NL, DTYPE_IQ4_XS,
    DTYPE_MXFP4, DTYPE_IQ3_XXS, DTYPE_IQ3_S, DTYPE_IQ2_XXS, DTYPE_IQ2_XS, DTYPE_IQ2_S, DTYPE_IQ1_S,
    DTYPE_IQ1_M, DTYPE_TQ1_0, DTYPE_TQ2_0,
};

/* The row of the slice equals the same columns of the reference dequantisation. */
static void check_slice(const struct case_file *f, int32_t k0, int32_t cols)
{
    struct krn_mat m = case_pack(f, k0, cols);
    float *want = xmalloc((size_t)f->cols * sizeof *want),
          *got = xmalloc((size_t)cols * sizeof *got);
    for (int32_t row = 0; row < f->rows; row++) {
        eng_dequant_row(f->type, f->bytes + row * f->row_bytes, want, f->cols);
        krn_unpack_row(&m, row, got);
        if (memcmp(got, want + k0, (size_t)cols * sizeof *got))
            fail_msg("%s: row %d of columns [%d, %d) differs", dtype_name(f->type), row, k0,
                     k0 + cols);
    }
    free(want);
    free(got);
    free((void *)m.data);
}

static void rows_come_out_as_they_went_in(void **state)
{
    (void)state;
    struct rnd r = {.key = 1};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        int32_t cols = krn_pack_is_quant(types[i]) ? 1024 : 172;
        struct case_file f = case_file_make(&r, types[i], 37, cols);
        check_slice(&f, 0, cols);
        case_file_free(&f);
    }
}

static void slices_may_begin_at_any_unit(void **state)
{
    (void)state;
    struct rnd r = {.key = 2};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        int32_t grain = krn_pack_is_quant(types[i]) ? KRN_UNIT : 4;
        struct case_file f = case_file_make(&r, types[i], 19, 1024);
        for (int32_t k0 = 0; k0 < 12 * grain; k0 += grain)
            for (int32_t n = 1; n <= 18; n += n < 9 ? 1 : 3) check_slice(&f, k0, n * grain);
        case_file_free(&f);
    }
}

/* Points of grids are kept as the codes that they stand for. */
static bool grid_becomes_codes(enum dtype t)
{
    return t == DTYPE_IQ3_XXS || krn_pack_layout(t) == DTYPE_IQ2_S || t == DTYPE_IQ3_S ||
           t == DTYPE_TQ1_0;
}

static void tiles_cost_what_the_file_costs(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        double file = (double)dtype_bytes(types[i], 4096) * KRN_TILE;
        double tile = (double)krn_pack_tile_bytes(types[i], 4096);
        printf("%-5s %.4f bytes per weight in the file, %.4f packed\n", dtype_name(types[i]),
               file / 4096 / KRN_TILE, tile / 4096 / KRN_TILE);
        assert_true(tile <= file * (grid_becomes_codes(types[i]) ? 2.4 : 1.05));
        assert_int_equal(krn_pack_tile_bytes(types[i], 4096) % 64, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_out_as_they_went_in),
        cmocka_unit_test(slices_may_begin_at_any_unit),
        cmocka_unit_test(tiles_cost_what_the_file_costs),
    };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
