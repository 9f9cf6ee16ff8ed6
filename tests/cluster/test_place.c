/* The planner: level where machines are equal, in proportion where they are not, as good as trying
 * everything on small clusters, and honest about what does not fit. */
#include "base/rng.h"
#include "base/tree.h"
#include "engine/model/shard.h"
#include "tests/support/plan_case.h"
#include "tests/support/env.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static struct clu_place place, other; /* large */

/* n hosts of one device each. */
static void equal_hosts(struct clu_topo *t, int32_t n, double gib, double latency_s, double bytes_s)
{
    clu_topo_init(t);
    t->wire = (struct clu_wire){latency_s, bytes_s};
    t->n_hosts = t->n_devices = n;
    for (int32_t i = 0; i < n; i++) {
        t->hosts[i] = (struct clu_host){.packages = 1,
                                        .cores = 8,
                                        .threads = 8,
                                        .numa = 1,
                                        .disk_bytes_s = 1e9,
                                        .local = {2e-6, 8e9}};
        snprintf(t->hosts[i].name, CLU_NAME, "h%d", i);
        t->devices[i] = (struct clu_device){.kind = CLU_CPU,
                                            .name = "cpu",
                                            .host = i,
                                            .cores = 8,
                                            .mem_bytes = (int64_t)(gib * 0x1p30),
                                            .read_bytes_s = 50e9,
                                            .ops_s = 4e12};
    }
}

/* ---- level ---- */

static void llama_70b_is_level_on_3_5_6_and_7_ranks(void **state)
{
    (void)state;
    static const struct {
        int32_t n;
        double within;
    } cases[] = {{2, 1.000001}, {3, 1.015},  {4, 1.000001}, {5, 1.0295},
                 {6, 1.015},    {7, 1.0295}, {8, 1.000001}};
    struct plan_case *c = plan_case_open("Llama-3-70B", DTYPE_Q8_0, DTYPE_Q8_0, NULL, 4096);
    int32_t device[LIMIT_RANKS];
    for (int32_t i = 0; i < LIMIT_RANKS; i++) device[i] = i;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        equal_hosts(&c->topo, cases[i].n, 100, 1e-9, 1e15);
        struct clu_stage_fit f;
        struct clu_stage_try y = {.w = &c->work,
                                  .t = &c->topo,
                                  .device = device,
                                  .n = cases[i].n,
                                  .layers = 80,
                                  .rows = 1,
                                  .n_blocks = 16,
                                  .first = true,
                                  .last = true};
        clu_place_stage(&y, &f);
        assert_true(f.fits);
        double worst = 0, sum = 0;
        for (int32_t r = 0; r < cases[i].n; r++) {
            double work =
                2304.0 * f.share[r].heads / 8 +
                768.0 * f.share[r].ffn; /* weights of a KV group, of a leaf, in rows of d_model */
            worst = MAX(worst, work);
            sum += work;
        }
        printf("%d ranks: the worst has %.2f %% more than the mean\n", cases[i].n,
               100 * (worst * cases[i].n / sum - 1));
        assert_true(worst * cases[i].n / sum <= cases[i].within);
    }
    free(c);
}

static void half_the_machine_gets_half_the_work(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_Q8_0, DTYPE_Q8_0, NULL, 4096);
    equal_hosts(&c->topo, 2, 100, 1e-6, 10e9);
    c->topo.devices[1].read_bytes_s /= 3;
    c->topo.devices[1].ops_s /= 3;
    if (clu_place_find(&place, &c->work, &c->topo, &c->want)) fail_msg("%s", err_text());
    assert_int_equal(place.layout.grid.width[0], 2);
    const struct grid_share *s = place.layout.grid.share;
    int32_t fast = place.layout.device[0] == 0 ? 0 : 1;
    assert_int_equal(s[fast].heads, 24);
    assert_int_equal(s[!fast].heads, 8);
    assert_true(abs(s[fast].ffn - 3 * s[!fast].ffn) <= 2);
    /* and by memory: the second has room for little */
    equal_hosts(&c->topo, 2, 100, 1e-6, 10e9);
    c->topo.devices[1].mem_bytes = INT64_C(2) << 30;
    c->want.fixed_order = true;
    if (clu_place_find(&place, &c->work, &c->topo, &c->want)) fail_msg("%s", err_text());
    struct clu_memory m;
    clu_cost_memory(&c->work, &place.layout.grid, 1, &c->topo, 1, &m);
    assert_true(clu_memory_fixed(&m) + m.kv_block * 256 <= INT64_C(2) << 30);
    free(c);
}

