/* Predicted memory is real memory: workers of the planner's own placements, started by mpirun,
 * their resident sets read from the kernel after a prompt that has used every buffer. Within 3 % or
 * 32 MB, whichever is larger. */
#include "base/clock.h"
#include "cluster/launch.h"
#include "coordinator/replica/replica.h"
#include "engine/engine.h"
#include "tests/support/plan_case.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/shape_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { CONTEXT = 1024, N_PROMPT = 700, STEP_TOKENS = 256, N_SLOTS = 8, N_BLOCKS = 256 };

struct job {
    const char *model;
    int32_t n;
    struct plan_case *c;
    struct clu_place place;
    struct crd_replica *replica;
    struct rpc_server *server;
    struct clu_launch workers;
    struct mailbox *done;
    enum err err;
};

static enum err put(void *user, const struct msg_hello hellos[], int32_t n,
                    struct msg_load_plan *plan)
{
    struct job *j = user;
    (void)hellos;
    assert_int_equal(n, j->n);
    plan->model_path = j->model;
    plan->grid = j->place.layout.grid;
    plan->n_threads = 1;
    plan->context = CONTEXT;
    plan->n_blocks = N_BLOCKS;
    plan->n_slots = N_SLOTS;
    plan->max_step_tokens = STEP_TOKENS;
    plan->isa = "auto";
    plan->wire = "shm";
    plan->wire_type = "f32";
    plan->shard_cache = "off";
    plan->comm_timeout_us = 60000000;
    plan->telemetry_us = 1000000;
    return OK;
}

static enum clu_experts experts;

/* n ranks of this machine, one of them three times as fast as the others; stages: dealt evenly to so many, 0: as is best. */
static void plan(struct job *j, int32_t stages)
{
    struct clu_topo *t = &j->c->topo;
    t->n_hosts = 1;
    t->hosts[0] = (struct clu_host){.packages = 1,
                                    .cores = 2,
                                    .threads = 2,
                                    .numa = 1,
                                    .disk_bytes_s = 1e9,
                                    .local = {1e-6, 50e9}};
    t->n_devices = j->n;
    for (int32_t i = 0; i < j->n; i++)
        t->devices[i] = (struct clu_device){.cores = 1,
                                            .mem_bytes = INT64_C(4) << 30,
                                            .read_bytes_s = i ? 10e9 : 30e9,
                                            .ops_s = i ? 5e11 : 15e11};
    j->c->want.fixed_order = true;
    j->c->want.experts = experts;
    j->c->work.max_step_tokens = STEP_TOKENS;
    j->c->work.n_slots = N_SLOTS;
    struct clu_layout l = {{0}, {0}};
    for (int32_t r = 0; r < j->n; r++) l.device[r] = r;
    enum err e = stages ? eng_engine_grid(j->model, j->n / stages, stages, &l.grid) : OK;
    if (!e) e = stages ? clu_place_of(&j->place, &j->c->work, t, &j->c->want, &l) : clu_place_find(&j->place, &j->c->work, t, &j->c->want);
    if (e) fail_msg("%s", err_text());
}

static void start(struct job *j)
{
    static char key_text[65];
    static struct auth_key key;
    char join[64];
    struct replica_status s;
    trn_auth_key_generate(key_text);
    assert_int_equal(trn_auth_key_of_text(&key, key_text), OK);
    struct replica_conf rc = {
        .n_ranks = j->n, .max_waiting = 100, .idle_us = 20000, .place = put, .user = j, .model = &j->c->info};
    if (crd_replica_open(&j->replica, &rc)) fail_msg("%s", err_text());
    struct rpc_conf sc = {.address = "127.0.0.1:0",
                          .key = &key,
                          .identity = "coordinator",
                          .keepalive_ms = 5000,
                          .keepalive_timeout_ms = 5000};
    if (rpc_server_open(&j->server, &sc, crd_replica_mailbox(j->replica)))
        fail_msg("%s", err_text());
    snprintf(join, sizeof join, "127.0.0.1:%d", rpc_server_port(j->server));
    struct clu_launch_conf lc = {.program = TESSERA_BIN,
                                 .n_ranks = j->n,
                                 .join = join,
                                 .key = key_text,
                                 .log_level = "warn",
                                 .yield = true};
    if (clu_launch_start(&j->workers, &lc)) fail_msg("%s", err_text());
    for (int64_t until = clock_us() + 60000000;; clock_sleep_us(5000)) {
        crd_replica_status(j->replica, &s);
        if (s.state == REPLICA_READY) return;
        if (s.state == REPLICA_LOST || clock_us() > until) fail_msg("not ready: %s", s.text);
    }
}

