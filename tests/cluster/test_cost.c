/* The cost of ranks that share processors, of pipelines, and of exchanges of all hosts at once. */
#include "base/exchange.h"
#include "cluster/forecast.h"
#include "engine/kernels/cuda/lt.h"
#include "engine/model/shard.h"
#include "tests/support/plan_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Of Llama 3 8B over 1024 positions: choices and scratch, and 4 splits of 2 items for each of 192 multiprocessors, 4 heads of 128 values and two more. */
enum { OF_A_CARD = (1 << 20) + 4 * 4 * 2 * 192 * 4 * (128 + 2) };

/* Hosts that are namespaces of one machine of two processors, one rank on each. */
static void one_machine(struct clu_topo *t, int32_t n)
{
    clu_topo_init(t);
    t->wire = (struct clu_wire){40e-6, 500e6};
    t->n_hosts = t->n_devices = n;
    for (int32_t i = 0; i < n; i++) {
        struct clu_device *d = &t->devices[i];
        t->hosts[i] = (struct clu_host){.packages = 1, .cores = 1, .threads = 1, .numa = 1, .disk_bytes_s = 1e9, .local = {2e-6, 8e9}};
        snprintf(t->hosts[i].name, CLU_NAME, "h%d", i);
        *d = (struct clu_device){.kind = CLU_CPU, .name = "cpu", .host = i, .cores = 1, .mem_bytes = INT64_C(100) << 30,
                                 .crowd = {.ranks = n, .processors = 2, .most = 1, .read_bytes_s = 30e9, .ops_s = 1e12, .all_read_bytes_s = 50e9}};
        clu_crowd_speed(&d->crowd, n, false, &d->read_bytes_s, &d->ops_s);
    }
}

static struct clu_layout cut(const struct plan_case *c, int32_t tp, int32_t pp)
{
    struct clu_layout l = {{0}, {0}};
    struct eng_spec s = {.arch = "llama", .n_layers = c->info.n_layers, .d_model = c->info.d_model, .n_heads = c->info.n_heads,
                         .n_kv_heads = c->info.n_kv_heads, .head_dim = c->info.head_dim, .d_ffn = c->info.d_ffn, .n_vocab = c->info.n_vocab};
    assert_int_equal(eng_grid_even(&l.grid, &s, tp, pp), OK);
    for (int32_t r = 0; r < tp * pp; r++) l.device[r] = r;
    return l;
}

static void a_crowd_shares_what_its_processors_have(void **state)
{
    (void)state;
    struct clu_crowd c = {.ranks = 4, .processors = 2, .most = 1, .read_bytes_s = 30e9, .ops_s = 1e12, .all_read_bytes_s = 50e9};
    double read, ops;
    clu_crowd_speed(&c, 1, false, &read, &ops);
    assert_float_equal(read, 30e9, 1);
    assert_float_equal(ops, 1e12, 1);
    clu_crowd_speed(&c, 2, false, &read, &ops);
    assert_float_equal(read, 25e9, 1); /* the memory is the limit */
    assert_float_equal(ops, 1e12, 1);
    clu_crowd_speed(&c, 3, false, &read, &ops);
    assert_float_equal(read, 1 / (1 / 25e9 + 1 / 30e9), 1); /* two, then the third, which has the memory to itself */
    assert_float_equal(ops, 5e11, 1);
    clu_crowd_speed(&c, 4, false, &read, &ops);
    assert_float_equal(read, 12.5e9, 1);
    clu_crowd_speed(&c, 3, true, &read, &ops);
    assert_float_equal(ops, 5e11, 1); /* each is tied to its processor */
    c.moves = true;
    clu_crowd_speed(&c, 3, true, &read, &ops);
    assert_float_equal(ops, 1e12 * 2 / 3, 1); /* they take turns on both */
    assert_float_equal(read, 50e9 / 3, 1);
    clu_crowd_speed(&c, 3, false, &read, &ops);
    assert_float_equal(ops, 5e11, 1); /* all wait for the one that shares */
}