static int32_t parts_sent(const struct grid *g, int32_t n_leaf)
{
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t n = 0;
    for (int32_t r = 0, at = 0; r < g->width[0]; at += g->share[r++].ffn)
        n += tree_maximal(n_leaf, at, at + g->share[r].ffn, nodes);
    return n;
}

/* The same three hosts: a fast link takes the level cut, a slow one sends fewer subtrees. */
static void a_slow_link_prefers_an_aligned_cut(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-70B", DTYPE_Q8_0, DTYPE_Q8_0, NULL, 4096);
    int32_t device[] = {0, 1, 2}, sent[2];
    for (int32_t i = 0; i < 2; i++) {
        struct clu_stage_fit f;
        equal_hosts(&c->topo, 3, 100, 1e-6, i ? 20e6 : 1e12);
        struct clu_stage_try y = {.w = &c->work,
                                  .t = &c->topo,
                                  .device = device,
                                  .n = 3,
                                  .layers = 80,
                                  .rows = 8,
                                  .n_blocks = 16};
        clu_place_stage(&y, &f);
        assert_true(f.fits);
        struct grid g = {.n_stages = 1, .width = {3}};
        memcpy(g.share, f.share, sizeof g.share);
        sent[i] = parts_sent(&g, 112);
    }
    printf("%d subtrees over a fast link, %d over a slow one\n", sent[0], sent[1]);
    assert_true(sent[1] < sent[0]);
    free(c);
}

/* ---- against trying everything ---- */

static struct plan_case *small_model(void)
{
    struct plan_case *c = xcalloc(1, sizeof *c);
    c->info = (struct model_info){.name = "small",
                                  .n_layers = 4,
                                  .d_model = 1024,
                                  .n_heads = 8,
                                  .n_kv_heads = 4,
                                  .head_dim = 128,
                                  .d_ffn = 4096,
                                  .n_vocab = 8000,
                                  .context = 4096,
                                  .kv = {.n_kv_heads = 4, .head_dim = 128}};
    c->weights = (struct model_weights){.n_layers = 4,
                                        .rope_dim = 128,
                                        .embd = {8192000, 8192000},
                                        .head = {8192000, 8192000},
                                        .ends = {4096, 4096}};
    for (int32_t i = 0; i < 4; i++)
        c->weights.layers[i] = (struct model_layer){
            {2 << 20, 2 << 20}, {1 << 20, 1 << 20}, {12 << 20, 12 << 20}, {8192, 8192}};
    c->work = (struct clu_work){.info = &c->info,
                                .weights = &c->weights,
                                .rates = &clu_rates_default,
                                .context = 1024,
                                .depth = 256,
                                .max_step_tokens = 64,
                                .n_slots = 8,
                                .kv_type = KV_F16};
    return c;
}

struct brute {
    struct plan_case *c;
    struct clu_layout l;
    double best;
    struct clu_layout best_l;
    int64_t looked;
};

static void say_layout(const char *who, const struct clu_layout *l)
{
    const struct grid *g = &l->grid;
    printf("  %s:", who);
    for (int32_t s = 0, r = 0; s < g->n_stages; s++) {
        printf(" [%d layers:", g->layers[s + 1] - g->layers[s]);
        for (int32_t k = 0; k < g->width[s]; k++, r++)
            printf(" device %d %d heads %d leaves %d tiles;", l->device[r], g->share[r].heads, g->share[r].ffn,
                   g->share[r].vocab);
        printf("]");
    }
    printf("\n");
}

static void judge(struct brute *b)
{
    struct clu_speed v;
    int64_t tokens = clu_cost_blocks(&b->c->work, &b->c->topo, &b->l, NULL) * LIMIT_BLOCK_TOKENS;
    b->looked++;
    if (tokens < b->c->work.context) return;
    clu_cost_decode(&b->c->work, &b->c->topo, &b->l,
                    (int32_t)MIN(b->c->want.users, tokens / b->c->work.context), &v);
    if (v.tok_s <= b->best) return;
    b->best = v.tok_s;
    b->best_l = b->l;
}

