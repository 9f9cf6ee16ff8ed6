/* test_device.c: the kernels of a plug-in against `ref`, bit for bit, through the plug-in's own interface: shapes, tails, odd
 * alignments, special values, cuts; by subject in device_*.c, and here the device itself: its memory, its marks, what it does for sums over ranks.
 * TESSERA_CUDA_PLUGIN says which plug-in: the emulated one (tests/cuda_emu), or the real one, where this is the check of a card (label gpu);
 * without a device it is skipped with the reason. */
#include "tests/kernels/device.h"

#include "transport/coll.h"
#include "transport/wire_type.h"

struct eng_backend *be;

static void rows_of_lists_equal_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 78};
    for (int32_t k = 0; k < 12; k++) {
        enum { ROWS = 40, STRIDE = 311 };
        int32_t n = rnd_between(&r, 1, 300), n_rows = rnd_between(&r, 1, ROWS), at[ROWS];
        float *x = case_alloc(4 * ROWS * STRIDE), *y = case_alloc(4 * ROWS * STRIDE), a[ROWS];
        for (int32_t i = 0; i < ROWS * STRIDE; i++) x[i] = rnd_normal(&r), y[i] = rnd_normal(&r);
        /* some rows more than once, some not at all */
        for (int32_t i = 0; i < ROWS; i++) at[i] = rnd_below(&r, k % 2 ? 6 : ROWS) - k % 2, a[i] = rnd_normal(&r);
        float *dy = there(y, 4 * ROWS * STRIDE), *dx = there(x, 4 * ROWS * STRIDE), *da = there(a, sizeof a);
        int32_t *dat = there(at, sizeof at);
        eng_backend_copy_rows(be, dy, STRIDE, dx, STRIDE - 3, k % 3 ? dat : NULL, k % 4 ? NULL : da, n_rows, n);
        for (int32_t i = 0; i < n_rows; i++) {
            if (k % 3 && at[i] < 0) continue;
            memcpy(y + i * STRIDE, x + (k % 3 ? at[i] : i) * (STRIDE - 3), (size_t)n * 4);
            if (k % 4 == 0) krn_ref.scale(y + i * STRIDE, a[i], n);
        }
        assert_floats(y, dy, ROWS * STRIDE, "rows copied", n);
        ok(eng_backend_clear(be, dy + 3, 4 * 100));
        memset(y + 3, 0, 4 * 100);
        assert_floats(y, dy, 300, "memory cleared", n);
        free(x);
        free(y);
        next_device();
    }
}

static void ranks_are_dealt_to_devices(void **state)
{
    (void)state;
    static const struct { const char *want; int32_t nth, n, is; } all[] = {
        {"auto", 0, 2, 0}, {"auto", 1, 2, 1}, {"auto", 2, 2, -1}, {"auto+2", 0, 4, 2}, {"auto+2", 1, 4, 3}, {"auto+2", 2, 4, -1}, {"auto+2", 0, 2, -1},
        {"cuda", 3, 2, 1}, {"cuda+1", 0, 2, 1}, {"cuda+1", 1, 2, 0}, {"cuda", 0, 0, -1}, {"cuda:3", 0, 2, 3}, {"auto+", 0, 2, -1}, {"auto+x", 0, 2, -1},
        {"auto+1x", 0, 2, -1}, {"cuda+99999", 0, 2, -1}, {"cpu", 0, 2, -1}};
    for (size_t i = 0; i < COUNT_OF(all); i++) assert_int_equal(eng_backend_nth(all[i].want, all[i].nth, all[i].n), all[i].is);
    char name[24];
    int32_t n;
    ok(eng_backend_choose("auto+1", 0, name, &n, NULL));
    assert_string_equal(name, n > 1 ? "cuda:1" : "cpu");
    ok(eng_backend_choose("cuda+1", 0, name, &n, NULL));
    assert_true(!strncmp(name, "cuda:", 5));
    assert_int_equal(eng_backend_choose("auto+x", 0, name, &n, NULL), ERR_BAD_CONFIG);
}

