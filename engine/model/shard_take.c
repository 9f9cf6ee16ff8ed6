/* shard_take.c: the reading side of shard_cache.h.
 *
 * Wants are taken some at a time: the files of each are opened, and mapped where that can be; then the whole team reads, and sums what it has
 * read or finds mapped; then it is said what was found. A file's megabytes are dealt as its rows will be among the threads where they are read,
 * so that on a host with several memories each finds them in its own; those that are mapped go to whoever is free. */
#include "engine/model/shard_cache_impl.h"

#include "base/log.h"
#include "engine/kernels/table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MOST_FILES = 64, MOST_BYTES = 1 << 29, /* at a time: progress is said between */
    MOST_MAPPED = 16384                    /* a process may have 65,530 mappings, and one may leave a gap behind it */
};

/* Rows [row0,row1) of a want, from one file. */
struct piece {
    struct eng_want *w;
    const struct shard_entry *e;
    struct eng_shard_file s;
    int64_t row0, row1;
    int fd;                  /* -1: mapped, or not usable */
    bool mapped;
    int64_t tile0, tile1;    /* of the file */
    uint8_t *dst;            /* of tile0 */
    int64_t first;           /* mapped: chunks of mapped pieces before it */
    _Atomic bool bad;
};

struct take {
    struct eng_shard_cache *c;
    struct piece pieces[2 * MOST_FILES]; /* the last want may have as many */
    int32_t n;
    int64_t n_chunks;        /* of mapped pieces */
    _Atomic int64_t next;    /* of them */
    int32_t n_mapped;        /* so far, of all wants */
};

/* ---- opening ---- */