/* Shares of stage s from rank r on: what is left of heads (in groups of 2) and leaves; vocabulary
 * follows the leaves, as the planner has it. */
static void every_share(struct brute *b, int32_t s, int32_t r, int32_t heads, int32_t leaves)
{
    struct grid *g = &b->l.grid;
    if (s == g->n_stages) {
        judge(b);
        return;
    }
    int32_t first = grid_first(g, s), left = first + g->width[s] - 1 - r,
            tiles = leaf_vocab_tiles(b->c->info.n_vocab);
    for (int32_t h = left ? 1 : heads; h <= heads - left; h++)
        for (int32_t f = left ? 1 : leaves; f <= leaves - left; f++) {
            int32_t at = 16 - leaves;
            g->share[r] = (struct grid_share){2 * h, f, tiles * (at + f) / 16 - tiles * at / 16};
            if (left)
                every_share(b, s, r + 1, heads - h, leaves - f);
            else
                every_share(b, s + 1, r + 1, 4, 16);
        }
}

static void every_layers(struct brute *b, int32_t s, int32_t left)
{
    struct grid *g = &b->l.grid;
    if (s == g->n_stages - 1) {
        g->layers[s + 1] = 4;
        every_share(b, 0, 0, 4, 16);
        return;
    }
    for (int32_t k = 1; k <= left - (g->n_stages - 1 - s); k++) {
        g->layers[s + 1] = g->layers[s] + k;
        every_layers(b, s + 1, left - k);
    }
}

static void every_row(struct brute *b, int32_t at, uint32_t left)
{
    if (b->l.grid.n_stages && b->l.grid.n_stages <= 4) every_layers(b, 0, 4);
    for (uint32_t set = left; set; set = (set - 1) & left) {
        int32_t n = 0;
        for (int32_t i = 0; i < b->c->topo.n_devices; i++)
            if (set >> i & 1) b->l.device[at + n++] = i;
        b->l.grid.width[b->l.grid.n_stages++] = n;
        every_row(b, at + n, left & ~set);
        b->l.grid.n_stages--;
    }
}

static void random_cluster(struct clu_topo *t, uint64_t seed, uint64_t i)
{
    int32_t n = 1 + (int32_t)(rng_at(seed, i, 0, 0) % 3);
    static const double gib[] = {0.06, 0.09, 0.12, 0.2, 0.5, 2}, latency[] = {2e-6, 20e-6, 200e-6},
                        rate[] = {20e6, 117e6, 1.2e9, 12e9};
    equal_hosts(t, n, 1, latency[rng_at(seed, i, 1, 0) % 3], rate[rng_at(seed, i, 2, 0) % 4]);
    for (int32_t k = 0; k < n; k++) {
        struct clu_device *d = &t->devices[k];
        d->host = rng_at(seed, i, 3, (uint64_t)k) % 3 ? k : 0;
        d->mem_bytes = (int64_t)(gib[rng_at(seed, i, 4, (uint64_t)k) % 6] * 0x1p30);
        d->read_bytes_s = 5e9 * (double)(1 + rng_at(seed, i, 5, (uint64_t)k) % 8);
        d->ops_s = 2e11 * (double)(1 + rng_at(seed, i, 6, (uint64_t)k) % 8);
    }
}

