/* What a card's rank has allocated once it is ready is in the plan: of emulated cards (tests/cuda_emu), which count bytes, without graphs. Both sums are
 * held against it: the planner's (cluster/cost.h), and what `serve` fits blocks by (eng_engine_need and the plan's card). */
#include "cluster/place.h"
#include "engine/engine.h"
#include "tests/cuda_emu/emu_counts.h"
#include "tests/support/local_replica.h"
#include "tests/support/plan_case.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_BLOCKS = 40, N_SLOTS = 16 };

struct how {
    const char *what;
    struct random_model m;
    int32_t tp, pp, context, step_tokens;
    enum kv_type kv;
    bool rounded, whole, nccl, direct;
};

static uint64_t held(void)
{
    struct cuda_emu_counts n = {0};
    void *lib = dlopen(getenv("TESSERA_CUDA_PLUGIN"), RTLD_NOW);
    cuda_emu_counted_fn *f = lib ? (cuda_emu_counted_fn *)dlsym(lib, "cuda_emu_counted") : NULL;
    assert_non_null(f);
    f(&n);
    dlclose(lib);
    return n.held;
}

/* Ranks on cards of one host, a card each, or the one that they share. */
static int64_t planned(const struct how *h, const char *path, const struct grid *g, int64_t *served)
{
    struct plan_case *c = plan_case_of_file(path, NULL, h->context);
    struct clu_rates rates = clu_rates_default;
    int64_t sum = 0;
    rates.graph_bytes = rates.process_bytes = 0; /* allowances for what is not counted here */
    rates.nccl_bytes = h->nccl ? 32 << 20 : 0; /* what we add up in, without the library's own */
    rates.card_units = 2;
    c->work.rates = &rates, c->work.max_step_tokens = h->step_tokens, c->work.n_slots = N_SLOTS, c->work.kv_type = h->kv, c->work.rounded = h->rounded;
    c->topo.n_hosts = 1, c->topo.n_devices = grid_ranks(g);
    for (int32_t r = 0; r < grid_ranks(g); r++) c->topo.devices[r] = (struct clu_device){.kind = CLU_GPU, .mem_bytes = INT64_C(8) << 30};
    *served = 0;
    for (int32_t r = 0; r < grid_ranks(g); r++) {
        struct clu_memory m;
        struct eng_engine_need need;
        clu_cost_memory(&c->work, g, r, &c->topo, r, &m);
        if (eng_engine_need(path, g, r, h->kv, h->step_tokens, h->context, &need)) fail_msg("%s", err_text());
        sum += clu_memory_fixed(&m) + N_BLOCKS * m.kv_block;
        *served += need.weight_bytes + need.buffer_bytes + N_BLOCKS * need.block_bytes + m.card;
        printf("  rank %d: weights %.3f (%.3f), buffers %.3f (%.3f), card %.3f, KV %.3f\n", r, (double)m.weights / 1e6, (double)need.weight_bytes / 1e6,
               (double)m.buffers / 1e6, (double)need.buffer_bytes / 1e6, (double)m.card / 1e6, (double)N_BLOCKS * (double)m.kv_block / 1e6);
    }
    free(c);
    return sum;
}

static void check(const struct how *h, const char *path)
{
    struct local_replica *r;
    struct grid g;
    int64_t served, plan;
    uint64_t before = held();
    if (eng_engine_grid(path, MAX(h->tp, 1), MAX(h->pp, 1), &g)) fail_msg("%s", err_text());
    g.whole_experts = h->whole;
    plan = planned(h, path, &g, &served);
    struct local_replica_conf c = {.path = path, .grid = &g, .context = h->context, .n_blocks = N_BLOCKS, .exact_blocks = true, .n_slots = N_SLOTS,
                                   .max_step_tokens = h->step_tokens, .kv_type = h->kv, .rounded = h->rounded, .on_device = 7,
                                   .nccl = h->nccl, .direct = h->direct};
    setenv("TESSERA_GRAPHS", "off", 1);
    if (local_replica_open(&r, &c)) fail_msg("%s: %s", h->what, err_text());
    unsetenv("TESSERA_GRAPHS");
    int64_t has = (int64_t)(held() - before);
    printf("%-28s allocated %.3f MB, planned %.3f, served by %.3f\n", h->what, (double)has / 1e6, (double)plan / 1e6, (double)served / 1e6);
    local_replica_close(r);
    assert_true(held() == before);
    if (has > plan || has > served) fail_msg("%s: %lld bytes allocated, %lld planned, %lld served by", h->what, (long long)has, (long long)plan,
                                             (long long)served);
}

