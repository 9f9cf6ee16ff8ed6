/* test_control_codec.c: every control message survives the wire; damaged, incomplete and absurd
 * ones are refused by a sentence. */
#include "base/clock.h"
#include "base/rng.h"
#include "proto/control.h"
#include "tests/support/env.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed;

static const struct msg_link some_links[] = {{0, 50e-6, 1.25e9}, {3, 200e-6, 125e6}};

static struct control_msg hello(void)
{
    return (struct control_msg){.type = MSG_HELLO,
                                .hello = {.version = "0.1.0",
                                          .job = "j1",
                                          .host = "hosta",
                                          .rank = 1,
                                          .size = 4,
                                          .host_rank = 1,
                                          .host_size = 2,
                                          .pid = 77,
                                          .n_cpus = 2,
                                          .mem_total = INT64_C(64) << 30,
                                          .mem_available = 1 << 30,
                                          .addresses = "10.0.0.7,fd00::7",
                                          .n_links = 2,
                                          .links = some_links,
                                          .device = "cuda:1 a card",
                                          .gpu = true,
                                          .mem_ranks = 2,
                                          .read_bytes_s = 936e9,
                                          .ops_s = 284e12,
                                          .loaded_epoch = 12}};
}

static struct control_msg load_plan(void)
{
    return (struct control_msg){.type = MSG_LOAD_PLAN,
                                .load_plan = {.epoch = 3,
                                              .replica = 1,
                                              .model = 2,
                                              .model_path = "/m/x.gguf",
                                              .n_adapters = 2,
                                              .adapters = {"/a/one", "/a/two"},
                                              .adapter_fingerprints = {7, UINT64_MAX},
                                              .grid = {.n_stages = 2, .layers = {0, 3, 7}, .width = {2, 3}, .whole_experts = true},
                                              .n_threads = 2,
                                              .context = 4096,
                                              .n_blocks = 100,
                                              .n_slots = 64,
                                              .max_step_tokens = 512,
                                              .kv_type = KV_Q8_0,
                                              .isa = "auto",
                                              .wire = "shm",
                                              .exact = true,
                                              .wire_type = "q8",
                                              .shard_cache = "/c",
                                              .shard_cache_bytes = 9,
                                              .comm_timeout_us = 10000000,
                                              .telemetry_us = 1000000,
                                              .rejoin_us = 30000000}};
}

static struct control_msg telemetry(void)
{
    return (struct control_msg){.type = MSG_TELEMETRY,
                                .telemetry = {.step = UINT64_MAX,
                                              .layer = -1,
                                              .op = "all_reduce",
                                              .op_seq = 48213,
                                              .op_waited_us = 12400000,
                                              .op_rank = 4,
                                              .rss_bytes = 1 << 20,
                                              .comm_bytes = 5,
                                              .comm_us = 6,
                                              .comm_ops = 7}};
}

static struct control_msg *round_trip(const struct control_msg *m)
{
    struct buf b = {0};
    struct control_msg *out = NULL;
    control_encode(m, &b);
    assert_int_equal(b.data[0], m->type);
    enum err rc = control_decode(b.data, b.len, &out);
    if (rc) fail_msg("%s", err_text());
    assert_int_equal(out->type, m->type);
    buf_free(&b);
    return out;
}

