/* Real processes: workers started by mpirun, joined over gRPC, give the same bits as one rank in this process, for every cut that is tried. */
#include "base/clock.h"
#include "cluster/launch.h"
#include "coordinator/replica/replica.h"
#include "engine/engine.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { N_PROMPT = 21, N_GEN = 8, CONTEXT = 64 };

struct cluster {
    const char *model, *wire;
    int32_t tp, pp;
    struct crd_replica *replica;
    struct rpc_server *server;
    struct clu_launch workers;
};

static enum err place(void *user, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan)
{
    struct cluster *c = user;
    struct grid g;
    (void)hellos;
    assert_int_equal(n, c->tp * c->pp);
    enum err e = eng_engine_grid(c->model, c->tp, c->pp, &g);
    if (e) return e;
    plan->model_path = c->model;
    plan->grid = g;
    plan->n_threads = 1;
    plan->context = CONTEXT;
    plan->n_blocks = 40;
    plan->n_slots = 8;
    plan->max_step_tokens = 16;
    plan->isa = "auto";
    plan->wire = c->wire;
    plan->wire_type = "f32";
    plan->shard_cache = "off";
    plan->comm_timeout_us = 20000000;
    plan->telemetry_us = 100000;
    return OK;
}

static void open_cluster(struct cluster *c)
{
    static char key_text[65];
    static struct auth_key key;
    char join[64];
    trn_auth_key_generate(key_text);
    assert_int_equal(trn_auth_key_of_text(&key, key_text), OK);
    struct replica_conf rc = {.n_ranks = c->tp * c->pp, .max_waiting = 100, .prefix_cache = true, .idle_us = 20000, .place = place, .user = c};
    if (crd_replica_open(&c->replica, &rc)) fail_msg("%s", err_text());
    struct rpc_conf sc = {.address = "127.0.0.1:0", .key = &key, .identity = "coordinator", .keepalive_ms = 5000, .keepalive_timeout_ms = 5000};
    if (rpc_server_open(&c->server, &sc, crd_replica_mailbox(c->replica))) fail_msg("%s", err_text());
    snprintf(join, sizeof join, "127.0.0.1:%d", rpc_server_port(c->server));
    struct clu_launch_conf lc = {.program = TESSERA_BIN, .n_ranks = c->tp * c->pp, .join = join, .key = key_text, .log_level = "warn", .yield = true};
    if (clu_launch_start(&c->workers, &lc)) fail_msg("%s", err_text());
    struct replica_status s;
    for (int64_t until = clock_us() + 30000000;;) {
        int status;
        crd_replica_status(c->replica, &s);
        if (s.state == REPLICA_READY) break;
        if (s.state == REPLICA_LOST || clock_us() > until || clu_launch_ended(&c->workers, &status)) fail_msg("not ready: %s", s.text);
        clock_sleep_us(5000);
    }
}

static void close_cluster(struct cluster *c)
{
    crd_replica_stop(c->replica, 5000000);
    clu_launch_stop(&c->workers, 5000000);
    rpc_server_close(c->server);
    crd_replica_close(c->replica);
}

struct answer {
    struct mailbox *mail;
    int32_t n_vocab, n_rows, n_tokens, tokens[N_GEN];
    float *logits;
    enum err err;
    struct crd_replica *replica;   /* if any: what its status says when the request ends */
    enum replica_state end_state;
};

static void on_event(void *user, const struct token_event *e)
{
    struct answer *a = user;
    if (e->kind == EVENT_LOGITS) {
        memcpy(a->logits + (size_t)a->n_rows * (size_t)a->n_vocab, e->logits, (size_t)e->n_rows * (size_t)a->n_vocab * sizeof(float));
        a->n_rows += e->n_rows;
    }
    if (e->kind == EVENT_TOKEN) a->tokens[a->n_tokens++] = e->token->id;
    if (e->kind == EVENT_FINISH) {
        struct replica_status s = {0};
        if (a->replica) crd_replica_status(a->replica, &s);
        a->end_state = s.state;
        a->err = e->err;
        mailbox_put(a->mail, a);
    }
}

static struct sampling sampling_of_test(void)
{
    struct sampling s = sampling_default();
    s.seed = 77;
    s.top_p = 0.95f;
    s.max_tokens = N_GEN;
    return s;
}