static void what_cards_allocate_is_in_the_plan(void **state)
{
    static const struct random_model dense = {.arch = "llama", .n_layer = 4, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 1024,
                                              .vocab = 2000, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 1};
    static const struct random_model mixture = {.arch = "qwen3moe", .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 512,
                                                .vocab = 2000, .n_expert = 16, .n_used = 4, .d_expert = 384, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0,
                                                .seed = 2};
    static const struct random_model leaves = {.arch = "qwen3moe", .n_layer = 1, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 16384,
                                               .vocab = 500, .n_expert = 8, .n_used = 8, .d_expert = 2048, .type = DTYPE_Q4_0, .embd_type = DTYPE_Q8_0,
                                               .seed = 3};
    static const struct random_model latent = {.arch = "deepseek2", .latent = 64, .rope_part = 16, .n_layer = 2, .d_model = 256, .n_head = 8, .head_dim = 32, .n_kv_head = 8,
                                               .d_ffn = 512, .vocab = 500, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 4};
    static const struct random_model normed = {.arch = "olmo2", .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 8, .head_dim = 32, .d_ffn = 512,
                                               .vocab = 500, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 5};
    const struct how all[] = {
        {"dense", dense, .context = 512, .step_tokens = 256},
        {"long context", dense, .context = 8192, .step_tokens = 512},
        {"a step of few tokens", dense, .context = 4096, .step_tokens = 16},
        {"exact off", dense, .context = 512, .step_tokens = 256, .rounded = true},
        {"KV in fp8", dense, .context = 512, .step_tokens = 256, .kv = KV_FP8},
        {"KV in q8_0", dense, .context = 512, .step_tokens = 256, .kv = KV_Q8_0},
        {"tp 2, one card each, host", dense, .tp = 2, .context = 512, .step_tokens = 256},
        {"tp 2, nccl", dense, .tp = 2, .context = 512, .step_tokens = 256, .nccl = true},
        {"tp 3, nccl", dense, .tp = 3, .context = 512, .step_tokens = 256, .nccl = true},
        {"tp 2, direct", dense, .tp = 2, .context = 512, .step_tokens = 256, .direct = true},
        {"tp 3, direct", dense, .tp = 3, .context = 512, .step_tokens = 256, .direct = true},
        {"pp 2", dense, .pp = 2, .context = 512, .step_tokens = 256},
        {"experts", mixture, .context = 512, .step_tokens = 512},
        {"experts, exact off", mixture, .context = 512, .step_tokens = 512, .rounded = true},
        {"experts, tp 2", mixture, .tp = 2, .context = 512, .step_tokens = 512},
        {"experts whole, tp 2", mixture, .tp = 2, .whole = true, .context = 512, .step_tokens = 512},
        {"experts of many leaves", leaves, .context = 512, .step_tokens = 512},
        {"the same, tp 2", leaves, .tp = 2, .context = 512, .step_tokens = 512},
        {"a latent", latent, .context = 512, .step_tokens = 256},
        {"norms over all heads, tp 2", normed, .tp = 2, .context = 512, .step_tokens = 256},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        const char *path = scratch_path("card.gguf");
        if (random_model_write(&all[i].m, path)) fail_msg("%s: %s", all[i].what, err_text());
        check(&all[i], path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_cards_allocate_is_in_the_plan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