static void hello_round_trip(void **state)
{
    (void)state;
    struct control_msg m = hello(), *o = round_trip(&m);
    assert_string_equal(o->hello.version, m.hello.version);
    assert_string_equal(o->hello.job, m.hello.job);
    assert_string_equal(o->hello.host, m.hello.host);
    assert_string_equal(o->hello.device, m.hello.device);
    assert_int_equal(o->hello.rank, 1);
    assert_int_equal(o->hello.size, 4);
    assert_int_equal(o->hello.host_rank, 1);
    assert_int_equal(o->hello.host_size, 2);
    assert_int_equal(o->hello.pid, 77);
    assert_int_equal(o->hello.n_cpus, 2);
    assert_int_equal(o->hello.loaded_epoch, 12);
    assert_int_equal(o->hello.mem_ranks, 2);
    assert_true(o->hello.gpu && o->hello.read_bytes_s == 936e9 && o->hello.ops_s == 284e12);
    assert_string_equal(o->hello.addresses, m.hello.addresses);
    assert_int_equal(o->hello.n_links, 2);
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(o->hello.links[i].rank, some_links[i].rank);
        assert_true(o->hello.links[i].latency_s == some_links[i].latency_s && o->hello.links[i].bytes_s == some_links[i].bytes_s);
    }
    assert_true(o->hello.mem_total == m.hello.mem_total &&
                o->hello.mem_available == m.hello.mem_available);
    control_msg_free(o);
}

static void load_plan_round_trip(void **state)
{
    (void)state;
    struct control_msg m = load_plan(), *o = round_trip(&m);
    const struct msg_load_plan *p = &o->load_plan;
    assert_int_equal(p->epoch, 3);
    assert_int_equal(p->replica, 1);
    assert_int_equal(p->model, 2);
    assert_string_equal(p->model_path, "/m/x.gguf");
    assert_int_equal(p->n_adapters, 2);
    assert_string_equal(p->adapters[0], "/a/one");
    assert_string_equal(p->adapters[1], "/a/two");
    assert_true(p->adapter_fingerprints[0] == 7 && p->adapter_fingerprints[1] == UINT64_MAX);
    assert_memory_equal(&p->grid, &m.load_plan.grid, sizeof p->grid);
    assert_int_equal(p->n_threads, 2);
    assert_int_equal(p->context, 4096);
    assert_int_equal(p->n_blocks, 100);
    assert_int_equal(p->n_slots, 64);
    assert_int_equal(p->max_step_tokens, 512);
    assert_true(p->kv_type == KV_Q8_0 && !p->oracle && p->exact);
    assert_string_equal(p->isa, "auto");
    assert_string_equal(p->wire, "shm");
    assert_string_equal(p->wire_type, "q8");
    assert_string_equal(p->shard_cache, "/c");
    assert_true(p->shard_cache_bytes == 9);
    assert_true(p->comm_timeout_us == 10000000 && p->telemetry_us == 1000000 && p->rejoin_us == 30000000);
    control_msg_free(o);
}

static void small_messages_round_trip(void **state)
{
    (void)state;
    struct control_msg m = telemetry(), *o = round_trip(&m);
    assert_true(o->telemetry.step == UINT64_MAX && o->telemetry.layer == -1 &&
                o->telemetry.op_rank == 4);
    assert_true(o->telemetry.op_seq == 48213 && o->telemetry.op_waited_us == 12400000);
    assert_true(o->telemetry.rss_bytes == 1 << 20 && o->telemetry.comm_bytes == 5);
    assert_true(o->telemetry.comm_us == 6 && o->telemetry.comm_ops == 7);
    assert_string_equal(o->telemetry.op, "all_reduce");
    control_msg_free(o);

    m = (struct control_msg){.type = MSG_LOAD_PROGRESS, .progress = {5, 10}};
    o = round_trip(&m);
    assert_true(o->progress.bytes_done == 5 && o->progress.bytes_total == 10);
    control_msg_free(o);

    m = (struct control_msg){.type = MSG_READY, .ready = {1, 2, 3, 0.25, 4, 5, 6}};
    o = round_trip(&m);
    assert_true(o->ready.weight_bytes == 1 && o->ready.kv_bytes == 2 && o->ready.n_blocks == 3);
    assert_true(o->ready.seconds == 0.25 && o->ready.read_bytes == 4 && o->ready.received_bytes == 5 && o->ready.cached_bytes == 6);
    control_msg_free(o);

    m = (struct control_msg){.type = MSG_FAULT, .fault = {ERR_PEER_LOST, "rank 2 (hostb) is gone"}};
    o = round_trip(&m);
    assert_int_equal(o->fault.code, ERR_PEER_LOST);
    assert_string_equal(o->fault.text, "rank 2 (hostb) is gone");
    control_msg_free(o);

    m = (struct control_msg){.type = MSG_SHUTDOWN, .shutdown = {"ctrl-c"}};
    o = round_trip(&m);
    assert_string_equal(o->shutdown.reason, "ctrl-c");
    control_msg_free(o);

    m = (struct control_msg){.type = MSG_ADOPT, .adopt = {UINT32_MAX}};
    o = round_trip(&m);
    assert_true(o->adopt.epoch == UINT32_MAX);
    control_msg_free(o);

    for (enum control_type t = MSG_WAKE; t <= MSG_DRAIN; t++) {
        m = (struct control_msg){.type = t};
        control_msg_free(round_trip(&m));
    }
}

