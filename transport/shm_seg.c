/* shm_seg.c: see shm_seg.h.
 *
 * Memory: head, flags, two slots per rank, one ring per ordered pair. All of it is reserved when it
 * is created, because a full /dev/shm kills the process that touches a page too many instead of
 * returning an error.
 *
 * Life: rank 0 creates the name, waits for all, removes it. A name that already exists is therefore
 * of a group that died while gathering; rank 0 replaces it, and attachers pass over it because its
 * creator is gone. */
#include "transport/shm_impl.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAGIC = 0x54534d31,
    SLOTS_TOTAL = 8 << 20,
    SLOT_MIN = 64 << 10,
    SLOT_MAX = 512 << 10,
    RINGS_TOTAL = 16 << 20,
    RING_MIN = 4 << 10,
    RING_MAX = 1 << 20
};

int64_t trn_shm_seg_slot_bytes(const struct trn_shm_seg *s)
{
    return s->slot_bytes;
}

uint32_t trn_shm_seg_ring_bytes(const struct trn_shm_seg *s)
{
    return s->ring_bytes;
}

_Atomic uint64_t *trn_shm_seg_board(struct trn_shm_seg *s)
{
    return s->head->board;
}

struct trn_shm_flag *trn_shm_seg_step(struct trn_shm_seg *s, int32_t rank)
{
    return &s->head->rank[rank].step;
}

unsigned char *trn_shm_seg_slot(struct trn_shm_seg *s, int32_t rank, uint32_t parity)
{
    return s->slots + (2 * rank + (int32_t)(parity & 1)) * s->slot_bytes;
}

struct trn_shm_flag *trn_shm_seg_written(struct trn_shm_seg *s, int32_t from, int32_t to)
{
    return &s->ring_flags[(from * s->size + to) * 2];
}

struct trn_shm_flag *trn_shm_seg_read(struct trn_shm_seg *s, int32_t from, int32_t to)
{
    return trn_shm_seg_written(s, from, to) + 1;
}

unsigned char *trn_shm_seg_ring(struct trn_shm_seg *s, int32_t from, int32_t to)
{
    return s->rings + (int64_t)(from * s->size + to) * s->ring_bytes;
}

/* ---- life ---- */

static uint32_t power_of_two_below(int64_t n)
{
    uint32_t p = 1;
    while ((int64_t)p * 2 <= n) p *= 2;
    return p;
}

static int64_t flags_bytes(int32_t size)
{
    return ROUND_UP((int64_t)size * size * 2 * (int64_t)sizeof(struct trn_shm_flag), 4096);
}

static struct trn_shm_seg *layout(const char *name, int32_t rank, int32_t size)
{
    struct trn_shm_seg *s = xcalloc(1, sizeof *s);
    s->rank = rank;
    s->size = size;
    s->slot_bytes = power_of_two_below(CLAMP(SLOTS_TOTAL / (2 * size), SLOT_MIN, SLOT_MAX));
    s->ring_bytes = power_of_two_below(CLAMP(RINGS_TOTAL / (size * size), RING_MIN, RING_MAX));
    s->total_bytes = ROUND_UP((int64_t)sizeof(struct trn_shm_head), 4096) + flags_bytes(size) +
                     2 * size * s->slot_bytes + (int64_t)size * size * s->ring_bytes;
    snprintf(s->path, sizeof s->path, "/tessera-%s", name);
    return s;
}

