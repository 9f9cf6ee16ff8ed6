/* plugin.c: the CUDA devices of this machine behind engine/backend/plugin.h.
 *
 * One stream per device: everything is ordered, and nothing waits but downloads and sync. The first
 * failure of a device is kept, with what was going on, and told by the next call that can report.
 * Linked against the CUDA runtime alone: it finds the driver itself, and says so where there is none. */
#include "engine/backend/plugin.h"
#include "engine/kernels/cuda/choose.h"
#include "engine/kernels/cuda/cuda.h"
#include "engine/kernels/cuda/experts.h"
#include "engine/kernels/cuda/heads.h"
#include "engine/kernels/cuda/lt.h"
#include "engine/kernels/cuda/rows.h"
#include "engine/kernels/pack.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SCRATCH = 64 << 10,
    GRAPHS = 128,
    PIECES = 32, PIECE_BYTES = 128 << 10, /* of pinned memory: a few steps' uploads are on their way at once */
    DISPLAY_BYTES = 512 << 20, /* a desktop's windows come and go; a card with one has a run time limit on kernels */
    DP4A_LANES = 64, /* per multiprocessor and clock: four products and four additions each */
};

struct plugin_device {
    int32_t index;
    cudaStream_t stream;
    void *scratch;      /* of reductions */
    void **blocks;      /* what is allocated, freed at close */
    int32_t n_blocks, cap_blocks;
    cudaEvent_t marks[PLUGIN_MARKS];
    struct { uint64_t key; cudaGraphExec_t exec; } graphs[GRAPHS];
    int32_t n_graphs;
    uint8_t *pinned;            /* PIECES pieces, used in turn; a piece is free again when the device has come to its event */
    cudaEvent_t passed[PIECES];
    uint32_t next_piece;
    struct krn_lt lt;
    int has_lt;
    int early; /* kernels begin while the one before them works (cu_begin) */
    int recording;
    cudaError_t spoiled; /* while recording: what will not be captured */
    cudaError_t failed; /* the first */
    char failed_at[64];
};

static _Thread_local struct plugin_device *current;

/* ---- what the kernels call ---- */

cudaStream_t krn_cuda_stream(void);
void krn_cuda_launched(const char *what);
void *krn_cuda_scratch(void);
int krn_cuda_early(void);
void krn_cuda_fetch(void *dst, const void *src, int64_t bytes);

static void note(struct plugin_device *d, cudaError_t e, const char *what)
{
    if (e == cudaSuccess || d->failed != cudaSuccess) return;
    d->failed = e;
    snprintf(d->failed_at, sizeof d->failed_at, "%s", what);
}

cudaStream_t krn_cuda_stream(void) { return current->stream; }
void krn_cuda_launched(const char *what)
{
    cudaError_t e = cudaGetLastError();
    if (current->recording && e != cudaSuccess) current->spoiled = e;
    else note(current, e, what);
}
int krn_cuda_early(void) { return current->early; }
void *krn_cuda_scratch(void) { return current->scratch; }
struct krn_lt *krn_cuda_lt(void) { return current->has_lt ? &current->lt : NULL; }

/* ---- between the host's memory and the device's ----
 *
 * The card copies from and to pinned memory without a wait; everybody else's memory is not, so bytes go by pieces of ours. An upload returns
 * when its bytes are in them, a download when its own have come. */

/* The next piece, once the device is done with it. */
static int32_t take_piece(struct plugin_device *d)
{
    int32_t i = (int32_t)(d->next_piece++ % PIECES);
    note(d, cudaEventSynchronize(d->passed[i]), "kernels");
    return i;
}

static void *piece(const struct plugin_device *d, int32_t i) { return d->pinned + (int64_t)i * PIECE_BYTES; }
static int64_t piece_at(int64_t at, int64_t bytes) { return bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES; }

