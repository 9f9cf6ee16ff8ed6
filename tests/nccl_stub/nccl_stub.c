/* nccl_stub.c: see nccl_stub.h. An operation is a list of transfers to and from other ranks, each pair of ranks having a ring in the
 * communicator's shared memory; who executes it moves what can be moved until all are done, or the communicator is aborted. */
#include "tests/nccl_stub/nccl_stub.h"

#include "transport/nccl_lib.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RANKS = 16, RING = 1 << 16, MAX_GROUP = 4096, SPINS = 100 };
enum { SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6, IN_PROGRESS = TRN_NCCL_IN_PROGRESS };
enum { COLLECTIVES = 1u << MAX_RANKS, PATIENCE_MS = 20000 };

struct ring {
    _Alignas(64) _Atomic uint64_t written;
    _Alignas(64) _Atomic uint64_t read;
    unsigned char data[RING];
};

struct shared {
    _Atomic int present[MAX_RANKS];
    struct ring ring[MAX_RANKS][MAX_RANKS]; /* [from][to] */
};

struct trn_nccl_comm {
    struct shared *s;
    int rank, size;
    _Atomic int n_refs, n_ops, error; /* error: learned by asking */
    _Atomic int n_replayed, n_kept;   /* operations; captured and not yet dropped */
    _Atomic bool aborted, answered;   /* answered: "in progress" once */
    bool ready, finalizing;
    uint32_t used;                    /* peers that messages went to or from; COLLECTIVES */
    char path[64];
};

struct transfer { bool out; int peer; unsigned char *p; size_t n, done; };

struct op {
    trn_nccl_comm c;
    struct nccl_stub_stream *stream;
    int n;
    bool hangs;
    float *sum, *sum_parts; /* of an all_reduce: where to, what came; or NULL */
    size_t sum_n;
    struct transfer t[];
};

#define EXPORT __attribute__((visibility("default")))

/* Is what NCCL_STUB orders this: "what:rank" or "what:rank:nth"? */
static bool ordered(const char *what, int rank, int nth)
{
    char text[64];
    const char *order = getenv("NCCL_STUB");
    if (!order) return false;
    snprintf(text, sizeof text, nth ? "%s:%d:%d" : "%s:%d", what, rank, nth);
    return !strcmp(order, text);
}

/* ---- moving bytes ---- */

static void copy(const struct op *o, void *dst, const void *src, size_t n)
{
    if (o->stream && o->stream->copy) o->stream->copy(dst, src, n);
    else memcpy(dst, src, n);
}

/* As much of t as the ring takes or gives now. */
static bool move(const struct op *o, struct transfer *t)
{
    struct ring *r = t->out ? &o->c->s->ring[o->c->rank][t->peer] : &o->c->s->ring[t->peer][o->c->rank];
    uint64_t w = atomic_load(&r->written), d = atomic_load(&r->read), at = t->out ? w : d;
    size_t can = t->out ? RING - (size_t)(w - d) : (size_t)(w - d), in = (size_t)(at % RING);
    if (can > t->n - t->done) can = t->n - t->done;
    if (can > RING - in) can = RING - in;
    if (!can) return false;
    if (t->out) copy(o, r->data + in, t->p + t->done, can);
    else copy(o, t->p + t->done, r->data + in, can);
    t->done += can;
    atomic_store(t->out ? &r->written : &r->read, at + can);
    return true;
}

static void drop(trn_nccl_comm c)
{
    if (atomic_fetch_sub(&c->n_refs, 1) != 1) return;
    if (c->s) munmap(c->s, sizeof *c->s);
    free(c);
}

/* From the last rank to the first: not the order of the tree. */
static void add_up(struct op *o)
{
    float *x = malloc(o->sum_n * sizeof *x), *part = malloc(o->sum_n * sizeof *part);
    memset(x, 0, o->sum_n * sizeof *x);
    for (int r = o->c->size - 1; r >= 0; r--) {
        copy(o, part, r == o->c->rank ? (const void *)o->t[0].p : (const void *)(o->sum_parts + (size_t)r * o->sum_n), o->sum_n * sizeof *x);
        for (size_t i = 0; i < o->sum_n; i++) x[i] += part[i];
    }
    copy(o, o->sum, x, o->sum_n * sizeof *x);
    free(x);
    free(part);
}

