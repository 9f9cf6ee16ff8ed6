/* Made weights: the same seed gives the same bytes, every value is a sane number, and every shape has a header that the engine reads. */
#include "base/base.h"
#include "engine/bench/shape.h"
#include "engine/engine.h"
#include "engine/model/made.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void tiles_are_sane_and_repeat(void **state)
{
    (void)state;
    struct eng_backend *be;
    assert_int_equal(eng_backend_open(&be, "cpu", "auto"), OK);
    for (int32_t type = 0; type < DTYPE_COUNT; type++) {
        struct model_tensor t = {.name = "blk.0.ffn_up.weight", .type = (enum dtype)type};
        struct eng_want w = {.t = &t, .row1 = 70, .k0 = 32, .k1 = 32 + 480};
        int32_t n = DIV_UP(70, KRN_TILE);
        void *mem[2];
        w.tile_bytes = krn_pack_tile_bytes(t.type, 480);
        for (int32_t i = 0; i < 2; i++) {
            assert_int_equal(eng_backend_alloc(be, ENG_MEMORY_WEIGHTS, &mem[i], w.tile_bytes * n), OK);
            w.tiles = mem[i];
            assert_int_equal(eng_made_fill(be, &w, 1, 7), OK);
        }
        assert_memory_equal(mem[0], mem[1], (size_t)(w.tile_bytes * n));
        struct krn_mat m = {.type = krn_pack_layout(t.type), .rows = 70, .cols = 480, .tile_bytes = w.tile_bytes, .data = mem[0]};
        float row[480], other[480];
        double squares = 0;
        for (int32_t r = 0; r < KRN_TILE; r++) {
            krn_unpack_row(&m, r, row);
            krn_unpack_row(&m, 4 * KRN_TILE, other);
            for (int32_t k = 0; k < 480; k++) assert_true(isfinite(row[k]) && fabsf(row[k]) < 1.0f), squares += (double)row[k] * row[k];
            if (r == 0) assert_memory_equal(row, other, sizeof row); /* the tile comes again */
        }
        assert_true(squares > 0 && sqrt(squares / (KRN_TILE * 480)) < 0.3);
        assert_int_equal(eng_made_fill(be, &w, 1, 8), OK);
        assert_memory_not_equal(mem[0], mem[1], (size_t)w.tile_bytes);
    }
    eng_backend_close(be);
}

static void every_shape_is_a_model(void **state)
{
    (void)state;
    char names[256], path[64];
    snprintf(names, sizeof names, "%s", bench_shape_names());
    for (char *save = NULL, *name = strtok_r(names, ", ", &save); name; name = strtok_r(NULL, ", ", &save)) {
        int fd;
        struct model_info info;
        assert_int_equal(bench_shape_open(name, DTYPE_Q4_K, path, &fd), OK);
        if (eng_engine_model_info(path, &info)) fail_msg("%s: %s", name, err_text());
        assert_true(info.n_layers >= 16 && info.n_vocab > 30000);
        close(fd);
    }
}

static void an_unknown_shape_or_type_names_the_known_ones(void **state)
{
    (void)state;
    char path[64];
    int fd;
    enum dtype t;
    assert_int_equal(bench_shape_open("llama9", DTYPE_F16, path, &fd), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "llama3-70b"));
    assert_int_equal(bench_shape_type("q7", &t), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "Q4_K"));
    assert_int_equal(bench_shape_type("Q6_K", &t), OK);
    assert_int_equal(t, DTYPE_Q6_K);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_are_sane_and_repeat),
        cmocka_unit_test(every_shape_is_a_model),
        cmocka_unit_test(an_unknown_shape_or_type_names_the_known_ones),
    };
    return cmocka_run_group_tests_name("made", tests, NULL, NULL);
}