static bool read_whole(int fd, void *dst, int64_t n, int64_t at)
{
    for (uint8_t *d = dst; n > 0;) {
        ssize_t k = pread(fd, d, (size_t)n, at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        d += k;
        at += k;
        n -= k;
    }
    return true;
}

/* Pages that are not in memory come in the order in which they are needed, many at a time. */
static void read_ahead(uint8_t *p, int64_t bytes)
{
    unsigned char first = 0, last = 0;
    if (mincore(p, SHARD_ALIGN, &first) || mincore(p + (bytes - 1) / SHARD_ALIGN * SHARD_ALIGN, SHARD_ALIGN, &last)) return;
    if (!(first & last & 1)) (void)madvise(p, (size_t)bytes, MADV_WILLNEED);
}

/* The file in the want's place, if it holds exactly that. Private and writable: should it be damaged, the want is packed over it. */
static bool map(struct take *t, struct piece *p)
{
    const struct eng_want *w = p->w;
    int64_t bytes = (p->tile1 - p->tile0) * w->tile_bytes;
    if (!t->c->may_map || !w->pages || t->n_mapped >= MOST_MAPPED) return false;
    if (p->e->row0 != w->row0 || p->e->row1 != w->row1 || p->row0 != w->row0 || p->row1 != w->row1) return false;
    if (mmap(w->tiles, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, p->fd, eng_shard_data_at(&p->s)) != w->tiles) return false;
    read_ahead(w->tiles, bytes);
    t->n_mapped++;
    return true;
}

static void open_piece(struct take *t, struct piece *p)
{
    struct stat st;
    char *path = eng_shard_path(t->c, p->e);
    uint8_t *head = NULL;
    p->s = eng_shard_of_want(t->c, p->w, p->e->row0, p->e->row1);
    p->fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = p->fd >= 0 && !fstat(p->fd, &st) && eng_shard_fits(&p->s, st.st_size);
    if (ok) {
        int64_t n = eng_shard_data_at(&p->s);
        head = xmalloc((size_t)n);
        ok = read_whole(p->fd, head, n, 0) && eng_shard_check(&p->s, head, n, st.st_size);
    }
    if (ok) (void)futimens(p->fd, NULL); /* used now: what is oldest goes first */
    if (ok && map(t, p)) {
        p->mapped = true;
        p->first = t->n_chunks;
        t->n_chunks += eng_shard_chunks(&p->s);
        close(p->fd);
        p->fd = -1;
    }
    atomic_store(&p->bad, !ok);
    free(head);
    free(path);
}

/* ---- reading and summing ---- */

/* Into this process's pages; a disk that fails is an error here, where a look at the memory would be a signal. */
static bool fault_in(const struct piece *p, int64_t at, int64_t bytes)
{
    int64_t from = at / SHARD_ALIGN * SHARD_ALIGN;
    return !madvise(p->dst + from, (size_t)(at + bytes - from), MADV_POPULATE_READ);
}

static bool sum_is(const struct piece *p, int64_t chunk, const uint8_t *tiles)
{
    const struct eng_shard_file *s = &p->s;
    int64_t a = chunk * s->chunk_tiles, b = MIN(a + s->chunk_tiles, (int64_t)s->tiles);
    return eng_shard_sum(tiles, (b - a) * (int64_t)s->tile_bytes) == s->sums[chunk];
}

/* A chunk that is wanted whole goes straight to its place, another one through `room`. */
static bool read_chunk(const struct piece *p, int64_t chunk)
{
    const struct eng_shard_file *s = &p->s;
    int64_t size = (int64_t)s->tile_bytes, a = chunk * s->chunk_tiles, b = MIN(a + s->chunk_tiles, (int64_t)s->tiles);
    int64_t lo = MAX(a, p->tile0), hi = MIN(b, p->tile1);
    bool whole = lo == a && hi == b;
    uint8_t *room = whole ? NULL : malloc((size_t)((b - a) * size)), *to = whole ? p->dst + (a - p->tile0) * size : room;
    bool ok = to && read_whole(p->fd, to, (b - a) * size, eng_shard_data_at(s) + a * size) && sum_is(p, chunk, to);
    if (ok && !whole) memcpy(p->dst + (lo - p->tile0) * size, to + (lo - a) * size, (size_t)((hi - lo) * size));
    free(room);
    return ok;
}

static void read_pieces(struct take *t, int32_t thread, int32_t n_threads)
{
    for (int32_t i = 0; i < t->n; i++) {
        struct piece *p = &t->pieces[i];
        int64_t per, lo, hi, first;
        if (p->fd < 0 || p->mapped) continue;
        per = p->s.chunk_tiles;
        first = p->tile0 / per;
        eng_team_range(DIV_UP(p->tile1, per) - first, 1, thread, n_threads, &lo, &hi);
        for (int64_t k = lo; k < hi && !atomic_load(&p->bad); k++)
            if (!read_chunk(p, first + k)) atomic_store(&p->bad, true);
    }
}

static void sum_mapped(struct take *t)
{
    int32_t i = 0;
    for (int64_t k; (k = atomic_fetch_add(&t->next, 1)) < t->n_chunks;) {
        while (!t->pieces[i].mapped || k >= t->pieces[i].first + eng_shard_chunks(&t->pieces[i].s)) i++; /* k only grows */
        struct piece *p = &t->pieces[i];
        int64_t chunk = k - p->first, per = p->s.chunk_tiles * (int64_t)p->s.tile_bytes, at = chunk * per;
        if (atomic_load(&p->bad)) continue;
        if (!fault_in(p, at, MIN(per, p->tile1 * p->w->tile_bytes - at)) || !sum_is(p, chunk, p->dst + at)) atomic_store(&p->bad, true);
    }
}

static void take_main(void *arg, int32_t thread, int32_t n_threads)
{
    read_pieces(arg, thread, n_threads);
    sum_mapped(arg);
}

/* ---- one want's files ---- */

static void put_off(struct take *t, struct piece *p)
{
    char *path = eng_shard_path(t->c, p->e);
    log_warn("load", "%s is damaged: removed, and loaded from the model again", path);
    unlink(path);
    free(path);
}

static void close_piece(struct take *t, struct piece *p)
{
    bool found = p->fd >= 0 || p->mapped;
    if (p->fd >= 0) close(p->fd);
    if (atomic_load(&p->bad) && found) put_off(t, p);
    p->w->mapped |= p->mapped; /* also one that is packed over: it too goes into huge pages */
    free(p->s.sums);
}

/* The last row up to which a file's tiles can be the want's: a tile that the file cuts short must be the want's last, too. */
static int64_t usable_end(const struct shard_entry *e, const struct eng_want *w)
{
    int64_t end = e->row1 >= w->row1 ? w->row0 + (w->row1 - w->row0) / KRN_TILE * KRN_TILE : e->row0 + (e->row1 - e->row0) / KRN_TILE * KRN_TILE;
    return e->row1 == w->row1 ? w->row1 : end;
}

static int32_t first_of(const struct eng_shard_cache *c, const struct eng_want *w, uint64_t tensor)
{
    struct shard_entry key = {.tensor = tensor, .k0 = w->k0, .k1 = w->k1, .row0 = INT64_MIN, .row1 = INT64_MAX};
    int32_t lo = 0, hi = c->n_entries;
    while (lo < hi) {
        int32_t m = lo + (hi - lo) / 2;
        if (eng_shard_compare(&c->entries[m], &key) < 0) lo = m + 1;
        else hi = m;
    }
    return lo;
}

/* Open what there is of a want. */
static void add_pieces(struct take *t, struct eng_want *w)
{
    const struct eng_shard_cache *c = t->c;
    uint64_t tensor = eng_shard_tensor(w->t);
    int64_t at = w->row0;
    int32_t most = t->n + MOST_FILES;
    for (int32_t i = first_of(c, w, tensor); i < c->n_entries && at < w->row1 && t->n < most; i++) {
        const struct shard_entry *e = &c->entries[i];
        if (e->tensor != tensor || e->k0 != w->k0 || e->k1 != w->k1 || e->row0 >= w->row1) break;
        int64_t from = MAX(at, e->row0), end = usable_end(e, w);
        if ((e->row0 - w->row0) % KRN_TILE || end <= from) continue;
        struct piece *p = &t->pieces[t->n];
        *p = (struct piece){.w = w, .e = e, .row0 = from, .row1 = end, .tile0 = (from - e->row0) / KRN_TILE, .tile1 = DIV_UP(end - e->row0, KRN_TILE),
                            .dst = w->tiles + (from - w->row0) / KRN_TILE * w->tile_bytes};
        open_piece(t, p);
        t->n++;
        if (!atomic_load(&p->bad)) at = end; /* else another file may have these rows */
    }
}

/* ---- all of them ---- */

static int64_t bytes_of(const struct eng_want *w, int64_t rows) { return rows * (eng_want_bytes(w) / (w->row1 - w->row0)); }

/* What the pieces of a want, from *i on, have brought. */
static void say(const struct take *t, int32_t *i, const struct eng_want *w, const struct eng_shard_taker *to)
{
    int64_t at = w->row0, found = 0;
    for (; *i < t->n && t->pieces[*i].w == w; ++*i) {
        const struct piece *p = &t->pieces[*i];
        if (atomic_load(&p->bad)) continue;
        if (p->row0 > at) to->missing(to->user, w, at, p->row0);
        found += p->row1 - p->row0;
        at = p->row1;
    }
    if (at < w->row1) to->missing(to->user, w, at, w->row1);
    to->found(to->user, w, bytes_of(w, found));
}

void eng_shard_cache_take(struct eng_shard_cache *c, struct eng_team *team, struct eng_want wants[], int32_t n, const struct eng_shard_taker *to)
{
    struct take *t = xcalloc(1, sizeof *t);
    t->c = c;
    for (int32_t i = 0, end; i < n; i = end) {
        int64_t bytes = 0;
        int32_t k = 0;
        t->n = 0;
        t->n_chunks = 0;
        atomic_store(&t->next, 0);
        for (end = i; end < n && t->n < MOST_FILES && bytes < MOST_BYTES; end++) {
            if (wants[end].tiles) add_pieces(t, &wants[end]);
            bytes += eng_want_bytes(&wants[end]);
        }
        if (t->n) eng_team_run(team, take_main, t);
        for (int32_t p = 0; p < t->n; p++) close_piece(t, &t->pieces[p]);
        for (int32_t w = i; w < end; w++) say(t, &k, &wants[w], to);
    }
    free(t);
}