/* One sequence: stages take turns, and each has the whole machine meanwhile. Two: both are busy all the time. */
static void idle_stages_leave_their_processors_to_the_others(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_Q4_0, DTYPE_Q6_K, NULL, 1024);
    struct clu_speed one, two, shared;
    one_machine(&c->topo, 4);
    struct clu_layout l = cut(c, 2, 2);
    clu_cost_decode(&c->work, &c->topo, &l, 1, &one);
    clu_cost_decode(&c->work, &c->topo, &l, 2, &two);
    for (int32_t i = 0; i < 4; i++) c->topo.devices[i].crowd.ranks = 0; /* as if all computed always */
    clu_cost_decode(&c->work, &c->topo, &l, 1, &shared);
    assert_true(one.tok_s > 1.7 * shared.tok_s && one.tok_s < 2.01 * shared.tok_s);
    assert_true(two.tok_s < 1.1 * one.tok_s); /* a second sequence brings next to nothing to two processors that were busy already */
    assert_true(one.comm_s > 0 && one.comm_s < one.round_s);
    free(c);
}

/* Stages that may move need not wait for the processor that two of them are tied to. */
static void stages_that_may_move_share_processors_evenly(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_Q4_0, DTYPE_Q6_K, NULL, 1024);
    struct clu_speed tied, moving, flat_tied, flat_moving;
    one_machine(&c->topo, 3);
    struct clu_layout l = cut(c, 1, 3), flat = cut(c, 3, 1);
    clu_cost_decode(&c->work, &c->topo, &l, 6, &tied);
    clu_cost_decode(&c->work, &c->topo, &flat, 6, &flat_tied);
    for (int32_t i = 0; i < 3; i++) c->topo.devices[i].crowd.moves = true;
    clu_cost_decode(&c->work, &c->topo, &l, 6, &moving);
    clu_cost_decode(&c->work, &c->topo, &flat, 6, &flat_moving);
    assert_true(moving.tok_s > 1.1 * tied.tok_s && moving.tok_s < 1.34 * tied.tok_s);
    assert_float_equal(flat_moving.tok_s, flat_tied.tok_s, 1e-6);
    free(c);
}

static void a_round_of_a_pipeline_is_foretold(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_Q4_0, DTYPE_Q6_K, NULL, 1024);
    struct clu_forecast f;
    struct clu_speed v;
    double compute, comm;
    char text[320];
    one_machine(&c->topo, 4);
    struct clu_layout l = cut(c, 2, 2);
    clu_forecast_of(&f, &c->work, &c->topo, &l);
    f.speed_known = f.links_known = true;
    for (int32_t users = 1; users <= 8; users *= 2) {
        clu_cost_decode(&c->work, &c->topo, &l, users, &v);
        clu_forecast_at(&f, users, &compute, &comm);
        assert_float_equal(compute + comm, v.round_s, 1e-9);
        assert_true(comm > 0 && compute > 0);
    }
    double whole = compute + comm;
    struct clu_measured m = {.rows = 8, .step_s = 1.1 * whole, .least_s = comm};
    assert_int_equal(clu_forecast_judge(&f, &m, text), CLU_TERM_NONE);
    assert_non_null(strstr(text, "a round of 8 sequence(s) through 2 stages"));
    m.step_s = 1.6 * whole;
    assert_int_equal(clu_forecast_judge(&f, &m, text), CLU_TERM_COMPUTE);
    assert_non_null(strstr(text, "balance"));
    m.least_s += 0.6 * whole;
    assert_int_equal(clu_forecast_judge(&f, &m, text), CLU_TERM_LINKS);
    free(c);
}