static void send(struct plugin_device *d, void *dst, const void *src, int64_t bytes)
{
    for (int64_t at = 0, n; at < bytes && d->failed == cudaSuccess; at += n) {
        int32_t i = take_piece(d);
        n = piece_at(at, bytes);
        memcpy(piece(d, i), (const char *)src + at, (size_t)n);
        note(d, cudaMemcpyAsync((char *)dst + at, piece(d, i), (size_t)n, cudaMemcpyHostToDevice, d->stream), "copy to the device");
        note(d, cudaEventRecord(d->passed[i], d->stream), "cudaEventRecord");
    }
}

static void fetch(struct plugin_device *d, void *dst, const void *src, int64_t bytes)
{
    for (int64_t told = 0, at = 0, n; at < bytes && d->failed == cudaSuccess; at += n) {
        for (; told < bytes && told - at < (int64_t)PIECES * PIECE_BYTES; told += n) {
            int32_t i = take_piece(d);
            n = piece_at(told, bytes);
            note(d, cudaMemcpyAsync(piece(d, i), (const char *)src + told, (size_t)n, cudaMemcpyDeviceToHost, d->stream), "copy to the host");
            note(d, cudaEventRecord(d->passed[i], d->stream), "cudaEventRecord");
        }
        uint32_t on_their_way = (uint32_t)((told - at + PIECE_BYTES - 1) / PIECE_BYTES);
        int32_t oldest = (int32_t)((d->next_piece - on_their_way) % PIECES);
        n = piece_at(at, bytes);
        note(d, cudaEventSynchronize(d->passed[oldest]), "kernels");
        memcpy((char *)dst + at, piece(d, oldest), (size_t)n);
    }
}

void krn_cuda_fetch(void *dst, const void *src, int64_t bytes) { fetch(current, dst, src, bytes); }

/* ---- devices ---- */

static int fail(char *text, cudaError_t e, const char *what)
{
    snprintf(text, PLUGIN_TEXT, "%s: %s", what, cudaGetErrorString(e));
    return 1;
}

/* What is kept of d, or success. */
static int report(const struct plugin_device *d, char *text)
{
    if (d->failed == cudaSuccess) return 0;
    snprintf(text, PLUGIN_TEXT, "CUDA device %d failed (%s): %s", d->index, d->failed_at, cudaGetErrorString(d->failed));
    return 1;
}

static int count(int32_t *n, char *text)
{
    int k = 0, driver = 0;
    *n = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        snprintf(text, PLUGIN_TEXT, "this machine has no NVIDIA driver");
        return 1;
    }
    if (driver / 1000 < CUDART_VERSION / 1000) { /* within a major version newer runtimes run on older drivers */
        snprintf(text, PLUGIN_TEXT, "the NVIDIA driver of this machine is for CUDA %d.%d, this build needs %d: update the driver", driver / 1000,
                 driver % 1000 / 10, CUDART_VERSION / 1000);
        return 1;
    }
    cudaError_t e = cudaGetDeviceCount(&k);
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        return fail(text, e, "no CUDA device can be used");
    }
    *n = k;
    return 0;
}

static int info(int32_t device, struct plugin_device_info *out, char *text)
{
    struct cudaDeviceProp p;
    size_t free_bytes = 0, total = 0;
    cudaError_t e = cudaGetDeviceProperties(&p, device);
    if (e == cudaSuccess) e = cudaSetDevice(device);
    if (e == cudaSuccess) e = cudaMemGetInfo(&free_bytes, &total);
    if (e != cudaSuccess) return fail(text, e, "a CUDA device does not tell what it is");
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%.95s", p.name);
    (void)cudaDeviceGetPCIBusId(out->where, sizeof out->where, device);
    out->total_bytes = (int64_t)total;
    out->free_bytes = (int64_t)free_bytes;
    int clock_khz = 0, memory_khz = 0, bits = 0, display = 0;
    (void)cudaDeviceGetAttribute(&display, cudaDevAttrKernelExecTimeout, device);
    if (display) out->free_bytes = out->free_bytes > DISPLAY_BYTES ? out->free_bytes - DISPLAY_BYTES : 0;
    (void)cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, device);
    (void)cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, device);
    (void)cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, device);
    out->read_bytes_s = 2.0 * memory_khz * 1e3 * bits / 8;
    out->ops_s = (double)p.multiProcessorCount * clock_khz * 1e3 * DP4A_LANES * 8;
    out->n_units = p.multiProcessorCount;
    out->major = p.major;
    out->minor = p.minor;
    return 0;
}