static void small_clusters_are_planned_as_well_as_by_trying_everything(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    struct plan_case *c = small_model();
    struct clu_rates rates = clu_rates_default;
    int64_t looked = 0;
    int32_t fitting = 0;
    double loss = 1, worst = 1;
    rates.process_bytes = 1 << 20; /* the machines are toys too */
    c->work.rates = &rates;
    /* the last three are clusters where a cut with room to spare once hid a faster one with less */
    static const struct { uint64_t seed, cluster; } found[] = {{818, 36}, {909, 12}, {1339, 3}};
    for (uint64_t k = 0; k < 40 + COUNT_OF(found); k++) {
        struct brute b = {.c = c, .l = {.grid = {.shared = true}}};
        uint64_t from = k < 40 ? seed : found[k - 40].seed, i = k < 40 ? k : found[k - 40].cluster;
        random_cluster(&c->topo, from, i);
        c->want = (struct clu_want){.users = 1 + (int32_t)(rng_at(from, i, 7, 0) % 4)};
        every_row(&b, 0, (1u << c->topo.n_devices) - 1);
        looked += b.looked;
        enum err e = clu_place_find(&place, &c->work, &c->topo, &c->want);
        if (e && b.best > 0)
            fail_msg("cluster %llu: %.1f tok/s were possible, but: %s", (unsigned long long)i,
                     b.best, err_text());
        if (!e && b.best <= 0)
            fail_msg("cluster %llu: a placement where none is possible", (unsigned long long)i);
        if (e) continue;
        fitting++;
        worst = MIN(worst, place.judged.tok_s / b.best);
        if (place.judged.tok_s < b.best * 0.99) {
            say_layout("the planner", &place.layout);
            say_layout("the best", &b.best_l);
            fail_msg("cluster %llu: %.2f tok/s, %.2f were possible", (unsigned long long)i,
                     place.judged.tok_s, b.best);
        }
        c->want.effort = 1;
        if (clu_place_find(&other, &c->work, &c->topo, &c->want))
            fail_msg("cluster %llu: the beam finds nothing", (unsigned long long)i);
        loss = MIN(loss, other.judged.tok_s / b.best);
    }
    printf("%d clusters fit; %lld layouts tried; the planner reaches at least %.2f %% of the best, "
           "the beam %.1f %%\n",
           fitting, (long long)looked, 100 * worst, 100 * loss);
    assert_true(fitting > 10);
    assert_true(loss > 0.6);
    free(c);
}

/* ---- what fits ---- */

static void more_memory_never_fits_less(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_Q4_K, DTYPE_Q6_K, NULL, 4096);
    for (uint64_t i = 0; i < 12; i++) {
        int32_t n = 1 + (int32_t)(rng_at(seed, i, 0, 0) % 6);
        bool fit = false;
        int64_t tokens = 0;
        c->want.effort = CLU_EFFORT_PROBE;
        for (double scale = 0.5; scale < 12; scale *= 1.15) {
            equal_hosts(&c->topo, n, scale, 20e-6, 1.2e9);
            for (int32_t k = 0; k < n; k++)
                c->topo.devices[k].mem_bytes =
                    (int64_t)(scale * 0x1p30 * (double)(1 + rng_at(seed, i, 1, (uint64_t)k) % 3));
            bool yes = !clu_place_find(&place, &c->work, &c->topo, &c->want);
            if (fit && !yes)
                fail_msg("%d devices: fits with less than %.2f GiB, not with that", n, scale);
            fit = yes;
            tokens = yes ? place.n_blocks : tokens;
        }
        assert_true(fit && tokens > 0);
    }
    free(c);
}

static void refusals_name_the_amount_and_remedies_that_work(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-70B", DTYPE_Q8_0, DTYPE_Q8_0, NULL, 8192);
    char text[1024];
    equal_hosts(&c->topo, 3, 22, 20e-6, 3e9);
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), ERR_NO_FIT);
    snprintf(text, sizeof text, "%s", err_text());
    printf("%s\n", text);
    double missing, card;
    const char *at = strstr(text, "; ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "; %lf GB are missing", &missing), 1);
    assert_non_null(at = strstr(text, "one more device of "));
    assert_int_equal(sscanf(at, "one more device of %lf GB", &card), 1);
    assert_non_null(strstr(text, "a Q6_K file"));
    /* the amount: with it, it fits; with 10 % less, not */
    for (int32_t i = 0; i < 2; i++) {
        equal_hosts(&c->topo, 3, 22, 20e-6, 3e9);
        for (int32_t k = 0; k < 3; k++)
            c->topo.devices[k].mem_bytes += (int64_t)(missing * (i ? 0.9 : 1.0) * 1e9 / 3);
        assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), i ? ERR_NO_FIT : OK);
    }
    equal_hosts(&c->topo, 4, 22, 20e-6, 3e9);
    c->topo.devices[3].mem_bytes = (int64_t)(card * 1e9);
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), OK);
    free(c);
    /* a context that would fit is named */
    c = plan_case_open("Llama-3-8B", DTYPE_Q4_K, DTYPE_Q6_K, NULL, 8192);
    equal_hosts(&c->topo, 1, 5.6, 20e-6, 3e9);
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), ERR_NO_FIT);
    printf("%s\n", err_text());
    int32_t context;
    assert_non_null(at = strstr(err_text(), "--context "));
    assert_int_equal(sscanf(at, "--context %d", &context), 1);
    c->work.context = context;
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), OK);
    free(c);
}