/* Pairs alone are quick; all at once are as slow as was measured, and part of them in between. */
static void all_hosts_at_once_take_what_was_measured_of_them(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_Q4_0, DTYPE_Q6_K, NULL, 1024);
    static const int32_t device[] = {0, 1, 2, 3}, parts[] = {1, 1, 1, 1};
    double before[5], after[5];
    one_machine(&c->topo, 4);
    for (int32_t n = 2; n <= 4; n++) before[n] = clu_cost_reduce(&c->work, &c->topo, device, n, parts, 1);
    c->topo.together = (struct clu_wire){400e-6, 100e6};
    for (int32_t n = 2; n <= 4; n++) after[n] = clu_cost_reduce(&c->work, &c->topo, device, n, parts, 1);
    double vector = 4.0 * c->info.d_model;
    assert_float_equal(after[2], before[2], 1e-9);
    assert_true(after[3] > before[3] && after[3] < after[4]);
    assert_float_equal(after[4], 400e-6 + 3 * vector / 100e6, 20e-6); /* all parts together are 64 KiB: everybody gives everything to everybody */
    c->topo.together = (struct clu_wire){1e-6, 1e12}; /* quicker than pairs alone: not believed */
    assert_float_equal(clu_cost_reduce(&c->work, &c->topo, device, 4, parts, 1), before[4], 1e-9);
    free(c);
}

/* The planner's figures are the plug-in's; a stage of fewer layers has smaller graphs; processors keep nothing. */
static void a_card_keeps_room_for_its_graphs_and_cublaslt(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_BF16, DTYPE_BF16, NULL, 1024);
    struct clu_memory m;
    int64_t without, exact, blocks[3];
    one_machine(&c->topo, 2);
    struct clu_layout l = cut(c, 1, 2);
    assert_int_equal(clu_rates_default.rounded_bytes, KRN_LT_WORKSPACE + KRN_LT_ROOM);
    clu_cost_memory(&c->work, &l.grid, 0, &c->topo, 0, &m);
    assert_int_equal(m.card, 0);
    without = clu_memory_fixed(&m);
    blocks[0] = clu_cost_blocks(&c->work, &c->topo, &l, NULL);
    for (int32_t r = 0; r < 2; r++) c->topo.devices[r].kind = CLU_GPU;
    clu_cost_memory(&c->work, &l.grid, 0, &c->topo, 0, &m);
    exact = clu_memory_fixed(&m);
    int64_t own = OF_A_CARD + 16 * clu_rates_default.graph_bytes;
    assert_int_equal(exact, without + own);
    blocks[1] = clu_cost_blocks(&c->work, &c->topo, &l, NULL);
    c->work.rounded = true;
    clu_cost_memory(&c->work, &l.grid, 0, &c->topo, 0, &m);
    assert_int_equal(clu_memory_fixed(&m), exact + KRN_LT_WORKSPACE + KRN_LT_ROOM);
    blocks[2] = clu_cost_blocks(&c->work, &c->topo, &l, NULL);
    assert_in_range(blocks[0] - blocks[1], own / m.kv_block, own / m.kv_block + 1);
    assert_in_range(blocks[1] - blocks[2], clu_rates_default.rounded_bytes / m.kv_block, clu_rates_default.rounded_bytes / m.kv_block + 1);
    free(c);
}

/* Rows that round experts' slots up, of inputs and of two products; none where there are no experts. */
static void a_card_keeps_room_for_experts_of_prompts(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_BF16, DTYPE_BF16, NULL, 1024);
    one_machine(&c->topo, 2);
    struct clu_device *d = &c->topo.devices[0];
    d->kind = CLU_GPU;
    int64_t dense = clu_cost_card(&c->work, &c->topo, 0, 32, 1), leaves = leaf_ffn_count(c->info.d_ffn);
    c->info.n_experts = 64, c->info.n_used = 8, c->info.d_expert = 512;
    c->work.max_step_tokens = 512;
    assert_int_equal(clu_cost_card(&c->work, &c->topo, 0, 32, 1) - dense,
                     4 * (64 * 15 * (c->info.d_model + 2 * 512) + MAX(LEAF_EXPERT_ROOM, leaves * (512 * 8 + 64 * 15) * LEAF_TILE)));
    c->work.max_step_tokens = 1; /* eight slots, each with rows of its own */
    assert_int_equal(clu_cost_card(&c->work, &c->topo, 0, 32, 1) - dense, 4 * (8 * 15 * (c->info.d_model + 2 * 512) + LEAF_EXPERT_ROOM));
    c->work.max_step_tokens = 512; /* more leaves of more rows than there is always room for */
    c->info.n_experts = 256;
    int64_t rows = 512 * 8 + 256 * 15;
    assert_true(leaves * rows * LEAF_TILE > LEAF_EXPERT_ROOM);
    assert_int_equal(clu_cost_card(&c->work, &c->topo, 0, 32, 1) - dense, 4 * (256 * 15 * (c->info.d_model + 2 * 512) + leaves * rows * LEAF_TILE));
    d->kind = CLU_CPU;
    assert_int_equal(clu_cost_card(&c->work, &c->topo, 0, 32, 1), 0);
    free(c);
}