static void run(void *arg)
{
    struct op *o = arg;
    int idle = 0;
    for (bool all = false; !all && !atomic_load(&o->c->aborted);) {
        bool moved = false;
        uint32_t begun[2] = {0, 0}; /* peers that have an unfinished transfer before this one */
        all = true;
        if (o->hangs) all = false;
        for (int i = 0; i < o->n && !o->hangs; i++) {
            struct transfer *t = &o->t[i];
            if (t->done == t->n) continue;
            if (!(begun[t->out] >> t->peer & 1)) moved |= move(o, t);
            if (t->done < t->n) begun[t->out] |= 1u << t->peer, all = false;
        }
        idle = moved ? 0 : idle + 1;
        if (!all && !moved && idle < SPINS) sched_yield();
        else if (!all && !moved) nanosleep(&(struct timespec){0, 20000}, NULL);
    }
    if (o->sum && !atomic_load(&o->c->aborted)) add_up(o);
    drop(o->c);
    free(o->sum_parts);
    free(o);
}

/* ---- captured ---- */

static struct op *twin(const struct op *o)
{
    size_t bytes = sizeof *o + (size_t)o->n * sizeof *o->t;
    struct op *x = malloc(bytes);
    memcpy(x, o, bytes);
    atomic_fetch_add_explicit(&o->c->n_refs, 1, memory_order_relaxed); /* orders nothing, as the real library's call does not */
    if (!o->sum) return x;
    x->sum_parts = malloc((size_t)o->c->size * o->sum_n * sizeof *o->sum + 1);
    for (int i = 0; i < x->n; i++)
        if (!x->t[i].out) x->t[i].p = (unsigned char *)(x->sum_parts + (size_t)x->t[i].peer * o->sum_n);
    return x;
}

static void replay(void *arg)
{
    struct op *x = twin(arg);
    int nth = atomic_fetch_add(&x->c->n_replayed, 1) + 1;
    x->hangs = ordered("hang_replayed", x->c->rank, nth);
    run(x);
}

static void forget(void *arg)
{
    struct op *o = arg;
    atomic_fetch_sub(&o->c->n_kept, 1);
    drop(o->c);
    free(o);
}

/* The real library would wait for ever. */
static void await_graphs(trn_nccl_comm c, const char *what)
{
    for (int i = 0; i < PATIENCE_MS && atomic_load(&c->n_kept); i++) nanosleep(&(struct timespec){0, 1000000}, NULL);
    if (!atomic_load(&c->n_kept)) return;
    fprintf(stderr, "nccl_stub: %s of a communicator whose operations are in graphs\n", what);
    abort();
}

/* ---- groups ---- */

static _Thread_local struct group { int depth, n; struct transfer t[MAX_GROUP]; trn_nccl_comm c; void *stream; } group;

/* what: as trn_nccl_comm.used. */
static int launch(trn_nccl_comm c, void *stream, const struct transfer t[], int n, float *sum, size_t sum_n, uint32_t what)
{
    int nth = atomic_fetch_add(&c->n_ops, 1) + 1;
    if (!c->ready) return INVALID_ARGUMENT;
    if (ordered("fail", c->rank, nth)) return SYSTEM_ERROR;
    if (ordered("async", c->rank, nth)) atomic_store(&c->error, REMOTE_ERROR);
    struct op *o = calloc(1, sizeof *o + (size_t)n * sizeof *t), *now;
    *o = (struct op){.c = c, .stream = stream, .n = n, .sum = sum, .sum_n = sum_n};
    for (int i = 0; i < n; i++) o->t[i] = t[i];
    atomic_store(&c->answered, false);
    if (o->stream && o->stream->record && o->stream->record(o->stream, replay, o, forget)) {
        atomic_fetch_add_explicit(&c->n_refs, 1, memory_order_relaxed); /* o is the stream's now */
        atomic_fetch_add(&c->n_kept, 1);
        return (what & ~c->used) ? INVALID_USAGE : IN_PROGRESS;
    }
    c->used |= what;
    now = twin(o);
    now->hangs = ordered("hang", c->rank, nth);
    free(o);
    if (now->stream && now->stream->push) now->stream->push(now->stream, run, now);
    else run(now);
    return IN_PROGRESS;
}