/* ---- on the machines of the tree ---- */

/* 235 G parameters, of which a token is multiplied with 22: all of them lie in memory, each rank's experts cut like its leaves, and few are read. */
static void experts_weigh_in_memory_and_not_in_a_token(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Qwen3-235B-A22B", DTYPE_Q8_0, DTYPE_Q8_0, "cluster-16", 8192);
    struct plan_case *dense = plan_case_open("Llama-3-70B", DTYPE_Q8_0, DTYPE_Q8_0, "cluster-16", 8192);
    assert_true(c->info.n_params > 234 * INT64_C(1000000000) && c->info.n_params < 236 * INT64_C(1000000000));
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), OK);
    double all = 0, per = 0;
    for (int32_t r = 0; r < place.n_ranks; r++) {
        struct clu_memory m;
        clu_cost_memory(&c->work, &place.layout.grid, r, &c->topo, place.layout.device[r], &m);
        all += (double)m.weights;
        double layers = place.layout.grid.layers[grid_stage_of(&place.layout.grid, r) + 1] - place.layout.grid.layers[grid_stage_of(&place.layout.grid, r)];
        per = MAX(per, (double)m.weights / layers);
    }
    double values = (double)c->info.n_params * 8.5 / 8; /* Q8_0: 34 bytes for 32 values */
    printf("%.1f GB on %d ranks together, %.1f by the parameters\n", all / 1e9, place.n_ranks, values / 1e9);
    assert_true(all > values * 0.99 && all < values * 1.06); /* KV heads and small tensors lie on several ranks */
    assert_true(per * place.layout.grid.width[0] < 1.3 * all / c->info.n_layers);
    double one = place.decode[0].round_s, eight = place.decode[1].round_s;
    assert_int_equal(clu_place_of(&other, &c->work, &c->topo, &c->want, &place.layout), OK);
    assert_true(one < eight && eight < 8 * one); /* eight choose other experts, but not eight times as many */
    /* one token of it is faster than one of the dense model that is a third as large */
    assert_int_equal(clu_place_find(&other, &dense->work, &dense->topo, &dense->want), OK);
    assert_true(place.decode[0].tok_s > other.decode[0].tok_s);
    /* the same on a laptop: no remedy that is larger than what does not fit */
    struct plan_case *small = plan_case_open("Mixtral-8x7B", DTYPE_Q4_K, DTYPE_Q6_K, "laptop-8core", 8192);
    assert_int_equal(clu_place_find(&place, &small->work, &small->topo, &small->want), ERR_NO_FIT);
    if (strstr(err_text(), " file")) fail_msg("%s", err_text());
    free(c);
    free(dense);
    free(small);
}

static void check_layout(const struct plan_case *c, const char *machine, const struct clu_place *p)
{
    const struct grid *g = &p->layout.grid;
    struct eng_spec s = {.n_layers = c->info.n_layers,
                         .d_model = c->info.d_model,
                         .n_heads = c->info.n_heads,
                         .n_kv_heads = c->info.n_kv_heads,
                         .head_dim = c->info.head_dim,
                         .d_ffn = c->info.d_ffn,
                         .n_vocab = c->info.n_vocab,
                         .mla = {.kv_rank = c->info.latent.rank, .key = c->info.latent.key, .rope = c->info.latent.rope},

                         .window = c->info.window};
    memcpy(s.local, c->info.windowed, sizeof s.local);
    bool used[LIMIT_RANKS] = {false};
    snprintf(s.name, sizeof s.name, "%s", c->info.name);
    assert_int_equal(g->layers[0], 0);
    assert_int_equal(g->layers[g->n_stages], c->info.n_layers);
    for (int32_t i = 0; i < g->n_stages; i++) assert_true(g->layers[i] < g->layers[i + 1]);
    for (int32_t r = 0; r < p->n_ranks; r++) {
        struct eng_shard h;
        struct clu_memory m;
        if (eng_shard_of(&h, &s, g, r)) fail_msg("%s: %s", machine, err_text());
        assert_false(used[p->layout.device[r]]);
        used[p->layout.device[r]] = true;
        clu_cost_memory(&c->work, g, r, &c->topo, p->layout.device[r], &m);
        assert_true(clu_memory_fixed(&m) + m.kv_block * p->n_blocks <=
                    c->topo.devices[p->layout.device[r]].mem_bytes);
        assert_int_equal(m.kv_block, eng_shard_kv_block_bytes(&h, &s, KV_F16, c->work.context));
    }
    assert_true(clu_cost_room(&c->work, p->n_blocks) >= c->work.context);
    assert_true(p->judged.tok_s > 0 && isfinite(p->judged.tok_s) && p->prefill.tok_s > 0 &&
                p->load_s > 0);
}