static void on_event(void *user, const struct token_event *e)
{
    struct job *j = user;
    if (e->kind != EVENT_FINISH) return;
    j->err = e->err;
    mailbox_put(j->done, j);
}

static void prompt(struct job *j)
{
    static int32_t ids[N_PROMPT];
    struct sampling s = sampling_default();
    s.max_tokens = 2;
    for (int32_t i = 0; i < N_PROMPT; i++) ids[i] = i % 250;
    struct gen_request q = {
        .id = 1, .weight = 1, .n_prompt = N_PROMPT, .prompt = ids, .n = 1, .sampling = s};
    j->done = mailbox_open();
    crd_replica_submit(j->replica, &q, on_event, j);
    assert_non_null(mailbox_get(j->done, 90000000));
    mailbox_close(j->done);
    if (j->err) fail_msg("the prompt ended with %s", err_name(j->err));
}

static int64_t resident(int32_t pid)
{
    char path[64], line[256];
    long long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmRSS: %lld kB", &kb);
    if (f) fclose(f);
    return kb * 1024;
}

static void predicted_is_measured(const char *name, const char *model, int32_t n, int32_t stages)
{
    struct job j = {.model = model, .n = n, .c = plan_case_of_file(model, NULL, CONTEXT)};
    struct replica_rank ranks[LIMIT_RANKS];
    plan(&j, stages);
    start(&j);
    prompt(&j);
    assert_int_equal(crd_replica_ranks(j.replica, ranks), n);
    for (int32_t r = 0; r < n; r++) {
        struct clu_memory m;
        clu_cost_memory(&j.c->work, &j.place.layout.grid, r, &j.c->topo, j.place.layout.device[r], &m);
        int64_t want = clu_memory_fixed(&m) +
                       m.kv_block * clu_cost_hold(&j.c->work, N_PROMPT + 2),
                got = resident(ranks[r].pid);
        printf("%s rank %d of %d: predicted %.1f MB (weights %.1f, buffers %.1f, process %.1f), "
               "resident %.1f MB; weights held %.1f\n",
               name, r, n, (double)want / 1e6, (double)m.weights / 1e6, (double)m.buffers / 1e6,
               (double)m.process / 1e6, (double)got / 1e6, (double)ranks[r].weight_bytes / 1e6);
        assert_true(llabs(m.weights - ranks[r].weight_bytes) <=
                    MAX(ranks[r].weight_bytes / 100, 1 << 16));
        assert_int_equal(m.kv_block * N_BLOCKS, ranks[r].kv_bytes);
        /* one sequence uses one of the 32 rows of logits that are there for 32 */
        bool last = grid_stage_of(&j.place.layout.grid, r) == j.place.layout.grid.n_stages - 1;
        if (last)
            want -= 31LL * 4 *
                    (j.c->info.n_vocab +
                     MIN(j.place.layout.grid.share[r].vocab * 16, j.c->info.n_vocab));
        if (getenv("TESSERA_SANITIZED")) continue;
        assert_true(llabs(got - want) <= MAX(want * 3 / 100, INT64_C(32) << 20));
    }
    crd_replica_stop(j.replica, 5000000);
    clu_launch_stop(&j.workers, 5000000);
    rpc_server_close(j.server);
    crd_replica_close(j.replica);
    free(j.c);
}

static const char *demo_sized(void)
{
    const char *path = scratch_path("demo-sized");
    struct random_model m = {.arch = "llama",
                             .n_layer = 4,
                             .d_model = 128,
                             .n_head = 16,
                             .n_kv_head = 8,
                             .head_dim = 32,
                             .d_ffn = 512,
                             .vocab = 1536,
                             .tied = true,
                             .type = DTYPE_Q8_0,
                             .embd_type = DTYPE_Q8_0,
                             .seed = 3};
    assert_int_equal(random_model_write(&m, path), OK);
    return path;
}

static void a_small_model_on_one_and_three_ranks(void **state)
{
    (void)state;
    const char *path = demo_sized();
    predicted_is_measured("demo-sized", path, 1, 0);
    predicted_is_measured("demo-sized", path, 3, 0);
}

/* Its weights are zeros in a sparse file: as heavy in memory as any. */
static void a_0_5b_model_on_one_and_two_ranks(void **state)
{
    (void)state;
    const char *path = scratch_path("half-a-billion");
    assert_int_equal(
        shape_model_write(shape_model_named("Qwen2.5-0.5B"), DTYPE_Q8_0, DTYPE_Q8_0, path), OK);
    predicted_is_measured("0.5B", path, 1, 0);
    predicted_is_measured("0.5B", path, 2, 0);
}

