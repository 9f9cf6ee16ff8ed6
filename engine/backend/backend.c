/* backend.c: see backend.h. */
#include "engine/backend/backend.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/backend/plugin_open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    HUGE_PAGE = 2 << 20,
    WAIT_SPIN_US = 20000, WAIT_SLEEP_US = 50, /* a step of decoding is shorter than the first */
};

/* ---- memory of the host ---------------------------------------------------------------------- */

static const char *const purpose[] = {"weights", "KV cache", "step buffers"};
static const char *const remedy[] = {"use more ranks or a smaller quantisation", "lower --kv-tokens or --context",
                                     "lower --max-batch-tokens"};

/* mmap: zeroed, and pages that were never written cost nothing. A pass over the weights touches each page once, and a page of 4 KiB
 * would cost a walk of the page table every 64 lines: weights lie on huge pages where the system gives them. */
static void *host_alloc(enum eng_memory what, int64_t *bytes)
{
    bool huge = what == ENG_MEMORY_WEIGHTS;
    int64_t n = ROUND_UP(MAX(*bytes, 1), huge ? (int64_t)HUGE_PAGE : 4096), room = huge ? n + HUGE_PAGE : n;
    uint8_t *p = mmap(NULL, (size_t)room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (huge) {
        int64_t skip = (HUGE_PAGE - (int64_t)((uintptr_t)p % HUGE_PAGE)) % HUGE_PAGE;
        if (skip) munmap(p, (size_t)skip);
        if (room - skip - n) munmap(p + skip + n, (size_t)(room - skip - n));
        p += skip;
        (void)madvise(p, (size_t)n, MADV_HUGEPAGE); /* advice: without it merely slower */
    }
    *bytes = n;
    return p;
}

static void remember(struct eng_backend *b, void *p, int64_t bytes)
{
    if (b->n_blocks == b->cap_blocks) {
        b->cap_blocks = MAX(64, 2 * b->cap_blocks);
        b->blocks = xrealloc(b->blocks, (size_t)b->cap_blocks * sizeof *b->blocks);
    }
    b->blocks[b->n_blocks++] = (struct eng_backend_block){p, bytes};
}

/* ---- either ------------------------------------------------------------------------------------ */

enum err eng_backend_alloc(struct eng_backend *b, enum eng_memory what, void **out, int64_t bytes)
{
    char text[PLUGIN_TEXT] = "";
    void *p = NULL;
    int64_t n = bytes;
    if (b->on_host) {
        if ((p = host_alloc(what, &n))) remember(b, p, n);
    } else if (b->plugin->alloc(b->device, &p, bytes, text)) {
        p = NULL;
    }
    if (!p)
        return err_raise(ERR_NO_MEMORY, "no memory for %.1f MB of %s%s%s: %s", (double)bytes / 1e6, purpose[what], *text ? ": " : "", text,
                         remedy[what]);
    *out = p;
    return OK;
}

void eng_backend_free(struct eng_backend *b, void *p)
{
    if (!p) return;
    if (!b->on_host) {
        b->plugin->free(b->device, p);
        return;
    }
    for (int32_t i = 0; i < b->n_blocks; i++)
        if (b->blocks[i].p == p) {
            munmap(p, (size_t)b->blocks[i].bytes);
            b->blocks[i] = b->blocks[--b->n_blocks];
            return;
        }
    ASSERT(!"memory of this backend");
}

static enum err told(const struct eng_backend *b, int failed, const char *text)
{
    return failed ? err_raise(ERR_SYSTEM, "%s: %s", b->name, text) : OK;
}

enum err eng_backend_upload(struct eng_backend *b, void *dst, const void *src, int64_t bytes)
{
    char text[PLUGIN_TEXT];
    if (!b->on_host) return told(b, b->plugin->upload(b->device, dst, src, bytes, text), text);
    if (bytes > 0) memcpy(dst, src, (size_t)bytes);
    return OK;
}

enum { ALL = -1 }; /* no mark: everything told so far */

static enum err ask(struct eng_backend *b, int32_t mark, int32_t *done)
{
    char text[PLUGIN_TEXT];
    if (mark == ALL) return told(b, b->plugin->ready(b->device, done, text), text);
    return told(b, b->plugin->marked(b->device, mark, done, text), text);
}

/* By asking, since a device that waits for another rank for ever would hold us as well: somebody may be watching. */
static enum err look(struct eng_backend *b, int32_t mark, int32_t *done)
{
    enum err rc = ask(b, mark, done);
    if (!rc && !*done && b->watch) rc = b->watch(b->watch_user);
    return rc;
}

static enum err wait(struct eng_backend *b, int32_t mark)
{
    enum err rc = OK;
    int32_t done = 0;
    int64_t since = clock_us();
    while (!rc && !done) {
        rc = look(b, mark, &done);
        if (!rc && !done && clock_us() - since > WAIT_SPIN_US) clock_sleep_us(WAIT_SLEEP_US);
    }
    return rc;
}

enum err eng_backend_download(struct eng_backend *b, void *dst, const void *src, int64_t bytes)
{
    char text[PLUGIN_TEXT];
    if (!b->on_host && b->watch) {
        enum err e = wait(b, ALL);
        if (e) return e;
    }
    if (!b->on_host) return told(b, b->plugin->download(b->device, dst, src, bytes, text), text);
    if (bytes > 0) memcpy(dst, src, (size_t)bytes);
    return OK;
}

enum err eng_backend_copy(struct eng_backend *b, void *dst, const void *src, int64_t bytes)
{
    char text[PLUGIN_TEXT];
    if (!b->on_host) return told(b, b->plugin->copy(b->device, dst, src, bytes, text), text);
    if (bytes > 0) memcpy(dst, src, (size_t)bytes);
    return OK;
}

enum err eng_backend_clear(struct eng_backend *b, void *p, int64_t bytes)
{
    char text[PLUGIN_TEXT];
    if (!b->on_host) return told(b, b->plugin->clear(b->device, p, bytes, text), text);
    if (bytes > 0) memset(p, 0, (size_t)bytes);
    return OK;
}

enum err eng_backend_replay(struct eng_backend *b, uint64_t key, bool *done)
{
    char text[PLUGIN_TEXT];
    int32_t known = 0;
    enum err e = told(b, b->plugin->replay(b->device, key, &known, text), text);
    *done = known;
    return e;
}

bool eng_backend_record(struct eng_backend *b)
{
    char text[PLUGIN_TEXT];
    return !b->plugin->record(b->device, text);
}

bool eng_backend_keep(struct eng_backend *b, uint64_t key, int32_t *n)
{
    char text[PLUGIN_TEXT];
    return !b->plugin->keep(b->device, key, n, text);
}

void eng_backend_forget(struct eng_backend *b) { b->plugin->forget(b->device); }

void eng_backend_copy_rows(struct eng_backend *b, float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at, const float *by,
                           int32_t n_rows, int32_t n)
{
    b->plugin->copy_rows(dst, dst_stride, src, src_stride, at, by, n_rows, n);
}

void eng_backend_copy_codes(struct eng_backend *b, uint8_t *dst, const uint8_t *src, int32_t n_tok, int32_t cols, const int32_t *at, int32_t n_rows)
{
    b->plugin->copy_codes(dst, src, n_tok, cols, at, n_rows);
}

const struct krn_rounded *eng_backend_rounded(struct eng_backend *b)
{
    if (b->on_host) return krn_rounded_of(b->krn);
    if (b->major < PLUGIN_ROUNDED_MAJOR) return NULL;
    char how[PLUGIN_TEXT] = "";
    b->plugin->rounded_begin(b->device, how);
    log_info("engine", "%s: products of prompts that may round are computed %s", b->name, how);
    return b->plugin->rounded;
}

const struct plugin_experts *eng_backend_experts(const struct eng_backend *b) { return &b->plugin->experts; }

const struct krn_fused *eng_backend_fused(const struct eng_backend *b) { return b->on_host ? NULL : b->plugin->fused; }

const struct plugin_heads *eng_backend_heads(const struct eng_backend *b) { return &b->plugin->heads; }

void eng_backend_best(struct eng_backend *b, const float *x, int32_t n_rows, int32_t n, int32_t id0, struct krn_pick *best)
{
    b->plugin->best(x, n_rows, n, id0, best);
}

void eng_backend_draw(struct eng_backend *b, const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how,
                      const struct krn_pick *best, struct krn_pick *drawn)
{
    b->plugin->draw(x, n_rows, n, id0, how, best, drawn);
}

void eng_backend_top(struct eng_backend *b, const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how,
                     const struct krn_pick *best, struct krn_pick *scratch, struct krn_pick *top)
{
    b->plugin->top(x, n_rows, n, id0, how, best, scratch, top);
}

void eng_backend_chosen(struct eng_backend *b, int32_t n, const struct krn_noise *how, const struct krn_pick *best, const struct krn_pick *drawn,
                        int32_t *there, int32_t *host)
{
    b->plugin->chosen(n, how, best, drawn, there, host);
}

void eng_backend_among(struct eng_backend *b, int32_t n_rows, const struct krn_noise *how, const struct krn_pick *top, struct krn_pick *drawn)
{
    b->plugin->among(n_rows, how, top, drawn);
}

void eng_backend_merge_best(struct eng_backend *b, int32_t n, int32_t size, int64_t each, const struct krn_pick *all, struct krn_pick *out)
{
    b->plugin->merge_best(n, size, each, all, out);
}

void eng_backend_merge_top(struct eng_backend *b, int32_t n, int32_t size, int64_t each, const struct krn_pick *all, const struct krn_noise *how,
                           struct krn_pick *out)
{
    b->plugin->merge_top(n, size, each, all, how, out);
}

void eng_backend_inputs(struct eng_backend *b, int32_t n, int32_t *ids, const int32_t *chosen, int32_t id0, int32_t rows)
{
    b->plugin->inputs(n, ids, chosen, id0, rows);
}

bool eng_backend_reads(const struct eng_backend *b, enum dtype type) { return b->on_host || b->plugin->reads(type); }

enum err eng_backend_sync(struct eng_backend *b)
{
    char text[PLUGIN_TEXT];
    if (b->on_host) return OK;
    return b->watch ? wait(b, ALL) : told(b, b->plugin->sync(b->device, text), text);
}

enum err eng_backend_mark(struct eng_backend *b, int32_t i)
{
    char text[PLUGIN_TEXT];
    return told(b, b->plugin->mark(b->device, i, text), text);
}

enum err eng_backend_marked(struct eng_backend *b, int32_t i, bool *done)
{
    int32_t there = 0;
    enum err e = ask(b, i, &there);
    *done = there;
    return e;
}

enum err eng_backend_look(struct eng_backend *b, int32_t i, bool *done)
{
    int32_t there = 0;
    enum err e = look(b, i, &there);
    *done = there;
    return e;
}

enum err eng_backend_reach(struct eng_backend *b, int32_t i) { return wait(b, i); }

/* Of sharing: what cannot be had is no failure of the device. */
static enum err had(const struct eng_backend *b, int failed, const char *text)
{
    return failed ? err_raise(ERR_UNSUPPORTED, "%s: %s", b->name, text) : OK;
}

enum err eng_backend_map(struct eng_backend *b, void *host, int64_t bytes, void **out)
{
    char text[PLUGIN_TEXT];
    return had(b, b->plugin->map_host(b->device, host, bytes, out, text), text);
}

void eng_backend_unmap(struct eng_backend *b, void *host) { b->plugin->unmap_host(b->device, host); }

void eng_backend_watch(struct eng_backend *b, enum err (*fn)(void *), void *user)
{
    b->watch = fn;
    b->watch_user = user;
}

void eng_backend_enter(struct eng_backend *b)
{
    if (!b->on_host) b->plugin->enter(b->device);
}

/* ---- as collectives see it ------------------------------------------------------------------------- */

static enum err dev_alloc(void *user, void **out, int64_t bytes) { return eng_backend_alloc(user, ENG_MEMORY_STEP, out, bytes); }
static void dev_free(void *user, void *p) { eng_backend_free(user, p); }
static enum err dev_copy(void *user, void *dst, const void *src, int64_t bytes) { return eng_backend_copy(user, dst, src, bytes); }
static enum err dev_upload(void *user, void *dst, const void *src, int64_t bytes) { return eng_backend_upload(user, dst, src, bytes); }
static enum err dev_download(void *user, void *dst, const void *src, int64_t bytes) { return eng_backend_download(user, dst, src, bytes); }

static enum err dev_reduce(void *user, const struct trn_reduce *plan, const float *parts, int64_t stride, float *out, int64_t n)
{
    struct eng_backend *b = user;
    char text[PLUGIN_TEXT];
    ASSERT(plan->n_parts <= KRN_TREE_PARTS);
    struct krn_tree_sum a = {.ops = plan->ops, .n_ops = plan->n_ops, .parts = parts, .stride = stride, .out = out, .n = n};
    return told(b, b->plugin->tree_sum(b->device, &a, text), text);
}

static enum err dev_mark(void *user, int32_t i) { return eng_backend_mark(user, i); }
static enum err dev_marked(void *user, int32_t i, bool *done) { return eng_backend_marked(user, i, done); }
static void dev_forget(void *user) { eng_backend_forget(user); }

_Static_assert(sizeof(struct trn_device_share) >= sizeof(struct plugin_share), "a share fits");

static enum err dev_share(void *user, void *p, struct trn_device_share *out)
{
    struct eng_backend *b = user;
    struct plugin_share s;
    char text[PLUGIN_TEXT];
    int failed = b->plugin->share(b->device, p, &s, text);
    memset(out, 0, sizeof *out);
    if (!failed) memcpy(out, &s, sizeof s);
    return had(b, failed, text);
}

static enum err dev_reach(void *user, const struct trn_device_share *s, void **out)
{
    struct eng_backend *b = user;
    struct plugin_share p;
    char text[PLUGIN_TEXT];
    memcpy(&p, s, sizeof p);
    return had(b, b->plugin->reach(b->device, &p, out, text), text);
}

static void dev_unreach(void *user, const struct trn_device_share *s, void *p)
{
    struct eng_backend *b = user;
    struct plugin_share from;
    memcpy(&from, s, sizeof from);
    b->plugin->unreach(b->device, &from, p);
}

static enum err dev_map_host(void *user, void *host, int64_t bytes, void **out) { return eng_backend_map(user, host, bytes, out); }
static void dev_unmap_host(void *user, void *host) { eng_backend_unmap(user, host); }

static enum err dev_exchange(void *user, const struct exchange *x)
{
    struct eng_backend *b = user;
    char text[PLUGIN_TEXT];
    return told(b, b->plugin->exchange(b->device, x, text), text);
}

static enum err dev_pack(void *user, const struct wire_pack *a)
{
    struct eng_backend *b = user;
    char text[PLUGIN_TEXT];
    return told(b, b->plugin->pack(b->device, a, text), text);
}

static enum err dev_unpack(void *user, const struct wire_unpack *a)
{
    struct eng_backend *b = user;
    char text[PLUGIN_TEXT];
    return told(b, b->plugin->unpack(b->device, a, text), text);
}

_Static_assert((int)TRN_DEVICE_MARKS + ENG_BACKEND_MARKS == (int)PLUGIN_MARKS && (int)TRN_DEVICE_PARTS == (int)KRN_TREE_PARTS, "two sides of one thing");

enum err eng_backend_device(struct eng_backend *b, struct trn_device *out)
{
    struct plugin_device_info info;
    char text[PLUGIN_TEXT];
    ASSERT(!b->on_host);
    enum err e = told(b, b->plugin->info(b->index, &info, text), text);
    if (e) return e;
    *out = (struct trn_device){.user = b, .stream = b->plugin->stream(b->device), .alloc = dev_alloc, .free = dev_free, .copy = dev_copy, .upload = dev_upload,
                               .download = dev_download, .reduce = dev_reduce, .mark = dev_mark, .marked = dev_marked, .forget = dev_forget,
                               .share = dev_share, .reach = dev_reach, .unreach = dev_unreach, .map_host = dev_map_host,
                               .unmap_host = dev_unmap_host, .exchange = dev_exchange, .pack = dev_pack, .unpack = dev_unpack};
    snprintf(out->where, sizeof out->where, "%s", info.where);
    return OK;
}

/* ---- open, close --------------------------------------------------------------------------------- */

/* The number after "cuda" or "cuda:"; -1: not such a name. */
static int32_t device_of(const char *device)
{
    if (strncmp(device, "cuda", 4) != 0) return -1;
    if (!device[4]) return 0;
    if (device[4] != ':' || device[5] < '0' || device[5] > '9' || strlen(device) > 8) return -1;
    char *end;
    long n = strtol(device + 5, &end, 10);
    return *end ? -1 : (int32_t)n;
}

static enum err open_device(struct eng_backend *b, int32_t device)
{
    enum err rc;
    char text[PLUGIN_TEXT];
    struct plugin_device_info info;
    TRY(eng_plugin_open(&b->library, &b->plugin));
    if (b->plugin->open(device, &b->device, text) || b->plugin->info(device, &info, text)) {
        rc = err_raise(ERR_BAD_CONFIG, "--device cuda:%d cannot be used: %s", device, text);
        goto out;
    }
    b->on_host = false;
    b->krn = b->plugin->krn;
    b->n_units = info.n_units;
    b->major = info.major;
    b->index = device;
    snprintf(b->name, sizeof b->name, "%s:%d", b->plugin->name, device);
    eng_backend_enter(b);
out:
    return rc;
}

enum err eng_backend_open(struct eng_backend **out, const char *device, const char *isa)
{
    enum err rc;
    struct eng_backend *b = xcalloc(1, sizeof *b);
    char name[24];
    int32_t n;
    *b = (struct eng_backend){.name = "cpu", .on_host = true};
    TRY(krn_table_pick(isa, &b->host));
    b->krn = b->host;
    TRY(eng_backend_choose(device ? device : "cpu", 0, name, &n, NULL));
    if (strcmp(name, "cpu") != 0) TRY(open_device(b, device_of(name)));
    *out = b, b = NULL;
out:
    eng_backend_close(b);
    return rc;
}

void eng_backend_close(struct eng_backend *b)
{
    if (!b) return;
    if (b->device) b->plugin->close(b->device);
    for (int32_t i = 0; i < b->n_blocks; i++) munmap(b->blocks[i].p, (size_t)b->blocks[i].bytes);
    free(b->blocks);
    eng_plugin_close(b->library);
    free(b);
}

/* Is it `name`, or `name+K` (*from = K: earlier cards are others')? */
static bool named(const char *want, const char *name, int32_t *from)
{
    size_t n = strlen(name);
    *from = 0;
    if (strncmp(want, name, n)) return false;
    if (!want[n]) return true;
    if (want[n] != '+' || want[n + 1] < '0' || want[n + 1] > '9' || strlen(want + n) > 4) return false;
    char *end;
    *from = (int32_t)strtol(want + n + 1, &end, 10);
    return !*end;
}

int32_t eng_backend_nth(const char *want, int32_t nth, int32_t n)
{
    int32_t from;
    if (named(want, "auto", &from)) return from + nth < n ? from + nth : -1;
    if (named(want, "cuda", &from)) return n ? (from + nth) % n : -1;
    return device_of(want);
}

/* Asking a card for more than its being there makes a context on it, which takes hundreds of megabytes: only the chosen one is asked. */
enum err eng_backend_choose(const char *want, int32_t nth, char out[24], int32_t *n, struct plugin_device_info *info)
{
    char why[PLUGIN_TEXT] = "";
    void *library = NULL;
    const struct plugin *p = NULL;
    int32_t from;
    bool any = named(want, "auto", &from);
    *n = 0;
    if (info) *info = (struct plugin_device_info){0};
    snprintf(out, 24, "cpu");
    if (!strcmp(want, "cpu")) return OK;
    if (!any && !named(want, "cuda", &from) && device_of(want) < 0) return err_raise(ERR_BAD_CONFIG, "--device %s is not known: use auto, cpu, cuda or cuda:N", want);
    if (eng_plugin_open(&library, &p)) snprintf(why, sizeof why, "%s", err_text());
    else if (p->count(n, why)) *n = 0;
    int32_t k = eng_backend_nth(want, nth, *n);
    bool there = k >= 0 && k < *n, mute = there && info && p->info(k, info, why);
    eng_plugin_close(library);
    if (there && !mute) snprintf(out, 24, "cuda:%d", k);
    if (any || (there && !mute)) return OK;
    if (*n && !there) return err_raise(ERR_BAD_CONFIG, "--device %s cannot be used: this machine has %d CUDA device(s), counted from 0", want, *n);
    return err_raise(ERR_BAD_CONFIG, "--device %s cannot be used: %s", want, why);
}

void eng_backend_devices(struct plugin_device_info out[], int32_t max, int32_t *n, char why[PLUGIN_TEXT])
{
    void *library = NULL;
    const struct plugin *p;
    int32_t k = 0;
    *n = 0;
    why[0] = '\0';
    if (eng_plugin_open(&library, &p)) {
        snprintf(why, PLUGIN_TEXT, "%s", err_text());
        return;
    }
    if (!p->count(&k, why))
        for (int32_t i = 0; i < MIN(k, max) && !p->info(i, &out[i], why); i++) *n = i + 1;
    eng_plugin_close(library);
}