static void a_card_with_a_display_keeps_some_memory(void **state)
{
    (void)state;
    struct plugin_device_info plain, shown;
    char name[24];
    int32_t n;
    if (!strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu")) skip();
    ok(eng_backend_choose("cuda:0", 0, name, &n, &plain));
    setenv("CUDA_EMU_DISPLAY", "1", 1);
    ok(eng_backend_choose("cuda:0", 0, name, &n, &shown));
    unsetenv("CUDA_EMU_DISPLAY");
    assert_int_equal(plain.free_bytes - shown.free_bytes, 512 << 20);
    assert_int_equal(plain.total_bytes, shown.total_bytes);
}

/* ---- sums over ranks ------------------------------------------------------------------------- */

static void tree_sums_equal_the_hosts(void **state)
{
    (void)state;
    struct rnd r = {41};
    static const int32_t sizes[] = {1, 2, 3, 4, 5, 8, 16};
    for (size_t k = 0; k < COUNT_OF(sizes); k++)
        for (int32_t odd = 0; odd < 3; odd++) {
            int32_t size = sizes[k], n_leaf = odd ? 37 + odd : 16;
            int64_t n = odd == 2 ? 70001 : 257, stride = n + 3 * odd;
            static struct trn_reduce plan;
            struct coll_cut cut = {.n_leaf = n_leaf};
            for (int32_t i = 0; i <= size; i++) cut.bounds[i] = n_leaf * i / size;
            trn_reduce_plan(&plan, &cut, size);
            float *parts = case_alloc((size_t)(plan.n_parts * stride) * 4), *want = case_alloc((size_t)n * 4);
            const float *part[TREE_MAX_LEAF];
            for (int64_t i = 0; i < plan.n_parts * stride; i++) parts[i] = rnd_normal(&r);
            for (int32_t p = 0; p < plan.n_parts; p++) part[p] = parts + p * stride;
            trn_reduce_run(&plan, part, want, n);
            struct trn_device d;
            ok(eng_backend_device(be, &d));
            float *out = there(parts, (n + 1) * 4);
            ok(d.reduce(d.user, &plan, there(parts, plan.n_parts * stride * 4), stride, out, n));
            assert_floats(want, out, n, "a tree sum", size);
            assert_floats(parts + n, out + n, 1, "what lies behind a tree sum", size);
            free(parts);
            free(want);
            next_device();
        }
}

/* What leaves a host packed, and what came back: the host's own bytes and sums, over lengths that end within a block, zeros, and values beyond f16. */
static void wires_equal_the_hosts(void **state)
{
    (void)state;
    static const int32_t lengths[] = {1, 31, 32, 33, 700, 4096 + 5};
    struct rnd r = {.key = 81};
    struct trn_device dev;
    ok(eng_backend_device(be, &dev));
    for (size_t k = 0; k < COUNT_OF(lengths); k++)
        for (int t = TRN_WIRE_F16; t < TRN_WIRE_TYPES; t++) {
            enum { PARTS = 3 };
            int32_t n = lengths[k];
            int64_t bytes = trn_wire_bytes((enum trn_wire_type)t, n), stride = ROUND_UP(bytes, 4);
            float *x = case_floats(&r, PARTS * n, k % 2 ? CASE_LARGE : CASE_TINY), *sum = xcalloc((size_t)n, 4), *got = xcalloc((size_t)n, 4);
            for (int32_t i = 0; i < MIN(n, 64); i++) x[i] = i % 3 ? 1e6f : -0.0f, x[n + i] = x[2 * n + i] = i % 5 ? 0.0f : -1e-6f;
            uint8_t *want = xcalloc(PARTS, (size_t)stride), *have = xcalloc(1, (size_t)bytes);
            for (int32_t parts = 1; parts <= PARTS; parts++) {
                for (int32_t i = 0; i < n; i++)
                    for (int32_t p = 0; p < parts; p++) sum[i] = p ? sum[i] + x[p * n + i] : x[i];
                trn_wire_pack((enum trn_wire_type)t, sum, n, want);
                void *out = there(have, bytes);
                ok(dev.pack(dev.user, &(struct wire_pack){t == TRN_WIRE_Q8, there(x, 4 * (int64_t)PARTS * n), n, n, parts, out}));
                here(have, out, bytes);
                assert_memory_equal(want, have, (size_t)bytes);
            }
            for (int32_t p = 0; p < PARTS; p++) trn_wire_pack((enum trn_wire_type)t, x + p * n, n, want + p * stride);
            for (int32_t parts = 0; parts <= PARTS; parts++) {
                memset(sum, 0, (size_t)n * 4);
                for (int32_t p = 0; p < parts; p++) trn_wire_add((enum trn_wire_type)t, want + p * stride, n, sum);
                if (!parts) trn_wire_unpack((enum trn_wire_type)t, want, n, sum);
                float *out = there(got, 4 * (int64_t)n);
                ok(dev.unpack(dev.user, &(struct wire_unpack){t == TRN_WIRE_Q8, there(want, PARTS * stride), stride, n, parts, out}));
                assert_floats(sum, out, n, "unpacked", n);
            }
            free(x), free(sum), free(got), free(want), free(have);
        }
}

static void marks_are_reached_in_order(void **state)
{
    (void)state;
    struct trn_device d;
    bool done = false;
    float x[64] = {1};
    ok(eng_backend_device(be, &d));
    assert_true(d.where[0] && d.stream);
    for (int32_t i = 0; i < 2 * TRN_DEVICE_MARKS; i++) {
        there(x, sizeof x);
        ok(d.mark(d.user, i % TRN_DEVICE_MARKS));
    }
    ok(eng_backend_sync(be));
    for (int32_t i = 0; i < TRN_DEVICE_MARKS; i++) {
        ok(d.marked(d.user, i, &done));
        assert_true(done);
    }
}

static enum err lost(void *user)
{
    ++*(int32_t *)user;
    return err_raise(ERR_PEER_LOST, "a rank is lost");
}

static void a_wait_is_watched(void **state)
{
    (void)state;
    int32_t asked = 0;
    bool emulated = strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu"); /* there a device can be ordered to be busy */
    float x[4] = {1, 2, 3, 4}, y[4];
    void *d = there(x, sizeof x);
    eng_backend_watch(be, lost, &asked);
    if (emulated) setenv("CUDA_EMU_BUSY", "1000", 1);
    enum err e = eng_backend_download(be, y, d, sizeof y);
    unsetenv("CUDA_EMU_BUSY");
    assert_int_equal(asked, emulated || e ? 1 : 0);
    assert_int_equal(e, asked ? ERR_PEER_LOST : OK);
    eng_backend_watch(be, NULL, NULL);
    here(y, d, sizeof y);
    assert_memory_equal(x, y, sizeof x);
}

static void memory_is_zeroed_and_copied_in_order(void **state)
{
    (void)state;
    void *a, *b;
    uint8_t buf[1000], zero[1000] = {0};
    ok(eng_backend_alloc(be, ENG_MEMORY_KV, &a, 1000));
    ok(eng_backend_alloc(be, ENG_MEMORY_KV, &b, 1000));
    memset(buf, 7, sizeof buf);
    here(buf, a, 1000);
    assert_memory_equal(buf, zero, 1000);
    for (int32_t i = 0; i < 1000; i++) buf[i] = (uint8_t)i;
    ok(eng_backend_upload(be, a, buf, 1000));
    ok(eng_backend_copy(be, (uint8_t *)b + 500, a, 500));
    memset(zero, 1, sizeof zero);
    here(zero, b, 1000);
    assert_memory_equal(zero + 500, buf, 500);
    assert_int_equal(zero[499], 0);
    eng_backend_free(be, a);
    eng_backend_free(be, NULL);
    ok(eng_backend_sync(be));
}

/* Megabytes both ways, more than are on their way at once, from and to anywhere; the bytes that were sent may be overwritten at once. */
static void long_copies_go_in_pieces(void **state)
{
    enum { BYTES = (9 << 20) + 12345, AT = 77 };
    (void)state;
    uint8_t *sent = malloc(BYTES + AT), *got = malloc(BYTES + AT), *kept = malloc(BYTES);
    void *d;
    for (int32_t i = 0; i < BYTES; i++) kept[i] = (uint8_t)(i * 7 + i / 1000);
    memcpy(sent + AT, kept, BYTES);
    ok(eng_backend_alloc(be, ENG_MEMORY_KV, &d, BYTES + AT));
    ok(eng_backend_upload(be, (uint8_t *)d + 5, sent + AT, BYTES));
    memset(sent, 1, BYTES + AT);
    ok(eng_backend_download(be, got + AT, (uint8_t *)d + 5, BYTES));
    assert_memory_equal(got + AT, kept, BYTES);
    free(sent);
    free(got);
    free(kept);
}

static void too_much_memory_is_refused_and_the_device_lives_on(void **state)
{
    (void)state;
    void *p;
    assert_int_equal(eng_backend_alloc(be, ENG_MEMORY_WEIGHTS, &p, (int64_t)1 << 46), ERR_NO_MEMORY);
    assert_non_null(strstr(err_text(), "MB of weights"));
    assert_non_null(strstr(err_text(), "are free"));
    ok(eng_backend_alloc(be, ENG_MEMORY_WEIGHTS, &p, 64));
}

static const struct CMUnitTest device_itself[] = {
    cmocka_unit_test_setup_teardown(rows_of_lists_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(ranks_are_dealt_to_devices, start, finish),
    cmocka_unit_test_setup_teardown(a_card_with_a_display_keeps_some_memory, start, finish),
    cmocka_unit_test_setup_teardown(tree_sums_equal_the_hosts, start, finish),
    cmocka_unit_test_setup_teardown(wires_equal_the_hosts, start, finish),
    cmocka_unit_test_setup_teardown(marks_are_reached_in_order, start, finish),
    cmocka_unit_test_setup_teardown(a_wait_is_watched, start, finish),
    cmocka_unit_test_setup_teardown(memory_is_zeroed_and_copied_in_order, start, finish),
    cmocka_unit_test_setup_teardown(long_copies_go_in_pieces, start, finish),
    cmocka_unit_test_setup_teardown(too_much_memory_is_refused_and_the_device_lives_on, start, finish),
};

int main(void)
{
    struct plugin_device_info info;
    char why[PLUGIN_TEXT];
    int32_t n_devices;
    const struct { const struct CMUnitTest *t; size_t n; } parts[] = {{device_products, n_device_products}, {device_rows, n_device_rows},
                                                                      {device_attention, n_device_attention}, {device_fused, n_device_fused}, {device_itself, COUNT_OF(device_itself)}};
    struct CMUnitTest tests[64];
    size_t n = 0;
    for (size_t k = 0; k < COUNT_OF(parts); k++)
        for (size_t i = 0; i < parts[k].n; i++) {
            ASSERT(n < COUNT_OF(tests));
            tests[n++] = parts[k].t[i];
        }
    eng_backend_devices(&info, 1, &n_devices, why);
    if (!n_devices) {
        printf("SKIP: %s\n", why);
        return 77;
    }
    printf("%s, compute capability %d.%d, at %s\n", info.name, info.major, info.minor, info.where);
    return _cmocka_run_group_tests("device", tests, n, NULL, NULL);
}
