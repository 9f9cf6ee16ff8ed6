/* Sums that travel as f16 or q8: the error stays within what coll_open.h states, every rank ends with the same bits, and fewer
 * bytes are sent. */
#include "base/rng.h"
#include "tests/transport/fake_device.h"
#include "transport/coll_open.h"
#include "transport/wire_type.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const int64_t LONG_US = 30000000;

static float value(uint64_t seed, int64_t i)
{
    uint64_t h = rng_mix(seed ^ rng_mix((uint64_t)i));
    return ldexpf((float)(int32_t)(h >> 32) / 2147483648.0f, (int)(h % 16) - 8);
}

/* ---- one vector there and back ---- */

static void f16_rounds_to_nearest(void **state)
{
    (void)state;
    static const float pairs[][2] = {{0, 0}, {1, 1}, {-2.5f, -2.5f}, {65504, 65504}, {65519, 65504}, {1e30f, 65504}, {-1e30f, -65504},
                                     {1.00048828125f, 1.0f}, {1.00146484375f, 1.001953125f}, {0x1p-24f, 0x1p-24f}, {0x1p-26f, 0},
                                     {0x1.8p-24f, 0x1p-23f}, {0x1p-14f, 0x1p-14f}, {0x1.ffcp-15f, 0x1p-14f}};
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        uint16_t h;
        float back;
        trn_wire_pack(TRN_WIRE_F16, &pairs[i][0], 1, &h);
        trn_wire_unpack(TRN_WIRE_F16, &h, 1, &back);
        if (back != pairs[i][1]) fail_msg("%a became %a, not %a", (double)pairs[i][0], (double)back, (double)pairs[i][1]);
    }
    for (uint32_t v = 0; v < 0x7c00; v++) { /* every finite one survives */
        uint16_t h = (uint16_t)v, again;
        float x;
        trn_wire_unpack(TRN_WIRE_F16, &h, 1, &x);
        trn_wire_pack(TRN_WIRE_F16, &x, 1, &again);
        assert_int_equal(h, again);
    }
}

static void the_error_is_as_stated(void **state)
{
    (void)state;
    enum { N = 1000 };
    float x[N], y[N];
    uint8_t packed[N * 4];
    for (uint64_t seed = 1; seed < 200; seed++) {
        int32_t n = 1 + (int32_t)(rng_mix(seed) % N);
        for (int32_t i = 0; i < n; i++) x[i] = value(seed, i);
        for (int t = TRN_WIRE_F16; t < TRN_WIRE_TYPES; t++) {
            memset(packed, 0xee, sizeof packed);
            trn_wire_pack((enum trn_wire_type)t, x, n, packed);
            int64_t bytes = trn_wire_bytes((enum trn_wire_type)t, n);
            if (bytes < (int64_t)sizeof packed) assert_int_equal(packed[bytes], 0xee);
            trn_wire_unpack((enum trn_wire_type)t, packed, n, y);
            for (int32_t i = 0; i < n; i++) {
                float most = 0, allowed;
                for (int32_t k = i / 32 * 32; k < MIN(i / 32 * 32 + 32, n); k++) most = fmaxf(most, fabsf(x[k]));
                allowed = t == TRN_WIRE_F16 ? fabsf(x[i]) * 0x1p-11f + 0x1p-25f : most / 254 * 1.00001f;
                if (fabsf(x[i] - y[i]) > allowed) fail_msg("%s: %a became %a", trn_wire_name[t], (double)x[i], (double)y[i]);
            }
        }
    }
}

/* ---- sums ---- */

struct rank {
    struct trn_coll *c;
    struct coll_cut cut;
    uint64_t seed;
    int64_t n;
    float *out;
    uint64_t sent;
    struct fake_device *dev; /* where its vectors lie, or NULL */
    bool ok;
};

static void *sum_main(void *arg)
{
    struct rank *k = arg;
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t parts = tree_maximal(k->cut.n_leaf, k->cut.bounds[k->c->rank], k->cut.bounds[k->c->rank + 1], nodes);
    float *mine = malloc((size_t)(parts * k->n + 1) * sizeof *mine);
    for (int32_t p = 0; p < parts; p++)
        for (int64_t i = 0; i < k->n; i++) mine[p * k->n + i] = value(k->seed + (uint64_t)nodes[p].a * 1000 + (uint64_t)nodes[p].b, i);
    float *to = parts == 1 ? mine : k->out; /* in place, as it may be */
    void *room = k->dev ? malloc((size_t)trn_coll_packed_room(k->c)) : NULL;
    if (k->dev) trn_coll_packed_lend(k->c, fake_device_ops(k->dev), room);
    k->ok = trn_coll_all_reduce(k->c, &k->cut, mine, to, k->n, LONG_US) == OK;
    if (k->dev) k->ok &= fake_device_ops(k->dev)->download(k->dev, NULL, NULL, 0) == OK; /* it is done */
    free(room);
    if (to == mine) memcpy(k->out, mine, (size_t)k->n * sizeof *mine);
    k->sent = k->c->stats.bytes_sent;
    free(mine);
    return NULL;
}

