/* shm_flag.c: waiting on flags in shared memory, and seeing that a peer is gone.
 *
 * A waiter counts itself in `sleepers`, looks again, sleeps; the poster raises, then looks at
 * `sleepers`: both sequentially consistent, so one of them sees the other. Sleeps are cut in slices
 * to look whether the peer lives. */
#include "transport/shm_impl.h"

#include "base/clock.h"
#include "transport/coll_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPIN_US = 50,
    N_YIELD = 8,     /* instead of spinning, where that cannot help */
    SLICE_US = 50000 /* between looks at a peer that is waited for */
};

/* ---- is a process there ---- */

/* The start time of a process in clock ticks after boot; 0: it is gone or a zombie; UINT64_MAX:
 * cannot be known. */
uint64_t trn_shm_start_of(int32_t pid)
{
    char path[32], text[1024];
    unsigned long long started = 0;
    char state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT && !access("/proc/self/stat", R_OK) ? 0 : UINT64_MAX;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return n < 0 && errno == ESRCH ? 0 : UINT64_MAX;
    text[n] = 0;
    const char *p = strrchr(text, ')'); /* the name before it may hold anything */
    if (!p ||
        sscanf(p + 1,
               " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &state, &started) != 2)
        return UINT64_MAX;
    return state == 'Z' || state == 'X' ? 0 : started;
}

uint64_t trn_shm_pid_ns(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) ? 0 : (uint64_t)st.st_ino;
}

/* False only when the process that attached as r is known to be gone: pids of another namespace say
 * nothing. */
bool trn_shm_lives(const struct trn_shm_seg *s, int32_t r)
{
    const struct trn_shm_rank *him = &s->head->rank[r];
    if (him->pid_ns != trn_shm_pid_ns()) return true;
    uint64_t now = trn_shm_start_of(him->pid);
    return now == UINT64_MAX || him->started == UINT64_MAX || (now && now == him->started);
}

/* ---- flags ---- */

static void futex_wait(_Atomic uint32_t *at, uint32_t seen, int64_t us)
{
    struct timespec ts = {us / 1000000, us % 1000000 * 1000};
    syscall(SYS_futex, at, FUTEX_WAIT, seen, &ts, NULL, 0);
}

void trn_shm_flag_wake(struct trn_shm_flag *f)
{
    if (atomic_load(&f->sleepers))
        syscall(SYS_futex, &f->value, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void trn_shm_seg_post(struct trn_shm_seg *s, struct trn_shm_flag *f, uint32_t value)
{
    atomic_store_explicit(&s->head->rank[s->rank].cpu, sched_getcpu(), memory_order_relaxed);
    atomic_store(&f->value, value);
    trn_shm_flag_wake(f);
}

/* Spinning helps only while the rank waited for runs elsewhere; on one processor it would keep that
 * rank from running. */
static bool may_spin(const struct trn_shm_seg *s, int32_t rank)
{
    return s->may_spin &&
           atomic_load_explicit(&s->head->rank[rank].cpu, memory_order_relaxed) != sched_getcpu();
}

static bool spin(const struct trn_shm_seg *s, struct trn_shm_flag *f, uint32_t target, int32_t rank)
{
    int n_yield = 0;
    for (int64_t end = 0, now = 0; now <= end && n_yield < N_YIELD; now = clock_us()) {
        if (!end) end = clock_us() + SPIN_US;
        if (!may_spin(s, rank)) {
            sched_yield();
            n_yield++;
        }
        for (int i = 0; i < 32; i++) {
            if (trn_shm_flag_reached(f, target)) return true;
            trn_coll_pause();
        }
    }
    return false;
}

/* Look at the flag and at the peer, then sleep until the flag moves or for a slice. Asking the
 * system whether a process lives is dear: only who has slept a slice for nothing does. */
static enum trn_shm_wait sleep_once(struct trn_shm_seg *s, struct trn_shm_flag *f, uint32_t target,
                                    int32_t rank, int64_t until_us, bool slept)
{
    uint32_t seen = atomic_load(&f->value);
    struct trn_shm_rank *him = &s->head->rank[rank];
    if ((int32_t)(seen - target) >= 0) return SHM_REACHED;
    bool left = atomic_load(&him->left);
    bool ended = !left && slept && atomic_load(&him->present.value) && !trn_shm_lives(s, rank);
    if (left || ended) /* its last post came before its end: look once more */
        return trn_shm_flag_reached(f, target) ? SHM_REACHED : left ? SHM_LEFT : SHM_ENDED;
    int64_t now = clock_us();
    if (now >= until_us) return SHM_LATE;
    futex_wait(&f->value, seen, MIN(until_us - now, SLICE_US));
    return trn_shm_flag_reached(f, target) ? SHM_REACHED : SHM_LATE;
}

enum trn_shm_wait trn_shm_seg_wait(struct trn_shm_seg *s, struct trn_shm_flag *f, uint32_t target,
                                   int32_t rank, int64_t until_us)
{
    enum trn_shm_wait w = SHM_LATE;
    if (trn_shm_flag_reached(f, target) || spin(s, f, target, rank)) return SHM_REACHED;
    atomic_fetch_add(&f->sleepers, 1);
    for (bool slept = false; w == SHM_LATE; slept = true) {
        w = sleep_once(s, f, target, rank, until_us, slept);
        if (clock_us() >= until_us) break;
    }
    atomic_fetch_sub(&f->sleepers, 1);
    return w;
}