/* KV of full contexts, written layer by layer: what a layer with a window keeps of each, and what the rest does. */
static void windows_weigh_what_they_keep(void **state)
{
    static const struct { const char *model; int32_t context, windowed; double share; } models[] = {
        {"Gemma-3-27B", 32768, 52, 0.20}, {"Gemma-3-27B", 1024, 0, 1.0}, {"gpt-oss-20B", 32768, 12, 0.51},
        {"gpt-oss-20B", 1024, 12, 0.62},  {"Mistral-7B-v0.1", 32768, 32, 0.13}, {"Llama-3-8B", 8192, 0, 1.0}};
    enum { USERS = 8, T = LIMIT_BLOCK_TOKENS };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct plan_case *c = plan_case_open(models[i].model, DTYPE_Q8_0, DTYPE_Q8_0, "two-sockets", models[i].context);
        const struct model_info *m = &c->info;
        const double row = 2.0 * m->n_kv_heads * m->head_dim * 2;
        const bool windows = m->window && m->window < models[i].context;
        double sum = 0, whole = row * m->n_layers * models[i].context * USERS, kv = 0;
        int32_t n = 0;
        for (int32_t l = 0; l < m->n_layers; l++) {
            bool kept = windows && m->windowed[l];
            n += kept;
            sum += row * USERS * (kept ? ROUND_UP(m->window - 1, T) + T : models[i].context);
        }
        assert_int_equal(n, models[i].windowed);
        c->want.need_tokens = c->want.kv_tokens = (int64_t)USERS * models[i].context;
        if (clu_place_find(&place, &c->work, &c->topo, &c->want)) fail_msg("%s", err_text());
        check_layout(c, "two-sockets", &place);
        for (int32_t r = 0; r < place.n_ranks; r++) {
            struct clu_memory y;
            clu_cost_memory(&c->work, &place.layout.grid, r, &c->topo, place.layout.device[r], &y);
            kv += (double)y.kv_block * (double)place.n_held;
        }
        printf("%s, %d users of %d tokens: %.2f GB of KV, %.2f if nothing had a window\n", models[i].model, USERS, models[i].context, kv / 1e9,
               whole / 1e9);
        /* a step's chunk and planes that no layer uses, and no more */
        double chunk = row * n * c->work.max_step_tokens;
        assert_true(kv >= sum && kv <= 1.12 * (sum + chunk));
        assert_true(kv <= models[i].share * whole + 1 && kv >= 0.8 * models[i].share * whole);
        assert_int_equal(clu_cost_room(&c->work, place.n_held), c->want.kv_tokens);
        free(c);
    }
}