/* Buffers of experts; a dense layer and a shared expert beside. */
static void a_model_with_experts_on_two_ranks(void **state)
{
    (void)state;
    const char *path = scratch_path("experts");
    struct random_model m = {.arch = "qwen2moe",
                             .n_layer = 4,
                             .d_model = 1024,
                             .n_head = 16,
                             .n_kv_head = 8,
                             .head_dim = 64,
                             .d_ffn = 2048,
                             .n_expert = 16,
                             .n_used = 6,
                             .d_expert = 512,
                             .d_shared = 1024,
                             .n_dense = 1,
                             .vocab = 1536,
                             .type = DTYPE_Q8_0,
                             .embd_type = DTYPE_Q8_0,
                             .seed = 4};
    assert_int_equal(random_model_write(&m, path), OK);
    predicted_is_measured("experts", path, 2, 0);
    experts = CLU_EXPERTS_WHOLE;
    predicted_is_measured("whole experts", path, 2, 0);
    experts = CLU_EXPERTS_CUT;
}

/* A cache of one plane, buffers of heads' queries over the latent. */
static void a_model_with_a_latent_on_one_and_two_ranks(void **state)
{
    (void)state;
    const char *path = scratch_path("latent");
    struct random_model m = {.arch = "deepseek2",
                             .n_layer = 4,
                             .d_model = 1024,
                             .n_head = 32,
                             .n_kv_head = 1,
                             .head_dim = 64,
                             .latent = 512,
                             .q_latent = 512,
                             .rope_part = 64,
                             .d_ffn = 2048,
                             .vocab = 1536,
                             .type = DTYPE_Q8_0,
                             .embd_type = DTYPE_Q8_0,
                             .seed = 5};
    assert_int_equal(random_model_write(&m, path), OK);
    predicted_is_measured("latent", path, 1, 0);
    predicted_is_measured("latent", path, 2, 0);
}

/* Layers of a window beside others, in blocks that they share; both kinds of cut. */
static void models_with_windows_by_tensor_ranks_and_stages(void **state)
{
    (void)state;
    const char *path = scratch_path("windows");
    struct random_model gemma = {.arch = "gemma3", .n_layer = 12, .d_model = 1024, .n_head = 16, .n_kv_head = 8, .head_dim = 64, .d_ffn = 4096,
                                 .window = 128, .vocab = 8000, .tied = true, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0,
                                 .vocab_kind = RANDOM_VOCAB_SPM, .seed = 6};
    struct random_model oss = {.arch = "gpt-oss", .n_layer = 6, .d_model = 1024, .n_head = 16, .n_kv_head = 8, .head_dim = 64, .d_ffn = 1024,
                               .n_expert = 16, .n_used = 4, .d_expert = 1024, .window = 128, .vocab = 8000, .type = DTYPE_Q8_0,
                               .embd_type = DTYPE_Q8_0, .seed = 7};
    assert_int_equal(random_model_write(&gemma, path), OK);
    predicted_is_measured("windows", path, 2, 1);
    predicted_is_measured("windows", path, 2, 2);
    assert_int_equal(random_model_write(&oss, path), OK);
    predicted_is_measured("windows and experts", path, 2, 1);
    predicted_is_measured("windows and experts", path, 2, 2);
}

/* DeepSeek's shape: a latent, a dense layer, experts in groups and a shared one. */
static void a_model_with_a_latent_and_experts_by_tensor_ranks_and_stages(void **state)
{
    (void)state;
    const char *path = scratch_path("latent-experts");
    struct random_model m = {.arch = "deepseek2", .n_layer = 6, .d_model = 1024, .n_head = 16, .n_kv_head = 1, .head_dim = 64, .latent = 512,
                             .q_latent = 512, .rope_part = 64, .d_ffn = 2048, .n_expert = 16, .n_used = 4, .d_expert = 512, .d_shared = 512,
                             .n_dense = 1, .n_group = 4, .n_group_used = 2, .sigmoid = true, .vocab = 8000, .type = DTYPE_Q8_0,
                             .embd_type = DTYPE_Q8_0, .seed = 8};
    assert_int_equal(random_model_write(&m, path), OK);
    predicted_is_measured("latent and experts", path, 2, 1);
    predicted_is_measured("latent and experts", path, 2, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_model_on_one_and_three_ranks),
        cmocka_unit_test(a_0_5b_model_on_one_and_two_ranks),
        cmocka_unit_test(a_model_with_experts_on_two_ranks),
        cmocka_unit_test(a_model_with_a_latent_on_one_and_two_ranks),
        cmocka_unit_test(models_with_windows_by_tensor_ranks_and_stages),
        cmocka_unit_test(a_model_with_a_latent_and_experts_by_tensor_ranks_and_stages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