static bool map(struct trn_shm_seg *s, int fd)
{
    void *p = mmap(NULL, (size_t)s->total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return false;
    unsigned char *at = p;
    s->head = p;
    at += ROUND_UP(sizeof(struct trn_shm_head), 4096);
    s->ring_flags = (struct trn_shm_flag *)(void *)at;
    at += flags_bytes(s->size);
    s->slots = at;
    s->rings = at + 2 * s->size * s->slot_bytes;
    return true;
}

static void sign_in(struct trn_shm_seg *s)
{
    struct trn_shm_rank *me = &s->head->rank[s->rank];
    me->pid = getpid();
    me->started = trn_shm_start_of(me->pid);
    me->pid_ns = trn_shm_pid_ns();
    CPU_ZERO(&me->cpus);
    sched_getaffinity(0, sizeof me->cpus, &me->cpus);
    s->signed_in = true;
}

/* Is there a processor for each rank, among all that some rank may run on? Asked when all have
 * signed in. */
static bool enough_cpus(const struct trn_shm_seg *s)
{
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int32_t r = 0; r < s->size; r++) CPU_OR(&all, &all, &s->head->rank[r].cpus);
    return CPU_COUNT(&all) >= s->size;
}

static enum err create(struct trn_shm_seg *s)
{
    int fd = shm_open(s->path, O_CREAT | O_EXCL | O_RDWR, 0600);
    if (fd < 0 && errno == EEXIST && !shm_unlink(s->path))
        fd = shm_open(s->path, O_CREAT | O_EXCL | O_RDWR, 0600);
    if (fd < 0)
        return err_raise(ERR_SYSTEM, "shared memory %s cannot be created: %s", s->path,
                         strerror(errno));
    int e;
    do e = posix_fallocate(fd, 0, s->total_bytes);
    while (e == EINTR);
    if (!e && !map(s, fd)) e = errno;
    close(fd);
    if (e) {
        shm_unlink(s->path);
        return err_raise(
            ERR_SYSTEM,
            "shared memory %s: %lld bytes are not to be had: %s (is /dev/shm large enough?)",
            s->path, (long long)s->total_bytes, strerror(e));
    }
    s->head->size = s->size;
    sign_in(s);
    atomic_store(&s->head->rank[0].present.value, 1);
    atomic_store(&s->head->magic, MAGIC);
    return OK;
}

static enum err not_in_time(const struct trn_shm_seg *s, enum trn_shm_wait w, int32_t rank,
                            int64_t timeout_us)
{
    if (w == SHM_ENDED || w == SHM_LEFT)
        return err_raise(ERR_PEER_LOST, "shared memory %s: rank %d ended while the group gathered",
                         s->path, rank);
    return err_raise(ERR_DEADLINE, "shared memory %s: rank %d has not come within %.3g s", s->path,
                     rank, (double)timeout_us / 1e6);
}

static enum err gather(struct trn_shm_seg *s, int64_t until_us, int64_t timeout_us)
{
    enum err rc = create(s);
    if (rc) return rc;
    for (int32_t r = 1; r < s->size && !rc; r++) {
        enum trn_shm_wait w = trn_shm_seg_wait(s, &s->head->rank[r].present, 1, r, until_us);
        if (w) rc = not_in_time(s, w, r, timeout_us);
    }
    shm_unlink(s->path);
    if (rc)
        atomic_store(&s->head->rank[0].left, 1);
    else
        trn_shm_seg_post(s, &s->head->go, 1);
    return rc;
}

/* What an opened name is: *again when it is not ready yet or its creator is gone. */
static enum err look(struct trn_shm_seg *s, int fd, bool *again)
{
    struct stat st;
    enum err rc = OK;
    *again = true;
    if (fstat(fd, &st))
        return err_raise(ERR_SYSTEM, "shared memory %s: fstat: %s", s->path, strerror(errno));
    if (st.st_uid != geteuid())
        return err_raise(ERR_SYSTEM, "shared memory %s belongs to user %u, not to this one",
                         s->path, st.st_uid);
    if (st.st_size < (off_t)sizeof *s->head) return OK;
    s->head = mmap(NULL, sizeof *s->head, PROT_READ, MAP_SHARED, fd, 0);
    if (s->head == MAP_FAILED) {
        s->head = NULL;
        return OK;
    }
    if (atomic_load(&s->head->magic) == MAGIC && trn_shm_lives(s, 0)) {
        *again = false;
        if (s->head->size != s->size)
            rc = err_raise(ERR_BAD_CONFIG,
                           "shared memory %s is of a group of %d ranks, this rank expects %d",
                           s->path, s->head->size, s->size);
    }
    munmap(s->head, sizeof *s->head);
    s->head = NULL;
    return rc;
}