static void ask(struct cluster *c, const int32_t *prompt, struct answer *a, uint64_t id)
{
    struct gen_request q = {.id = id, .weight = 1, .n_prompt = N_PROMPT, .prompt = prompt, .n = 1, .sampling = sampling_of_test(),
                            .prompt_logits = true, .sample_logits = true};
    a->mail = mailbox_open();
    crd_replica_submit(c->replica, &q, on_event, a);
    assert_non_null(mailbox_get(a->mail, 60000000));
    mailbox_close(a->mail);
}

static const char *model_path(void)
{
    if (!access("deploy/models/tessera-demo-q8_0.gguf", R_OK)) return "deploy/models/tessera-demo-q8_0.gguf";
    const char *path = scratch_path("model");
    struct random_model m = {.arch = "llama", .n_layer = 4, .d_model = 128, .n_head = 16, .n_kv_head = 8, .head_dim = 32, .d_ffn = 512,
                             .vocab = 512, .tied = true, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 3};
    assert_int_equal(random_model_write(&m, path), OK);
    return path;
}

static void same_bits(int32_t tp, int32_t pp, const char *wire)
{
    struct cluster c = {.model = model_path(), .wire = wire, .tp = tp, .pp = pp};
    struct local_replica *r;
    struct local_replica_conf lc = {.path = c.model, .context = CONTEXT};
    int32_t prompt[N_PROMPT];
    for (int32_t i = 0; i < N_PROMPT; i++) prompt[i] = i * 13 % 250;
    struct sequence s = {.prompt = prompt, .n_prompt = N_PROMPT, .n_gen = N_GEN, .sampling = sampling_of_test()};
    struct step_bounds b;
    if (local_replica_open(&r, &lc)) fail_msg("%s", err_text());
    local_replica_bounds(r, &b);
    assert_int_equal(sequence_run(r, &s, 1, true), OK);
    local_replica_close(r);

    open_cluster(&c);
    for (uint64_t round = 1; round <= 2; round++) { /* the second finds a prefix cache and sleeping ranks */
        struct answer a = {.n_vocab = b.n_vocab, .logits = xcalloc(N_PROMPT + N_GEN, (size_t)b.n_vocab * sizeof(float))};
        ask(&c, prompt, &a, round);
        assert_int_equal(a.err, OK);
        assert_int_equal(a.n_tokens, N_GEN);
        assert_memory_equal(a.tokens, s.tokens + N_PROMPT, sizeof a.tokens);
        assert_int_equal(a.n_rows, N_PROMPT + N_GEN - 1);
        assert_int_equal(memcmp(a.logits, s.logits, (size_t)a.n_rows * (size_t)b.n_vocab * sizeof(float)), 0);
        free(a.logits);
        clock_sleep_us(150000);
    }
    close_cluster(&c);
    sequence_free(&s);
}

static void tp1_by_mpirun_gives_the_same_bits(void **state) { (void)state; same_bits(1, 1, "shm"); }
static void tp2_over_shm_gives_the_same_bits(void **state) { (void)state; same_bits(2, 1, "shm"); }
static void tp2_over_mpi_gives_the_same_bits(void **state) { (void)state; same_bits(2, 1, "mpi"); }
static void tp4_gives_the_same_bits(void **state) { (void)state; same_bits(4, 1, "shm"); }
static void pp2_gives_the_same_bits(void **state) { (void)state; same_bits(1, 2, "shm"); }
static void tp2_x_pp2_over_mpi_gives_the_same_bits(void **state) { (void)state; same_bits(2, 2, "mpi"); }