static void every_machine_gets_a_placement_the_engine_accepts(void **state)
{
    (void)state;
    static const char *const models[] = {"Llama-3-70B", "Qwen2.5-72B", "Llama-3-8B", "Qwen2.5-0.5B",
                                         "Llama-2-7B", "Mixtral-8x7B", "Qwen3-235B-A22B",
                                         "Gemma-3-27B", "gpt-oss-20B", "DeepSeek-V2-Lite"};
    int32_t fits = 0, not = 0;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        DIR *d = opendir("tests/machines");
        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));) {
            char name[64];
            char *dot;
            snprintf(name, sizeof name, "%.60s", e->d_name);
            if (!(dot = strstr(name, ".topo"))) continue;
            *dot = 0;
            struct plan_case *c = plan_case_open(models[i], DTYPE_Q8_0, DTYPE_Q8_0, name, 4096);
            clock_t t0 = clock();
            c->want.effort = c->topo.n_devices > 4 ? 0 : 1;
            enum err err = clu_place_find(&place, &c->work, &c->topo, &c->want);
            double s = (double)(clock() - t0) / CLOCKS_PER_SEC;
            if (err) {
                assert_int_equal(err, ERR_NO_FIT);
                not ++;
            } else {
                fits++;
                check_layout(c, name, &place);
                if (s > 10) fail_msg("%s on %s took %.1f s", models[i], name, s);
            }
            c->want.fixed_order = true;
            c->want.effort = CLU_EFFORT_PROBE;
            if (!clu_place_find(&place, &c->work, &c->topo, &c->want)) {
                check_layout(c, name, &place);
                assert_int_equal(place.n_ranks, c->topo.n_devices);
                for (int32_t r = 0; r < place.n_ranks; r++)
                    assert_int_equal(place.layout.device[r], r);
            }
            free(c);
        }
        closedir(d);
    }
    printf("%d placements, %d refusals\n", fits, not );
    assert_true(fits > 60 && not > 5);
}

/* Of DeepSeek V3 a token leaves 576 values in each layer's cache, whatever the heads: 70 KB in f16, on every rank of a stage. */
static void a_latent_is_counted_once(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("DeepSeek-V3", DTYPE_Q4_K, DTYPE_Q6_K, "cluster-64", 8192);
    const struct model_info *m = &c->info;
    assert_int_equal(m->kv.kind, KV_LATENT);
    assert_int_equal(leaf_kv_row_bytes(&m->kv, KV_F16), 576 * 2);
    assert_int_equal(leaf_kv_row_bytes(&m->kv, KV_Q8_0), 576 + 18 * 2);
    assert_int_equal(leaf_kv_block_bytes(&m->kv, m->n_layers, m->n_kv_heads, KV_F16), INT64_C(61) * 576 * 2 * 16);
    assert_true(m->n_params > INT64_C(670000000000) && m->n_params < INT64_C(673000000000));
    for (int32_t tp = 1; tp <= 16; tp *= 4) {
        struct grid g = {.n_stages = 2, .layers = {0, 30, 61}, .width = {tp, tp}};
        struct clu_memory mem;
        for (int32_t r = 0; r < 2 * tp; r++) {
            clu_cost_memory(&c->work, &g, r, &c->topo, 0, &mem);
            assert_int_equal(mem.kv_block, INT64_C(576) * 2 * 16 * (r < tp ? 30 : 31));
        }
    }
    /* heads are dealt one by one, also to unlike machines: half of them would be more than the slow one's part of all work */
    struct plan_case *two = plan_case_open("DeepSeek-V2-Lite", DTYPE_Q8_0, DTYPE_Q8_0, NULL, 4096);
    equal_hosts(&two->topo, 2, 100, 1e-6, 10e9);
    two->topo.devices[1].read_bytes_s /= 30, two->topo.devices[1].ops_s /= 30;
    two->want.fixed_order = true;
    two->want.users = 1; /* more would read more experts, beside whom heads are nothing */
    if (clu_place_find(&place, &two->work, &two->topo, &two->want)) fail_msg("%s", err_text());
    const struct grid *g = &place.layout.grid;
    printf("%d stages, heads %d and %d\n", g->n_stages, g->share[0].heads, g->share[1].heads);
    assert_int_equal(g->width[0], 2);
    assert_true(g->share[0].heads > 10 && g->share[1].heads >= 1);
    free(c);
    free(two);
}