static uint32_t peers(const struct transfer t[], int n)
{
    uint32_t used = 0;
    for (int i = 0; i < n; i++) used |= 1u << t[i].peer;
    return used;
}

static int add(trn_nccl_comm c, void *stream, const struct transfer *t)
{
    struct group *g = &group;
    if (!g->depth) return launch(c, stream, t, 1, NULL, 0, peers(t, 1));
    if (g->n == MAX_GROUP) return INVALID_ARGUMENT;
    g->t[g->n++] = *t;
    g->c = c;
    g->stream = stream;
    return TRN_NCCL_SUCCESS;
}

static size_t size_of(int type) { return type == TRN_NCCL_FLOAT32 ? 4 : 1; }

EXPORT int ncclGroupStart(void)
{
    if (!group.depth++) group.n = 0;
    return TRN_NCCL_SUCCESS;
}

EXPORT int ncclGroupEnd(void)
{
    struct group *g = &group;
    if (--g->depth || !g->n) return TRN_NCCL_SUCCESS;
    return launch(g->c, g->stream, g->t, g->n, NULL, 0, peers(g->t, g->n));
}

EXPORT int ncclSend(const void *from, size_t n, int type, int peer, trn_nccl_comm c, void *stream)
{
    return add(c, stream, &(struct transfer){true, peer, (unsigned char *)(uintptr_t)from, n * size_of(type), 0});
}

EXPORT int ncclRecv(void *to, size_t n, int type, int peer, trn_nccl_comm c, void *stream)
{
    return add(c, stream, &(struct transfer){false, peer, to, n * size_of(type), 0});
}

EXPORT int ncclAllGather(const void *from, void *to, size_t n, int type, trn_nccl_comm c, void *stream)
{
    struct transfer t[2 * MAX_RANKS];
    int k = 0;
    n *= size_of(type);
    unsigned char *own = (unsigned char *)to + (size_t)c->rank * n;
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank && own == from) continue;
        t[k++] = (struct transfer){true, r, (unsigned char *)(uintptr_t)from, n, 0};
        t[k++] = (struct transfer){false, r, (unsigned char *)to + (size_t)r * n, n, 0};
    }
    return launch(c, stream, t, k, NULL, 0, COLLECTIVES);
}

EXPORT int ncclBroadcast(const void *from, void *to, size_t n, int type, int root, trn_nccl_comm c, void *stream)
{
    struct transfer t[MAX_RANKS];
    int k = 0;
    n *= size_of(type);
    if (c->rank != root) t[k++] = (struct transfer){false, root, to, n, 0};
    for (int r = 0; r < c->size && c->rank == root; r++)
        if (r != root) t[k++] = (struct transfer){true, r, (unsigned char *)(uintptr_t)from, n, 0};
    return launch(c, stream, t, k, NULL, 0, COLLECTIVES);
}

EXPORT int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, trn_nccl_comm c, void *stream)
{
    struct transfer t[2 * MAX_RANKS];
    int k = 0;
    if (type != TRN_NCCL_FLOAT32 || op != TRN_NCCL_SUM) return INVALID_ARGUMENT;
    t[k++] = (struct transfer){true, c->rank, (unsigned char *)(uintptr_t)from, 0, 0}; /* names what is this rank's */
    for (int i = 1; i < c->size; i++) {
        t[k++] = (struct transfer){true, (c->rank + i) % c->size, (unsigned char *)(uintptr_t)from, 4 * n, 0};
        t[k++] = (struct transfer){false, (c->rank + i) % c->size, NULL, 4 * n, 0};
    }
    return launch(c, stream, t, k, to, n, COLLECTIVES);
}