/* devices: bits, whose vectors lie on one. want: what the sum is to be, or NULL; got: what it is, or NULL. */
static void all_ranks_agree(int32_t size, int64_t n, uint64_t seed, enum trn_wire_type t, uint32_t devices, const float *want, float *got)
{
    struct rank ranks[8];
    struct trn_coll *c[8];
    pthread_t thread[8];
    struct coll_cut cut = {.n_leaf = 16};
    for (int32_t r = 1; r <= size; r++) /* crooked, and now and then a rank without leaves */
        cut.bounds[r] = r == size ? 16 : MAX(cut.bounds[r - 1], (int32_t)(16 * r / size + (int32_t)(rng_mix(seed + (uint64_t)r) % 4) - 2));
    for (int32_t r = 1; r <= size; r++) cut.bounds[r] = CLAMP(cut.bounds[r], cut.bounds[r - 1], 16);
    assert_int_equal(trn_coll_local_open(c, size), OK);
    for (int32_t r = 0; r < size; r++) {
        assert_int_equal(trn_coll_packed_open(&c[r], c[r], t), OK);
        ranks[r] = (struct rank){.c = c[r], .cut = cut, .seed = seed, .n = n, .out = malloc((size_t)n * sizeof(float))};
        if (devices >> r & 1) ranks[r].dev = fake_device_open("0000:01:00.0");
        pthread_create(&thread[r], NULL, sum_main, &ranks[r]);
    }
    for (int32_t r = 0; r < size; r++) pthread_join(thread[r], NULL);
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0, most = 0;
        for (int32_t r = 0; r < size; r++) {
            struct tree_node nodes[TREE_MAX_NODES];
            for (int32_t p = 0, k = tree_maximal(16, cut.bounds[r], cut.bounds[r + 1], nodes); p < k; p++)
                sum += (double)value(seed + (uint64_t)nodes[p].a * 1000 + (uint64_t)nodes[p].b, i);
        }
        most = 128.0 * 24; /* |value| < 128, at most 24 parts */
        worst = fmax(worst, fabs(sum - (double)ranks[0].out[i]) / most);
    }
    for (int32_t r = 0; r < size; r++) {
        assert_true(ranks[r].ok);
        assert_memory_equal(ranks[0].out, ranks[r].out, (size_t)n * sizeof(float)); /* the same bits everywhere */
        if (n >= 1000) assert_true(ranks[r].sent <= (uint64_t)(n * 4 * (t == TRN_WIRE_F16 ? 2 : 1) * 13 / 10)); /* f32: twice or four times that */
        trn_coll_close(c[r]);
        if (ranks[r].dev) fake_device_close(ranks[r].dev);
    }
    if (want) assert_memory_equal(want, ranks[0].out, (size_t)n * sizeof(float));
    if (got) memcpy(got, ranks[0].out, (size_t)n * sizeof(float));
    for (int32_t r = 0; r < size; r++) free(ranks[r].out);
    if (worst > (t == TRN_WIRE_F16 ? 0x1p-10 : 2.0 / 254)) fail_msg("%s, %d ranks: an error of %g of the largest", trn_wire_name[t], size, worst);
}

static void sums_are_the_same_bits_on_every_rank_and_near_the_truth(void **state)
{
    (void)state;
    for (int32_t size = 2; size <= 8; size++)
        for (int t = TRN_WIRE_F16; t < TRN_WIRE_TYPES; t++)
            for (int64_t n = 1; n < 200000; n = n * 7 + 30) all_ranks_agree(size, n, (uint64_t)(n * 10 + size), (enum trn_wire_type)t, 0, NULL, NULL);
}

static void devices_that_pack_change_no_bit(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 33, 4096, 70001};
    float *sum = malloc(70001 * sizeof *sum);
    for (int32_t size = 2; size <= 4; size++)
        for (int t = TRN_WIRE_F16; t < TRN_WIRE_TYPES; t++)
            for (size_t i = 0; i < COUNT_OF(lengths); i++)
                for (uint32_t devices = 0; devices < 4; devices++)
                    all_ranks_agree(size, lengths[i], (uint64_t)(lengths[i] + size), (enum trn_wire_type)t, devices ? devices * 5 : 0,
                                    devices ? sum : NULL, devices ? NULL : sum);
    free(sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(f16_rounds_to_nearest), cmocka_unit_test(the_error_is_as_stated),
                                       cmocka_unit_test(sums_are_the_same_bits_on_every_rank_and_near_the_truth),
                                       cmocka_unit_test(devices_that_pack_change_no_bit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