static void each_of_two_ranks_holds_its_part_and_talks(void **state)
{
    (void)state;
    struct cluster c = {.model = model_path(), .wire = "shm", .tp = 2, .pp = 1};
    struct replica_rank ranks[LIMIT_RANKS];
    struct model_info info;
    int32_t prompt[N_PROMPT] = {5, 6, 7, 8};
    assert_int_equal(eng_engine_model_info(c.model, &info), OK);
    open_cluster(&c);
    struct answer a = {.n_vocab = info.n_vocab, .logits = xcalloc(N_PROMPT + N_GEN, (size_t)info.n_vocab * sizeof(float))};
    ask(&c, prompt, &a, 1);
    for (int64_t until = clock_us() + 5000000; clock_us() < until;) {
        ask(&c, prompt, &(struct answer){.n_vocab = info.n_vocab, .logits = a.logits}, (uint64_t)clock_us());
        assert_int_equal(crd_replica_ranks(c.replica, ranks), 2);
        if (ranks[0].comm_ops && ranks[1].comm_ops) break;
    }
    for (int i = 0; i < 2; i++) {
        printf("rank %d: %.1f %% of the weight bytes, %llu collectives, %llu bytes\n", i, 100.0 * (double)ranks[i].weight_bytes / (double)info.weight_bytes,
               (unsigned long long)ranks[i].comm_ops, (unsigned long long)ranks[i].comm_bytes);
        assert_true((double)ranks[i].weight_bytes < 0.6 * (double)info.weight_bytes);
        assert_true(ranks[i].comm_ops > 0 && ranks[i].comm_bytes > 0);
    }
    free(a.logits);
    close_cluster(&c);
}

static void a_killed_rank_ends_open_requests_with_its_name(int32_t which)
{
    struct cluster c = {.model = model_path(), .wire = "shm", .tp = 2, .pp = 1};
    struct replica_rank ranks[LIMIT_RANKS];
    struct replica_status s;
    open_cluster(&c);
    assert_int_equal(crd_replica_ranks(c.replica, ranks), 2);
    kill(ranks[which].pid, SIGKILL);
    for (int64_t until = clock_us() + 10000000; clock_us() < until; clock_sleep_us(5000)) {
        crd_replica_status(c.replica, &s);
        if (s.state != REPLICA_READY) break;
    }
    assert_int_not_equal(s.state, REPLICA_READY);
    assert_non_null(strstr(s.text, "rank"));
    printf("said: %s\n", s.text);
    int32_t prompt[N_PROMPT] = {1};
    struct answer a = {.n_vocab = 1};
    ask(&c, prompt, &a, 9);
    assert_int_equal(a.err, ERR_UNAVAILABLE);
    close_cluster(&c);
}

/* Whoever learns that his request is lost and looks at /health sees why. */
static void a_lost_request_ends_after_the_status_says_so(void **state)
{
    (void)state;
    struct cluster c = {.model = model_path(), .wire = "shm", .tp = 2, .pp = 1};
    struct replica_rank ranks[LIMIT_RANKS];
    int32_t prompt[N_PROMPT] = {1, 2, 3};
    open_cluster(&c);
    struct answer a = {.n_vocab = 1, .mail = mailbox_open(), .replica = c.replica};
    struct gen_request q = {.id = 1, .weight = 1, .n_prompt = N_PROMPT, .prompt = prompt, .n = 1, .sampling = sampling_of_test()};
    q.sampling.max_tokens = CONTEXT - N_PROMPT;
    assert_int_equal(crd_replica_ranks(c.replica, ranks), 2);
    kill(ranks[1].pid, SIGSTOP); /* so that it cannot finish before the loss */
    crd_replica_submit(c.replica, &q, on_event, &a);
    clock_sleep_us(50000);
    kill(ranks[1].pid, SIGKILL);
    assert_non_null(mailbox_get(a.mail, 20000000));
    assert_int_equal(a.err, ERR_UNAVAILABLE);
    assert_int_equal(a.end_state, REPLICA_LOST);
    mailbox_close(a.mail);
    close_cluster(&c);
}

static void killing_rank_0_is_noticed(void **state) { (void)state; a_killed_rank_ends_open_requests_with_its_name(0); }
static void killing_rank_1_is_noticed(void **state) { (void)state; a_killed_rank_ends_open_requests_with_its_name(1); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tp1_by_mpirun_gives_the_same_bits), cmocka_unit_test(tp2_over_shm_gives_the_same_bits),
        cmocka_unit_test(tp2_over_mpi_gives_the_same_bits),  cmocka_unit_test(tp4_gives_the_same_bits),
        cmocka_unit_test(pp2_gives_the_same_bits),           cmocka_unit_test(tp2_x_pp2_over_mpi_gives_the_same_bits),
        cmocka_unit_test(each_of_two_ranks_holds_its_part_and_talks),
        cmocka_unit_test(a_lost_request_ends_after_the_status_says_so),
        cmocka_unit_test(killing_rank_0_is_noticed),         cmocka_unit_test(killing_rank_1_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