static void enter(struct plugin_device *d)
{
    current = d;
    note(d, cudaSetDevice(d->index), "cudaSetDevice");
}

static void release(struct plugin_device *d, void *p)
{
    for (int32_t i = 0; i < d->n_blocks; i++)
        if (d->blocks[i] == p) {
            d->blocks[i] = d->blocks[--d->n_blocks];
            enter(d);
            note(d, cudaStreamSynchronize(d->stream), "kernels");
            note(d, cudaFree(p), "cudaFree");
            return;
        }
}

static void forget(struct plugin_device *d)
{
    cudaGraph_t g = NULL;
    enter(d);
    if (d->recording) (void)cudaStreamEndCapture(d->stream, &g);
    if (g) (void)cudaGraphDestroy(g);
    d->recording = 0;
    for (int32_t i = 0; i < d->n_graphs; i++) (void)cudaGraphExecDestroy(d->graphs[i].exec);
    d->n_graphs = 0;
    (void)cudaGetLastError();
}

static void close_device(struct plugin_device *d)
{
    if (!d) return;
    enter(d);
    if (d->stream) (void)cudaStreamSynchronize(d->stream);
    for (int32_t i = 0; i < d->n_blocks; i++) (void)cudaFree(d->blocks[i]);
    forget(d);
    for (int32_t i = 0; i < PLUGIN_MARKS; i++)
        if (d->marks[i]) (void)cudaEventDestroy(d->marks[i]);
    for (int32_t i = 0; i < PIECES; i++)
        if (d->passed[i]) (void)cudaEventDestroy(d->passed[i]);
    if (d->pinned) (void)cudaFreeHost(d->pinned);
    if (d->has_lt) krn_lt_close(&d->lt);
    if (d->stream) (void)cudaStreamDestroy(d->stream);
    free(d->blocks);
    free(d);
    current = NULL;
}

static int alloc(struct plugin_device *d, void **out, int64_t bytes, char *text)
{
    void *p = NULL;
    if (report(d, text)) return 1;
    if (d->n_blocks == d->cap_blocks) {
        int32_t cap = d->cap_blocks ? 2 * d->cap_blocks : 64;
        void **blocks = realloc(d->blocks, (size_t)cap * sizeof *blocks);
        if (!blocks) return fail(text, cudaErrorMemoryAllocation, "the host's memory");
        d->blocks = blocks;
        d->cap_blocks = cap;
    }
    size_t n = bytes > 0 ? (size_t)bytes : 1, free_bytes = 0, total = 0;
    cudaError_t e = cudaMalloc(&p, n);
    if (e != cudaSuccess) {
        (void)cudaGetLastError(); /* not a failure of the device: the caller may ask for less */
        (void)cudaMemGetInfo(&free_bytes, &total);
        snprintf(text, PLUGIN_TEXT, "CUDA device %d has no %.1f MB left (%.1f of %.1f MB are free): %s", d->index, (double)n / 1e6,
                 (double)free_bytes / 1e6, (double)total / 1e6, cudaGetErrorString(e));
        return 1;
    }
    d->blocks[d->n_blocks++] = p;
    note(d, cudaMemsetAsync(p, 0, n, d->stream), "clearing memory");
    *out = p;
    return report(d, text);
}

static int upload(struct plugin_device *d, void *dst, const void *src, int64_t bytes, char *text)
{
    send(d, dst, src, bytes);
    return report(d, text);
}

