/* limits.c: see limits.h. The best of several rounds counts: a limit is what the machine can do when
 * nobody disturbs it. */
#include "engine/bench/limits.h"

#include "engine/backend/backend.h"
#include "engine/backend/team.h"
#include "engine/bench/loops.h"
#include "engine/model/times.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ROUNDS = 6 };
static const int64_t ARRAY = 1LL << 30, SLACK = 1 << 16, HUGE = 2 << 20, DOTS = 4000000;

struct job {
    const struct bench_loops *loops;
    uint8_t *array;
    int64_t each; /* bytes of one thread */
    _Atomic uint64_t sum;
};

static void touch(void *arg, int32_t i, int32_t n)
{
    struct job *j = arg;
    (void)n;
    memset(j->array + i * j->each, i + 1, (size_t)j->each);
}

static void read_mine(void *arg, int32_t i, int32_t n)
{
    struct job *j = arg;
    (void)n;
    j->sum += j->loops->read(j->array + i * j->each, j->each);
}

static void dot(void *arg, int32_t i, int32_t n)
{
    (void)i, (void)n;
    ((struct job *)arg)->loops->dot(DOTS);
}

static void multiply_add(void *arg, int32_t i, int32_t n)
{
    (void)i, (void)n;
    ((struct job *)arg)->loops->fma(DOTS);
}

/* Work per second of the fastest round. */
static double best(struct eng_team *t, eng_team_fn fn, struct job *j, double work)
{
    int64_t least = INT64_MAX;
    for (int32_t i = 0; i < ROUNDS; i++) {
        int64_t t0 = eng_times_now();
        eng_team_run(t, fn, j);
        least = MIN(least, eng_times_now() - t0);
    }
    return work * 1e9 / (double)least;
}

static enum err pick(const struct bench_loops **out, const char *isa)
{
    const struct bench_loops *all[] = {
        &bench_loops_ref,
#if BENCH_HAVE_X86
        &bench_loops_avx2,
        &bench_loops_avx512,
#endif
#if BENCH_HAVE_AVXVNNI
        &bench_loops_avxvnni,
#endif
#if BENCH_HAVE_AMX
        &bench_loops_amx,
#endif
#if BENCH_HAVE_ARM64
        &bench_loops_neon,
        &bench_loops_dotprod,
        &bench_loops_i8mm,
#endif
    };
    for (size_t i = 0; i < COUNT_OF(all); i++)
        if (!strcmp(all[i]->name, isa)) {
            *out = all[i];
            return OK;
        }
    *out = &bench_loops_ref; /* an instruction set without loops of its own */
    return OK;
}

enum err bench_limits_measure(struct bench_limits *out, const char *isa, int32_t n_threads,
                              const int32_t *cpus)
{
    enum err rc;
    struct job j = {0};
    struct eng_team *t = NULL;
    int64_t bytes = 0;
    TRY(pick(&j.loops, isa));
    TRY(eng_team_open(&t, n_threads, cpus));
    j.each = ARRAY / n_threads / HUGE * HUGE;
    j.each = MAX(j.each, 32 * HUGE);
    bytes = j.each * n_threads + SLACK + HUGE;
    uint8_t *mem = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0);
    if (mem == MAP_FAILED) {
        rc = err_raise(ERR_NO_MEMORY, "no memory for %.1f GB to measure the read bandwidth with",
                       (double)bytes / 1e9);
        goto out;
    }
    (void)madvise(mem, (size_t)bytes, MADV_HUGEPAGE); /* slower without, not wrong */
    j.array = (uint8_t *)ROUND_UP((uintptr_t)mem, (uintptr_t)HUGE);
    eng_team_run(t, touch, &j);
    double n = n_threads;
    *out = (struct bench_limits){
        .n_threads = n_threads,
        .read_bytes_s = best(t, read_mine, &j, (double)j.each * n),
        .dot_ops_s = best(t, dot, &j, n * (double)DOTS * j.loops->dot_ops),
        .fma_ops_s = best(t, multiply_add, &j, n * (double)DOTS * j.loops->fma_ops),
    };
    munmap(mem, (size_t)bytes);
out:
    eng_team_close(t);
    return rc;
}

/* ---- a device ---------------------------------------------------------------------------------------- */

enum { COPY_MAX = 1 << 30, COPIES = 20 };

/* Seconds of one copy, the fastest round's. */
static enum err time_copy(struct eng_backend *be, uint8_t *p, int64_t bytes, double *s)
{
    enum err rc = OK;
    int64_t least = INT64_MAX;
    for (int32_t i = 0; i < ROUNDS; i++) {
        int64_t t0 = eng_times_now();
        for (int32_t k = 0; k < COPIES; k++) TRY(eng_backend_copy(be, p + bytes, p, bytes));
        TRY(eng_backend_sync(be));
        least = MIN(least, eng_times_now() - t0);
    }
    *s = (double)least * 1e-9 / COPIES;
out:
    return rc;
}

enum err bench_limits_device(struct bench_limits *out, const char *device)
{
    enum err rc;
    struct eng_backend *be = NULL;
    struct plugin_device_info info;
    char name[24];
    int32_t n;
    void *p;
    double s;
    TRY(eng_backend_choose(device, 0, name, &n, &info));
    TRY(eng_backend_open(&be, name, "auto"));
    int64_t bytes = MAX(MIN((int64_t)COPY_MAX, info.free_bytes / 4) / 4096 * 4096, 4096);
    TRY(eng_backend_alloc(be, ENG_MEMORY_STEP, &p, 2 * bytes));
    TRY(time_copy(be, p, bytes, &s));
    *out = (struct bench_limits){.n_threads = 1, .read_bytes_s = 2.0 * (double)bytes / s, .dot_ops_s = info.ops_s, .fma_ops_s = info.ops_s / 2};
out:
    eng_backend_close(be);
    return rc;
}