/* ---- communicators ---- */

EXPORT int ncclGetVersion(int *version)
{
    const char *v = getenv("NCCL_STUB_VERSION");
    *version = v ? atoi(v) : 22809;
    return TRN_NCCL_SUCCESS;
}

EXPORT int ncclGetUniqueId(trn_nccl_id *id)
{
    static _Atomic int n;
    const char *order = getenv("NCCL_STUB");
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/nccl-stub-%d-%d", (int)getpid(), atomic_fetch_add(&n, 1));
    int fd = shm_open(id->internal, O_CREAT | O_EXCL | O_RDWR, 0600);
    bool bad = (order && !strcmp(order, "fail_id")) || fd < 0 || ftruncate(fd, sizeof(struct shared));
    if (fd >= 0) close(fd);
    if (bad) shm_unlink(id->internal);
    return bad ? SYSTEM_ERROR : TRN_NCCL_SUCCESS;
}

EXPORT int ncclCommInitRankConfig(trn_nccl_comm *out, int size, trn_nccl_id id, int rank, struct trn_nccl_config *config)
{
    *out = NULL;
    if (config->magic != 0xcafebeef || config->size < sizeof *config || config->blocking || size > MAX_RANKS) return INVALID_ARGUMENT;
    if (ordered("fail_init", rank, 0)) return SYSTEM_ERROR;
    int fd = shm_open(id.internal, O_RDWR, 0600);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (p == MAP_FAILED) return SYSTEM_ERROR;
    trn_nccl_comm c = calloc(1, sizeof *c);
    c->s = p;
    c->rank = rank;
    c->size = size;
    atomic_store(&c->n_refs, 1);
    snprintf(c->path, sizeof c->path, "%.63s", id.internal);
    if (!ordered("hang_init", rank, 0)) atomic_store(&c->s->present[rank], 1);
    *out = c;
    return IN_PROGRESS;
}

EXPORT int ncclCommGetAsyncError(trn_nccl_comm c, int *state)
{
    bool all = true;
    for (int r = 0; r < c->size && !c->ready; r++) all &= atomic_load(&c->s->present[r]);
    if (all && !c->ready) {
        c->ready = true;
        if (!c->rank) shm_unlink(c->path);
    }
    *state = atomic_load(&c->error);
    if (!*state && (!all || !atomic_exchange(&c->answered, true) || (c->finalizing && atomic_load(&c->n_kept)))) *state = IN_PROGRESS;
    return TRN_NCCL_SUCCESS;
}

EXPORT int ncclCommAbort(trn_nccl_comm c)
{
    atomic_store(&c->aborted, true);
    if (!c->rank && !c->ready) shm_unlink(c->path);
    await_graphs(c, "abort");
    drop(c);
    return TRN_NCCL_SUCCESS;
}

EXPORT int ncclCommFinalize(trn_nccl_comm c)
{
    atomic_store(&c->answered, false);
    c->finalizing = true;
    return IN_PROGRESS;
}

EXPORT int ncclCommDestroy(trn_nccl_comm c)
{
    await_graphs(c, "destruction");
    drop(c);
    return TRN_NCCL_SUCCESS;
}

EXPORT const char *ncclGetErrorString(int result)
{
    switch (result) {
    case TRN_NCCL_SUCCESS: return "no error";
    case SYSTEM_ERROR: return "unhandled system error";
    case REMOTE_ERROR: return "remote process exited or there was a network error";
    case INVALID_USAGE: return "invalid usage";
    case IN_PROGRESS: return "NCCL operation in progress";
    default: return "invalid argument";
    }
}

EXPORT const char *ncclGetLastError(trn_nccl_comm c) { return c ? "as the test ordered" : ""; }