static int copy(struct plugin_device *d, void *dst, const void *src, int64_t bytes, char *text)
{
    if (bytes > 0) note(d, cudaMemcpyAsync(dst, src, (size_t)bytes, cudaMemcpyDeviceToDevice, d->stream), "copy on the device");
    return report(d, text);
}

static int clear(struct plugin_device *d, void *p, int64_t bytes, char *text)
{
    if (bytes > 0) note(d, cudaMemsetAsync(p, 0, (size_t)bytes, d->stream), "clearing memory");
    return report(d, text);
}

static int sync_device(struct plugin_device *d, char *text)
{
    note(d, cudaStreamSynchronize(d->stream), "kernels");
    return report(d, text);
}

static int download(struct plugin_device *d, void *dst, const void *src, int64_t bytes, char *text)
{
    if (bytes <= 0) return sync_device(d, text);
    fetch(d, dst, src, bytes);
    return report(d, text);
}

static void *stream_of(struct plugin_device *d) { return d->stream; }

/* Of a query: not yet is no failure. */
static int answer(struct plugin_device *d, cudaError_t e, int32_t *done, const char *what, char *text)
{
    *done = e == cudaSuccess;
    if (e == cudaErrorNotReady) (void)cudaGetLastError();
    else note(d, e, what);
    return report(d, text);
}

static int ready(struct plugin_device *d, int32_t *done, char *text) { return answer(d, cudaStreamQuery(d->stream), done, "kernels", text); }

static int mark(struct plugin_device *d, int32_t i, char *text)
{
    note(d, cudaEventRecord(d->marks[i], d->stream), "cudaEventRecord");
    return report(d, text);
}

static int marked(struct plugin_device *d, int32_t i, int32_t *done, char *text)
{
    return answer(d, cudaEventQuery(d->marks[i]), done, "kernels", text);
}

static int begin_record(struct plugin_device *d, char *text)
{
    enter(d);
    if (report(d, text)) return 1;
    cudaError_t e = cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeRelaxed);
    d->recording = e == cudaSuccess;
    d->spoiled = cudaSuccess;
    if (e != cudaSuccess) (void)cudaGetLastError();
    return e == cudaSuccess ? 0 : fail(text, e, "a graph cannot be begun");
}

static int keep(struct plugin_device *d, uint64_t key, int32_t *n, char *text)
{
    size_t nodes = 0;
    cudaGraph_t g = NULL;
    cudaGraphExec_t exec = NULL;
    cudaError_t e = cudaStreamEndCapture(d->stream, &g);
    d->recording = 0;
    if (e == cudaSuccess) e = d->spoiled;
    if (e == cudaSuccess && d->n_graphs == GRAPHS) e = cudaErrorMemoryAllocation;
    if (e == cudaSuccess) e = cudaGraphGetNodes(g, NULL, &nodes);
    if (e == cudaSuccess) e = cudaGraphInstantiate(&exec, g, 0);
    if (e == cudaSuccess) e = cudaGraphUpload(exec, d->stream); /* so that the first launch allocates nothing either */
    if (g) (void)cudaGraphDestroy(g);
    if (e != cudaSuccess) {
        if (exec) (void)cudaGraphExecDestroy(exec);
        (void)cudaGetLastError(); /* not a failure of the device */
        return fail(text, e, "a graph cannot be made");
    }
    d->graphs[d->n_graphs].key = key;
    d->graphs[d->n_graphs++].exec = exec;
    *n = (int32_t)nodes;
    return 0;
}

static int replay(struct plugin_device *d, uint64_t key, int32_t *known, char *text)
{
    *known = 0;
    for (int32_t i = 0; i < d->n_graphs; i++)
        if (d->graphs[i].key == key) {
            *known = 1;
            note(d, cudaGraphLaunch(d->graphs[i].exec, d->stream), "a graph");
            break;
        }
    return report(d, text);
}

static int tree_sum(struct plugin_device *d, const struct krn_tree_sum *a, char *text)
{
    enter(d);
    krn_cuda_tree_sum(a);
    return report(d, text);
}