static void packed_bytes_pass_unchanged(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 1, 2, 255, 0};
    enum control_type types[] = {MSG_STEP_PLAN, MSG_STEP_RESULT};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct control_msg m = {.type = types[i], .bytes = {bytes, sizeof bytes}},
                           *o = round_trip(&m);
        assert_int_equal(o->bytes.n, sizeof bytes);
        assert_memory_equal(o->bytes.data, bytes, sizeof bytes);
        control_msg_free(o);
    }
}

static void refuse_bytes(const void *data, size_t n, const char *sentence)
{
    struct control_msg *o = NULL;
    void *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    assert_int_equal(control_decode(copy, n, &o), ERR_LINK_PROTOCOL);
    assert_null(o);
    if (sentence) assert_string_equal(err_text(), sentence);
    free(copy);
}

static void refuse(const struct control_msg *m, const char *sentence)
{
    struct buf b = {0};
    control_encode(m, &b);
    refuse_bytes(b.data, b.len, sentence);
    buf_free(&b);
}

static void uneven_shares_round_trip_and_must_be_whole(void **state)
{
    (void)state;
    struct control_msg m = load_plan();
    m.load_plan.grid.shared = true;
    for (int32_t r = 0; r < 5; r++) m.load_plan.grid.share[r] = (struct grid_share){1 + r, 10 + r, 20 * r};
    struct control_msg *o = round_trip(&m);
    assert_memory_equal(&o->load_plan.grid, &m.load_plan.grid, sizeof m.load_plan.grid);
    control_msg_free(o);
    m.load_plan.grid.share[3].ffn = 0;
    refuse(&m, "LoadPlan: share_ffn is 0, needed 1..16777216");
    m.load_plan.grid.share[3].ffn = 1;
    m.load_plan.grid.share[4].heads = -1;
    refuse(&m, "LoadPlan: share_heads is -1, needed 1..16777216");
}