/* NCCL's communicator is a card's only beside another card of its host, and in a stage of several ranks; a card on another host needs none, nor does
 * one beside processors. Of the KV cache there is as much less. */
static void cards_of_a_host_keep_room_for_nccl(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_BF16, DTYPE_BF16, NULL, 1024);
    const int64_t nccl = clu_rates_default.nccl_bytes;
    struct clu_memory m;
    one_machine(&c->topo, 3);
    struct clu_layout flat = cut(c, 2, 1), piped = cut(c, 1, 2);
    for (int32_t r = 0; r < 2; r++) c->topo.devices[r].kind = CLU_GPU;
    assert_in_range(nccl, INT64_C(300) << 20, INT64_C(350) << 20);
    clu_cost_memory(&c->work, &flat.grid, 0, &c->topo, 0, &m);
    int64_t apart = m.card, blocks = clu_cost_blocks(&c->work, &c->topo, &flat, NULL);
    c->topo.devices[1].host = 0;
    clu_cost_memory(&c->work, &flat.grid, 0, &c->topo, 0, &m);
    int64_t more = nccl + 2 * EXCHANGE_ROOM + (2 << 20); /* and rooms that both fill */
    assert_int_equal(m.card, apart + more);
    assert_in_range(blocks - clu_cost_blocks(&c->work, &c->topo, &flat, NULL), more / m.kv_block, more / m.kv_block + 1);
    clu_cost_memory(&c->work, &piped.grid, 0, &c->topo, 0, &m);
    assert_int_equal(m.card, OF_A_CARD + 16 * clu_rates_default.graph_bytes);
    /* cards that sum for their host keep room for what they add up, and pack it in */
    struct clu_layout wide = cut(c, 3, 1);
    c->topo.devices[2].host = 0;
    clu_cost_memory(&c->work, &wide.grid, 0, &c->topo, 0, &m);
    apart = m.card;
    c->topo.devices[2].host = 1;
    clu_cost_memory(&c->work, &wide.grid, 0, &c->topo, 0, &m);
    assert_int_equal(m.card, apart + (32 << 20));
    c->work.wire = CLU_WIRE_Q8;
    clu_cost_memory(&c->work, &wide.grid, 0, &c->topo, 0, &m);
    assert_int_equal(m.card, apart + (96 << 20));
    c->topo.devices[1].kind = CLU_CPU;
    assert_int_equal(clu_cost_nccl(&c->work, &c->topo, 0, 2), 0);
    assert_int_equal(clu_cost_nccl(&c->work, &c->topo, 1, 2), 0);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crowd_shares_what_its_processors_have),
        cmocka_unit_test(idle_stages_leave_their_processors_to_the_others),
        cmocka_unit_test(stages_that_may_move_share_processors_evenly),
        cmocka_unit_test(a_round_of_a_pipeline_is_foretold),
        cmocka_unit_test(all_hosts_at_once_take_what_was_measured_of_them),
        cmocka_unit_test(a_card_keeps_room_for_its_graphs_and_cublaslt),
        cmocka_unit_test(a_card_keeps_room_for_experts_of_prompts),
        cmocka_unit_test(cards_of_a_host_keep_room_for_nccl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
