/* fuzz_step_plan.c: any bytes as a step plan (even first byte) or a step result (odd). What is
 * accepted must pack to bytes that unpack to the same thing. */
#include "tests/proto/random_plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void plan(const uint8_t *data, size_t n, struct arena *a, struct buf *again)
{
    static const struct step_bounds b = {
        .n_slots = 64, .n_groups = 2, .n_blocks = 500, .n_vocab = 1000, .context = 2048, .n_adapters = 3};
    struct step_plan p, q;
    if (step_plan_unpack(&p, data, n, &b, a)) return;
    step_plan_pack(&p, again);
    if (step_plan_unpack(&q, again->data, again->len, &b, a) || !plan_equal(&p, &q)) abort();
}

static void result(const uint8_t *data, size_t n, struct arena *a, struct buf *again)
{
    struct step_result r, s;
    if (step_result_unpack(&r, data, n, a)) return;
    step_result_pack(&r, again);
    if (again->len != n || memcmp(again->data, data, n)) abort();
    if (step_result_unpack(&s, again->data, again->len, a)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a = {0};
    struct buf again = {0};
    if (!n) return 0;
    if (data[0] & 1)
        result(data + 1, n - 1, &a, &again);
    else
        plan(data + 1, n - 1, &a, &again);
    buf_free(&again);
    arena_free(&a);
    return 0;
}