static void absurd_values_are_refused(void **state)
{
    (void)state;
    struct control_msg m = hello();
    m.hello.rank = 4;
    refuse(&m, "Hello: rank is 4, needed 0..3");
    m = hello();
    m.hello.size = 65;
    refuse(&m, "Hello: size is 65, needed 1..64");
    m = hello();
    m.hello.host_rank = -1;
    refuse(&m, "Hello: host_rank is -1, needed 0..1");
    struct msg_link bad = {4, 1e-6, 1e9};
    m = hello();
    m.hello.n_links = 1;
    m.hello.links = &bad;
    refuse(&m, "Hello: link_rank is 4, needed 0..3");
    bad = (struct msg_link){2, 0, 1e9};
    refuse(&m, "Hello: a link of 0 s and 1e+09 B/s makes no sense");
    m = load_plan();
    m.load_plan.grid.layers[1] = 7;
    refuse(&m, "LoadPlan: stage_layers is 7, needed 8..256");
    m = load_plan();
    m.load_plan.grid.width[1] = 63;
    refuse(&m, "LoadPlan: stage_width is 63, needed 1..62");
    m = load_plan();
    m.load_plan.wire = "ring";
    refuse(&m, "LoadPlan: wire is \"ring\", needed auto, shm or mpi");
    m = load_plan();
    m.load_plan.wire_type = "q4";
    refuse(&m, "LoadPlan: wire_type is \"q4\", needed f32, f16 or q8");
    m = load_plan();
    m.load_plan.context = 0;
    refuse(&m, "LoadPlan: context is 0, needed 1..1048576");
    m = (struct control_msg){.type = MSG_FAULT, .fault = {99, "?"}};
    refuse(&m, "Fault: code 99 is not an error of this program");
    m = (struct control_msg){.type = MSG_ADOPT};
    refuse(&m, "Adopt: epoch is 0, needed 1..4294967295");
    m = (struct control_msg){.type = MSG_READY, .ready = {.seconds = NAN}};
    refuse(&m, "Ready: seconds is nan, needed a number of at least 0");
    m = (struct control_msg){.type = MSG_LOAD_PROGRESS, .progress = {11, 10}};
    refuse(&m, "LoadProgress: bytes_done is 11, needed 0..10");
}

static void over_long_strings_are_refused(void **state)
{
    (void)state;
    char *s = malloc(70001);
    memset(s, 'x', 70000);
    s[70000] = 0;
    struct control_msg m = {.type = MSG_SHUTDOWN, .shutdown = {s}};
    refuse(&m, "Shutdown of 70004 bytes, at most 65536 are allowed");
    s[4097] = 0;
    refuse(&m, "Shutdown: field reason is longer than 4096 bytes");
    s[4096] = 0;
    control_msg_free(round_trip(&m));
    free(s);
}

static void strange_bytes_are_refused(void **state)
{
    (void)state;
    refuse_bytes("", 0, "an empty control message");
    refuse_bytes("\xc8", 1, "control message of unknown type 200");
    refuse_bytes("\x42\x01", 2, "Wake carries 1 bytes, it has no body");
    refuse_bytes("\x01", 1, "Hello: field version is missing");
    refuse_bytes("\x03\x08\x01\x10\x01\x18\x01", 7, "Ready: field seconds is missing");
    refuse_bytes("\x44\x0a\x01x\x10\x05", 6, "Shutdown: unknown field number 2");
    refuse_bytes("\x44\x0a\x7fxx", 5, "Shutdown of 4 bytes is damaged");
}

static void truncation_and_flips_never_crash(void **state)
{
    (void)state;
    struct control_msg all[] = {hello(), load_plan(), telemetry()};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        struct buf b = {0};
        control_encode(&all[i], &b);
        for (size_t n = 0; n < b.len; n++) refuse_bytes(b.data, n, NULL);
        for (uint64_t round = 0; round < 20000; round++) {
            struct control_msg *o = NULL;
            uint8_t *copy = malloc(b.len);
            memcpy(copy, b.data, b.len);
            for (uint64_t k = 0; k <= round % 3; k++) {
                uint64_t r = rng_at(seed, i, round, k);
                copy[1 + r % (b.len - 1)] ^= (uint8_t)(1u << (r >> 60 & 7));
            }
            if (control_decode(copy, b.len, &o) == OK) control_msg_free(o);
            free(copy);
        }
        buf_free(&b);
    }
}

int main(void)
{
    seed = test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_round_trip),
        cmocka_unit_test(load_plan_round_trip),
        cmocka_unit_test(uneven_shares_round_trip_and_must_be_whole),
        cmocka_unit_test(small_messages_round_trip),
        cmocka_unit_test(packed_bytes_pass_unchanged),
        cmocka_unit_test(absurd_values_are_refused),
        cmocka_unit_test(over_long_strings_are_refused),
        cmocka_unit_test(strange_bytes_are_refused),
        cmocka_unit_test(truncation_and_flips_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