/* ---- what ranks reach ---- */

_Static_assert(sizeof(cudaIpcMemHandle_t) <= sizeof((struct plugin_share *)0)->handle, "a handle fits");

static int share(struct plugin_device *d, void *p, struct plugin_share *out, char *text)
{
    cudaIpcMemHandle_t h;
    enter(d);
    memset(out, 0, sizeof *out);
    cudaError_t e = cudaIpcGetMemHandle(&h, p);
    (void)cudaGetLastError(); /* not a failure of the device */
    if (e != cudaSuccess) return fail(text, e, "memory of a card cannot be shared");
    *out = (struct plugin_share){.pid = (int32_t)getpid(), .device = d->index, .p = p};
    memcpy(out->handle, &h, sizeof h);
    return 0;
}

/* Ranks of one process see the same addresses, once their cards reach each other. */
static int reach(struct plugin_device *d, const struct plugin_share *s, void **out, char *text)
{
    cudaIpcMemHandle_t h;
    cudaError_t e = cudaSuccess;
    int can = 1;
    enter(d);
    if (s->pid == (int32_t)getpid()) {
        if (s->device != d->index) e = cudaDeviceCanAccessPeer(&can, d->index, s->device);
        if (s->device != d->index && e == cudaSuccess && can) e = cudaDeviceEnablePeerAccess(s->device, 0);
        if (e == cudaErrorPeerAccessAlreadyEnabled) e = cudaSuccess;
        *out = s->p;
    } else {
        memcpy(&h, s->handle, sizeof h);
        e = cudaIpcOpenMemHandle(out, h, cudaIpcMemLazyEnablePeerAccess);
    }
    (void)cudaGetLastError();
    if (!can) snprintf(text, PLUGIN_TEXT, "cards %d and %d do not reach each other's memory", d->index, s->device);
    return !can ? 1 : e != cudaSuccess ? fail(text, e, "another card's memory cannot be reached") : 0;
}

static void unreach(struct plugin_device *d, const struct plugin_share *s, void *p)
{
    enter(d);
    if (s->pid != (int32_t)getpid()) (void)cudaIpcCloseMemHandle(p);
}

static int map_host(struct plugin_device *d, void *host, int64_t bytes, void **out, char *text)
{
    enter(d);
    cudaError_t e = cudaHostRegister(host, (size_t)bytes, cudaHostRegisterMapped | cudaHostRegisterPortable);
    if (e == cudaSuccess && (e = cudaHostGetDevicePointer(out, host, 0)) != cudaSuccess) (void)cudaHostUnregister(host);
    (void)cudaGetLastError();
    return e == cudaSuccess ? 0 : fail(text, e, "memory of the host cannot be mapped");
}

static void unmap_host(struct plugin_device *d, void *host)
{
    enter(d);
    (void)cudaStreamSynchronize(d->stream);
    (void)cudaHostUnregister(host);
}

static int exchange(struct plugin_device *d, const struct exchange *x, char *text)
{
    enter(d);
    krn_cuda_exchange(x);
    return report(d, text);
}

static int wire_pack(struct plugin_device *d, const struct wire_pack *a, char *text)
{
    enter(d);
    krn_cuda_wire_pack(a);
    return report(d, text);
}

static int wire_unpack(struct plugin_device *d, const struct wire_unpack *a, char *text)
{
    enter(d);
    krn_cuda_wire_unpack(a);
    return report(d, text);
}