/* Whole experts: what lies in memory is the same in sum and level; one token's wait for the rank that has most of them, many spread. */
static void whole_experts_are_level_only_for_many(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Qwen3-235B-A22B", DTYPE_Q8_0, DTYPE_Q8_0, NULL, 8192);
    equal_hosts(&c->topo, 4, 200, 1e-6, 10e9);
    for (int32_t i = 0; i < 4; i++) c->topo.devices[i].mem_bytes = INT64_C(256) << 30;
    if (clu_place_find(&place, &c->work, &c->topo, &c->want)) fail_msg("%s", err_text());
    struct clu_layout cut = place.layout, whole = place.layout;
    whole.grid.whole_experts = true;
    int64_t sum[2] = {0};
    for (int32_t r = 0; r < place.n_ranks; r++) {
        struct clu_memory a, b;
        clu_cost_memory(&c->work, &cut.grid, r, &c->topo, r, &a);
        clu_cost_memory(&c->work, &whole.grid, r, &c->topo, r, &b);
        sum[0] += a.weights, sum[1] += b.weights;
        assert_true((double)b.weights < 1.01 * (double)a.weights && (double)b.weights > 0.99 * (double)a.weights);
        assert_true(b.buffers >= a.buffers);
    }
    assert_true(sum[1] > sum[0] / 1000 * 999 && sum[1] < sum[0] / 1000 * 1001);
    double ratio[2];
    for (int32_t i = 0; i < 2; i++) {
        struct clu_speed a, b;
        clu_cost_decode(&c->work, &c->topo, &cut, i ? 64 : 1, &a);
        clu_cost_decode(&c->work, &c->topo, &whole, i ? 64 : 1, &b);
        ratio[i] = b.tok_s / a.tok_s;
    }
    printf("%d ranks: whole experts give %.2f of the speed for one user, %.2f for 64\n", place.n_ranks, ratio[0], ratio[1]);
    assert_true(place.n_ranks == 4 && ratio[0] < 0.85 && ratio[1] > ratio[0] + 0.05);
    /* asked for, they are taken; with the choice left open the faster of the two is */
    c->want.experts = CLU_EXPERTS_WHOLE;
    if (clu_place_find(&place, &c->work, &c->topo, &c->want)) fail_msg("%s", err_text());
    assert_true(place.layout.grid.whole_experts && clu_place_whole(&c->work, &c->topo, &c->want, &cut));
    for (int32_t i = 0; i < 2; i++) {
        c->want.experts = CLU_EXPERTS_AUTO;
        c->want.users = i ? 64 : 1;
        if (clu_place_find(&place, &c->work, &c->topo, &c->want)) fail_msg("%s", err_text());
        const double *s = place.experts_tok_s;
        assert_true(place.layout.grid.whole_experts == (s[1] > 1.03 * s[0]));
        assert_true(place.layout.grid.whole_experts == clu_place_whole(&c->work, &c->topo, &c->want, &place.layout));
    }
    free(c);
}

static void sixty_four_ranks_are_planned_in_a_second(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-70B", DTYPE_Q4_K, DTYPE_Q6_K, "cluster-64", 8192);
    clock_t t0 = clock();
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), OK);
    double s = (double)(clock() - t0) / CLOCKS_PER_SEC;
    printf("%.2f s, %lld placements looked at\n", s, (long long)place.n_looked);
    assert_true(s < 10); /* sanitizers and loaded machines; 0.2 s in a release build */
    for (int32_t i = 0; i < c->topo.n_devices; i++)
        c->topo.devices[i].mem_bytes += i * 1000003; /* no two alike */
    t0 = clock();
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), OK);
    s = (double)(clock() - t0) / CLOCKS_PER_SEC;
    printf("%.2f s when no two are alike\n", s);
    assert_true(s < 30);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_70b_is_level_on_3_5_6_and_7_ranks),
        cmocka_unit_test(half_the_machine_gets_half_the_work),
        cmocka_unit_test(a_slow_link_prefers_an_aligned_cut),
        cmocka_unit_test(small_clusters_are_planned_as_well_as_by_trying_everything),
        cmocka_unit_test(more_memory_never_fits_less),
        cmocka_unit_test(refusals_name_the_amount_and_remedies_that_work),
        cmocka_unit_test(experts_weigh_in_memory_and_not_in_a_token),
        cmocka_unit_test(whole_experts_are_level_only_for_many),
        cmocka_unit_test(a_latent_is_counted_once),
        cmocka_unit_test(windows_weigh_what_they_keep),
        cmocka_unit_test(every_machine_gets_a_placement_the_engine_accepts),
        cmocka_unit_test(sixty_four_ranks_are_planned_in_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