static enum err try_attach(struct trn_shm_seg *s, bool *again)
{
    *again = true;
    int fd = shm_open(s->path, O_RDWR, 0600);
    if (fd < 0 && errno == ENOENT) return OK;
    if (fd < 0)
        return err_raise(ERR_SYSTEM, "shared memory %s cannot be opened: %s", s->path,
                         strerror(errno));
    enum err rc = look(s, fd, again);
    if (!rc && !*again && !map(s, fd))
        rc = err_raise(ERR_SYSTEM, "shared memory %s cannot be mapped: %s", s->path,
                       strerror(errno));
    close(fd);
    return rc;
}

static enum err attach(struct trn_shm_seg *s, int64_t until_us, int64_t timeout_us)
{
    bool again = true;
    for (int64_t nap = 200;; nap = MIN(nap * 2, 10000)) {
        enum err rc = try_attach(s, &again);
        if (rc) return rc;
        if (!again) break;
        if (clock_us() >= until_us) return not_in_time(s, SHM_LATE, 0, timeout_us);
        clock_sleep_us(nap);
    }
    if (atomic_load(&s->head->rank[s->rank].present.value))
        return err_raise(ERR_BAD_CONFIG, "shared memory %s: rank %d is there already", s->path,
                         s->rank);
    sign_in(s);
    trn_shm_seg_post(s, &s->head->rank[s->rank].present, 1);
    enum trn_shm_wait w = trn_shm_seg_wait(s, &s->head->go, 1, 0, until_us);
    if (w == SHM_ENDED) shm_unlink(s->path); /* it died before it could */
    return w ? not_in_time(s, w, 0, timeout_us) : OK;
}

enum err trn_shm_seg_open(struct trn_shm_seg **out, const char *name, int32_t rank, int32_t size,
                          int64_t timeout_us)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t n = strlen(name);
    if (n < 1 || n > 64 || strspn(name, allowed) != n)
        return err_raise(ERR_BAD_CONFIG,
                         "'%s' cannot name shared memory: 1 to 64 of A-Z a-z 0-9 _ - needed", name);
    if (size < 1 || size > COLL_MAX_RANKS || rank < 0 || rank >= size)
        return err_raise(ERR_BAD_CONFIG,
                         "rank %d of a shared memory group of %d: at most %d ranks, counted from 0",
                         rank, size, COLL_MAX_RANKS);
    struct trn_shm_seg *s = layout(name, rank, size);
    timeout_us = CLAMP(timeout_us, 0, (int64_t)365 * 24 * 3600 * 1000000);
    int64_t until_us = clock_us() + timeout_us;
    enum err rc;
    TRY(rank == 0 ? gather(s, until_us, timeout_us) : attach(s, until_us, timeout_us));
    s->may_spin = enough_cpus(s);
    *out = s;
    s = NULL;
out:
    trn_shm_seg_close(s);
    return rc;
}

void trn_shm_seg_close(struct trn_shm_seg *s)
{
    if (!s) return;
    if (s->signed_in) {
        atomic_store(&s->head->rank[s->rank].left, 1);
        trn_shm_flag_wake(&s->head->rank[s->rank].step);
        for (int32_t r = 0; r < s->size; r++) {
            trn_shm_flag_wake(trn_shm_seg_written(s, s->rank, r));
            trn_shm_flag_wake(trn_shm_seg_read(s, r, s->rank));
        }
    }
    if (s->head) munmap(s->head, (size_t)s->total_bytes);
    free(s);
}
