/* huge.c: see huge.h.
 *
 * I1  a piece is put in place by one mremap, under the kernel's lock of the address space: a thread that faults there meanwhile waits for it.
 * I2  pieces are whole huge pages, so that tables of pages are moved, not pages. */
#include "engine/model/huge.h"

#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int64_t PIECE = 16 << 20; /* more memory than before, at most, while it is copied; 8,000 of them for 128 GiB: a process may have 65,530 mappings */

struct eng_huge {
    struct eng_span *spans;    /* [init] whole huge pages, in order, apart */
    int32_t n;
    const struct eng_team *beside;
    pthread_t thread;
    bool runs;
    _Atomic bool stop;
};

/* ---- memory ---- */

void *eng_huge_alloc(int64_t bytes)
{
    ASSERT(bytes % ENG_HUGE_PAGE == 0);
    int64_t room = bytes + ENG_HUGE_PAGE;
    uint8_t *p = mmap(NULL, (size_t)room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    int64_t skip = (int64_t)(-(uintptr_t)p % ENG_HUGE_PAGE);
    if (skip) munmap(p, (size_t)skip);
    munmap(p + skip + bytes, (size_t)(room - skip - bytes));
    (void)madvise(p + skip, (size_t)bytes, MADV_HUGEPAGE); /* advice: without it merely slower */
    return p + skip;
}

void eng_huge_free(void *p, int64_t bytes)
{
    if (p) munmap(p, (size_t)bytes);
}

static bool system_gives_them(void)
{
    char text[64] = "[never]";
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (f) (void)fgets(text, sizeof text, f);
    if (f) fclose(f);
    return !strstr(text, "[never]");
}

/* ---- the move ---- */

static int by_place(const void *a, const void *b)
{
    const struct eng_span *x = a, *y = b;
    return (x->p > y->p) - (x->p < y->p);
}

/* The huge pages that the spans touch, each once. */
static int32_t whole_pages(struct eng_span s[], int32_t n)
{
    int32_t k = 0;
    if (n) qsort(s, (size_t)n, sizeof *s, by_place);
    for (int32_t i = 0; i < n; i++) {
        uint8_t *from = s[i].p, *to = from + s[i].bytes, *end;
        from -= (uintptr_t)from % ENG_HUGE_PAGE;
        to += -(uintptr_t)to % ENG_HUGE_PAGE;
        if (k && from <= (end = (uint8_t *)s[k - 1].p + s[k - 1].bytes)) s[k - 1].bytes += MAX(to - end, 0);
        else s[k++] = (struct eng_span){from, to - from};
    }
    return k;
}

static bool move(uint8_t *p, int64_t bytes)
{
    uint8_t *q = eng_huge_alloc(bytes);
    if (!q) return false;
    memcpy(q, p, (size_t)bytes);
    if (mremap(q, (size_t)bytes, (size_t)bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p) return true;
    eng_huge_free(q, bytes);
    return false;
}

static void *move_main(void *arg)
{
    struct eng_huge *h = arg;
    bool ok = true;
    eng_team_beside(h->beside);
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
    for (int32_t i = 0; i < h->n && ok; i++)
        for (int64_t at = 0; at < h->spans[i].bytes && ok && !atomic_load(&h->stop); at += PIECE)
            ok = move((uint8_t *)h->spans[i].p + at, MIN(PIECE, h->spans[i].bytes - at));
    if (!ok) log_info("load", "weights stay mapped from the cache, a little slower to read: %s", strerror(errno));
    return NULL;
}

enum err eng_huge_open(struct eng_huge **out, const struct eng_span spans[], int32_t n, const struct eng_team *beside)
{
    enum err rc = OK;
    struct eng_huge *h = xcalloc(1, sizeof *h);
    h->beside = beside;
    h->spans = xmalloc((size_t)MAX(n, 1) * sizeof *spans);
    memcpy(h->spans, spans, (size_t)n * sizeof *spans);
    h->n = system_gives_them() ? whole_pages(h->spans, n) : 0;
    if (h->n && pthread_create(&h->thread, NULL, move_main, h)) TRY(err_raise(ERR_SYSTEM, "cannot start the thread that moves weights into huge pages"));
    h->runs = h->n > 0;
    *out = h, h = NULL;
out:
    eng_huge_close(h);
    return rc;
}

void eng_huge_settle(struct eng_huge *h)
{
    if (!h || !h->runs) return;
    pthread_join(h->thread, NULL);
    h->runs = false;
}

void eng_huge_close(struct eng_huge *h)
{
    if (!h) return;
    atomic_store(&h->stop, true);
    eng_huge_settle(h);
    free(h->spans);
    free(h);
}