static int open_device(int32_t device, struct plugin_device **out, char *text)
{
    int32_t n = 0;
    if (count(&n, text)) return 1;
    if (device < 0 || device >= n) {
        snprintf(text, PLUGIN_TEXT, "there is no CUDA device %d: this machine has %d, counted from 0", device, n);
        return 1;
    }
    struct plugin_device *d = calloc(1, sizeof *d);
    if (!d) return fail(text, cudaErrorMemoryAllocation, "the host's memory");
    d->index = device;
    enter(d);
    note(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "cudaStreamCreate");
    for (int32_t i = 0; i < PLUGIN_MARKS; i++) note(d, cudaEventCreateWithFlags(&d->marks[i], cudaEventDisableTiming), "cudaEventCreate");
    for (int32_t i = 0; i < PIECES; i++) note(d, cudaEventCreateWithFlags(&d->passed[i], cudaEventDisableTiming), "cudaEventCreate");
    note(d, cudaMallocHost((void **)&d->pinned, (size_t)PIECES * PIECE_BYTES), "pinned memory");
    if (report(d, text) || alloc(d, &d->scratch, SCRATCH, text)) {
        close_device(d);
        return 1;
    }
    const char *said = getenv("TESSERA_PDL"); /* off: for comparison */
    d->early = krn_cuda_begins() && !(said && !strcmp(said, "off"));
    *out = d;
    return 0;
}

/* Without the library, or room for it, ours are used. */
static void rounded_begin(struct plugin_device *d, char *how)
{
    char why[PLUGIN_TEXT - 64] = "";
    enter(d);
    if (!d->lt.room && (alloc(d, &d->lt.room, KRN_LT_ROOM, how) || alloc(d, &d->lt.workspace, KRN_LT_WORKSPACE, how))) return;
    if (!d->has_lt) d->has_lt = krn_lt_open(&d->lt, why, sizeof why);
    if (d->has_lt) snprintf(how, PLUGIN_TEXT, "by cuBLASLt from %d tokens on", KRN_LT_TOKENS);
    else snprintf(how, PLUGIN_TEXT, "without cuBLASLt: %s", why);
}

static const struct krn_rounded rounded = {.name = "cuda", .interleave = krn_cuda_rounded_pairs, .matmul = krn_cuda_rounded_matmul,
                                           .attention = krn_cuda_rounded_attention};

static const struct plugin plugin = {
    .abi = PLUGIN_ABI,
    .layout = KRN_LAYOUT_VERSION,
    .name = "cuda",
    .krn = &krn_cuda,
    .reads = krn_cuda_reads,
    .copy_rows = krn_cuda_copy_rows,
    .copy_codes = krn_cuda_copy_codes,
    .count = count,
    .info = info,
    .open = open_device,
    .close = close_device,
    .enter = enter,
    .alloc = alloc,
    .free = release,
    .upload = upload,
    .download = download,
    .copy = copy,
    .clear = clear,
    .sync = sync_device,
    .stream = stream_of,
    .ready = ready,
    .mark = mark,
    .marked = marked,
    .record = begin_record,
    .keep = keep,
    .replay = replay,
    .forget = forget,
    .best = krn_cuda_best,
    .draw = krn_cuda_draw,
    .top = krn_cuda_top,
    .chosen = krn_cuda_chosen,
    .among = krn_cuda_among,
    .merge_best = krn_cuda_merge_best,
    .merge_top = krn_cuda_merge_top,
    .inputs = krn_cuda_inputs,
    .rounded = &rounded,
    .fused = &krn_cuda_fused,
    .rounded_begin = rounded_begin,
    .heads = {.squares = krn_cuda_head_squares, .norm = krn_cuda_head_norm},
    .experts = {.route = krn_cuda_route, .matmul = krn_cuda_matmul_slots, .group = krn_cuda_group, .matmul_grouped = krn_cuda_matmul_grouped,
                .combine = krn_cuda_combine, .slot_bias = krn_cuda_slot_bias, .token_bias = krn_cuda_token_bias},
    .tree_sum = tree_sum,
    .share = share,
    .reach = reach,
    .unreach = unreach,
    .map_host = map_host,
    .unmap_host = unmap_host,
    .exchange = exchange,
    .pack = wire_pack,
    .unpack = wire_unpack,
};

__attribute__((visibility("default"))) const struct plugin *tessera_backend_plugin(void);
const struct plugin *tessera_backend_plugin(void) { return &plugin; }
