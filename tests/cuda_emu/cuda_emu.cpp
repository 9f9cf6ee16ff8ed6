// cuda_emu.cpp: devices, their memory, and the threads of a grid. See cuda_runtime.h and cuda_runtime_api.h; streams are in cuda_emu_stream.cpp.
#include "cuda_runtime.h"

#include "emu_impl.h"
#include "emu_order.h"
#include "emu_race.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

// ---- device memory --------------------------------------------------------------------------------

namespace {

using cuda_emu::hidden_mutex;
constexpr size_t REGION = (size_t)64 << 30, ALIGN = 4096;

size_t total_bytes()
{
    const char *n = getenv("CUDA_EMU_BYTES");
    return n ? (size_t)atoll(n) : (size_t)2 << 30;
}

struct memory {
    cuda_emu::hidden_mutex lock;
    char *base = nullptr;
    size_t used = 0;   // addresses handed out; freed ones are not handed out again, so stale pointers show
    size_t live = 0;
    int n_open = 0;    // kernels and copies at work
    std::vector<std::pair<char *, size_t>> all, pinned; // pinned: the host's
    std::map<char *, size_t> asked;

    void start()
    {
        if (base) return;
        void *p = mmap(nullptr, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) abort();
        base = (char *)p;
        cuda_emu::race_region(base, REGION);
    }
    void protect(int how)
    {
        for (auto &a : all)
            if (mprotect(a.first, a.second, how)) abort();
    }
};
memory mem;

bool on_device(const void *p, size_t n)
{
    std::lock_guard<hidden_mutex> g(mem.lock);
    for (auto &a : mem.all)
        if ((const char *)p >= a.first && (const char *)p + n <= a.first + a.second) return true;
    return false;
}

// May a copy that is not waited for use it?
bool is_registered(const void *p, size_t n)
{
    std::lock_guard<hidden_mutex> g(mem.lock);
    for (auto &a : mem.pinned)
        if ((const char *)p >= a.first && (const char *)p + n <= a.first + a.second) return true;
    return false;
}
bool is_pinned(const void *p, size_t n) { return is_registered(p, n) || !getenv("CUDA_EMU_PINNED"); }

int n_devices()
{
    const char *n = getenv("CUDA_EMU_DEVICES");
    return n ? atoi(n) : 1;
}

} // namespace

namespace cuda_emu {

cuda_emu_counts counts;
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t fail(cudaError_t e) { return last_error = e; }

opened::opened()
{
    std::lock_guard<hidden_mutex> g(mem.lock);
    if (mem.n_open++ == 0) mem.protect(PROT_READ | PROT_WRITE);
}
opened::~opened()
{
    std::lock_guard<hidden_mutex> g(mem.lock);
    if (--mem.n_open == 0) mem.protect(PROT_NONE);
}

void touch(void *dst, const void *src, size_t n)
{
    opened o;
    reads(src, n), writes(dst, n);
    memcpy(dst, src, n);
}

bool ordered_to_fail(const char *what)
{
    static hidden_mutex lock;
    static int n_malloc, n_launch, n_capture, n_graph;
    const char *order = getenv("CUDA_EMU_FAIL");
    std::lock_guard<hidden_mutex> g(lock);
    if (!order) return n_malloc = n_launch = n_capture = n_graph = 0, false;
    int n = ++(what[0] == 'm' ? n_malloc : what[0] == 'l' ? n_launch : what[0] == 'g' ? n_graph : n_capture);
    size_t len = strlen(what);
    return !strncmp(order, what, len) && order[len] == ':' && atoi(order + len + 1) == n;
}

} // namespace cuda_emu

using namespace cuda_emu;

extern "C" {

__attribute__((visibility("default"))) void cuda_emu_counted(struct cuda_emu_counts *out) { *out = counts; }

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = n_devices();
    return *n ? cudaSuccess : fail(cudaErrorNoDevice);
}
cudaError_t cudaDriverGetVersion(int *version)
{
    const char *v = getenv("CUDA_EMU_DRIVER");
    *version = v ? atoi(v) : CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    if (device < 0 || device >= n_devices()) return fail(cudaErrorInvalidValue);
    *p = cudaDeviceProp{};
    snprintf(p->name, sizeof p->name, "emulated device %d", device);
    p->totalGlobalMem = total_bytes();
    p->major = 8, p->minor = 0, p->multiProcessorCount = 2;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *v, cudaDeviceAttr which, int)
{
    *v = which == cudaDevAttrKernelExecTimeout ? getenv("CUDA_EMU_DISPLAY") != nullptr
         : which == cudaDevAttrClockRate ? 1000000 : which == cudaDevAttrMemoryClockRate ? 5000000 : 256;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device)
{
    snprintf(text, (size_t)size, "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
    return device >= 0 && device < n_devices() ? cudaSuccess : fail(cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    std::lock_guard<hidden_mutex> g(mem.lock);
    *total = total_bytes();
    *free_bytes = *total > mem.live ? *total - mem.live : 0;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    counts.allocations++;
    std::lock_guard<hidden_mutex> g(mem.lock);
    mem.start();
    size_t n = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (ordered_to_fail("malloc") || mem.live + n > total_bytes() || mem.used + n + ALIGN > REGION)
        return fail(cudaErrorMemoryAllocation);
    char *at = mem.base + mem.used;
    mem.used += n + ALIGN; // a page that is nobody's after each
    mem.live += n;
    if (mprotect(at, n, PROT_READ | PROT_WRITE)) abort();
    memset(at, 0xa5, n); // not zero: nobody may count on it
    if (!mem.n_open && mprotect(at, n, PROT_NONE)) abort();
    mem.all.push_back({at, n});
    race_allocated(at, bytes);
    counts.held += mem.asked[at] = bytes;
    *p = at;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    counts.allocations++;
    std::lock_guard<hidden_mutex> g(mem.lock);
    if (!p) return cudaSuccess;
    for (size_t i = 0; i < mem.all.size(); i++)
        if (mem.all[i].first == p) {
            mem.live -= mem.all[i].second;
            counts.held -= mem.asked[(char *)p];
            mem.asked.erase((char *)p);
            gone(p, mem.all[i].second);
            race_freed((char *)p, mem.all[i].second);
            if (mprotect(p, mem.all[i].second, PROT_NONE) || madvise(p, mem.all[i].second, MADV_DONTNEED)) abort();
            mem.all.erase(mem.all.begin() + (long)i);
            return cudaSuccess;
        }
    return fail(cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    counts.allocations++;
    std::lock_guard<hidden_mutex> g(mem.lock);
    if (ordered_to_fail("malloc")) return fail(cudaErrorMemoryAllocation);
    *p = malloc(bytes);
    mem.pinned.push_back({(char *)*p, bytes});
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    counts.allocations++;
    std::lock_guard<hidden_mutex> g(mem.lock);
    for (size_t i = 0; i < mem.pinned.size(); i++)
        if (mem.pinned[i].first == p) {
            gone(p, mem.pinned[i].second);
            mem.pinned.erase(mem.pinned.begin() + (long)i);
            free(p);
            return cudaSuccess;
        }
    return fail(cudaErrorInvalidValue);
}
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    counts.allocations++;
    std::lock_guard<hidden_mutex> g(mem.lock);
    if ((uintptr_t)p % 4096 || bytes % 4096) return fail(cudaErrorInvalidValue);
    mem.pinned.push_back({(char *)p, bytes});
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p)
{
    std::lock_guard<hidden_mutex> g(mem.lock);
    for (size_t i = 0; i < mem.pinned.size(); i++)
        if (mem.pinned[i].first == p) {
            mem.pinned.erase(mem.pinned.begin() + (long)i);
            return cudaSuccess;
        }
    return fail(cudaErrorInvalidValue);
}
cudaError_t cudaHostGetDevicePointer(void **out, void *host, unsigned)
{
    *out = host;
    return cudaSuccess;
}
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *h, void *p)
{
    *h = {};
    return on_device(p, 1) ? cudaSuccess : fail(cudaErrorInvalidValue);
}
cudaError_t cudaIpcOpenMemHandle(void **, cudaIpcMemHandle_t, unsigned) { return fail(cudaErrorNotSupported); }
cudaError_t cudaIpcCloseMemHandle(void *) { return fail(cudaErrorNotSupported); }
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int)
{
    *can = !getenv("CUDA_EMU_APART");
    return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
    bool dst_there = kind != cudaMemcpyDeviceToHost, src_there = kind != cudaMemcpyHostToDevice, within = dst_there && src_there;
    if (!bytes) return cudaSuccess;
    if (!within && spoil_capture()) return fail(cudaErrorStreamCaptureUnsupported);
    if (on_device(dst, bytes) != dst_there || on_device(src, bytes) != src_there) return fail(cudaErrorInvalidValue);
    if ((!dst_there && !is_pinned(dst, bytes)) || (!src_there && !is_pinned(src, bytes))) return fail(cudaErrorInvalidValue);
    tell(s, [=] { touch(dst, src, bytes); });
    if (within || is_registered(dst_there ? src : dst, bytes)) return cudaSuccess;
    counts.waits++;
    drain(s); // it may be reused at once
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t s)
{
    if (!on_device(dst, bytes)) return fail(cudaErrorInvalidValue);
    tell(s, [=] {
        opened o;
        memset(dst, value, bytes);
    });
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorPeerAccessAlreadyEnabled: return "peer access is already enabled";
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    }
    return "unknown error";
}

} // extern "C"

// ---- a grid's threads -------------------------------------------------------------------------------

namespace cuda_emu {
namespace {

#if !defined(__x86_64__)
#error "the emulation of CUDA switches fibers in x86-64 assembly"
#endif
extern "C" void cuda_emu_switch(void **save, void *load);
__asm__(".text\n"
        ".globl cuda_emu_switch\n"
        ".hidden cuda_emu_switch\n"
        "cuda_emu_switch:\n"
        " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
        " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");

constexpr size_t STACK = 64 << 10;
enum state { RUNNING, AT_BARRIER, IN_WARP, ENDED };

struct brought {
    void *to;
    const void *from;
    unsigned group;
};
struct fiber {
    void *sp;
    place at;
    unsigned index;
    state st;
    bool begun;
    unsigned turn;            // of the warp, when it began to wait
    unsigned n_groups;        // of what it brings
    std::deque<brought> late; // what is on its way
};
struct warp {
    uint64_t slot[2][32];
    unsigned arrived[2], turn;
    unsigned met; // __syncwarps
};
// Kept by the thread for its next grid.
struct stacks {
    char *at = nullptr;
    unsigned n = 0;
    char *of(unsigned want)
    {
        if (want > n) {
            drop();
            at = (char *)mmap(nullptr, STACK * want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (at == MAP_FAILED) abort();
            n = want;
        }
        return at;
    }
    void drop()
    {
        if (n) munmap(at, STACK * n);
        n = 0;
    }
    ~stacks() { drop(); }
};
thread_local stacks kept;
struct block {
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    unsigned n, n_live, n_waiting;
    body_fn body;
    void *arg, *main_sp;
    char *stacks;
    bool reverse;
};
thread_local block *now;
thread_local fiber *me;

[[noreturn]] void die(const char *why)
{
    fprintf(stderr, "cuda_emu: %s", why);
    if (me) fprintf(stderr, " (block %u,%u,%u, thread %u)", me->at.block.x, me->at.block.y, me->at.block.z, me->index);
    fputc('\n', stderr);
    abort();
}

void go_on(fiber &f)
{
    me = &f;
    race_thread(f.index, now->warps[f.index / 32].met);
}

// The next fiber that can go on; the caller's when nobody else can.
void next()
{
    fiber *mine = me;
    for (unsigned k = 1; k <= now->n; k++) {
        unsigned j = now->reverse ? mine->index + now->n - k : mine->index + k;
        fiber &f = now->fibers[j < now->n ? j : j - now->n];
        if (f.st == IN_WARP && now->warps[f.index / 32].turn != f.turn) f.st = RUNNING;
        if (f.st != RUNNING) continue;
        if (&f == mine) return;
        go_on(f);
        cuda_emu_switch(&mine->sp, f.sp);
        return;
    }
    if (now->n_live) die("threads wait for threads that do not come: a barrier not all reach, or a wrong mask");
    void *unused;
    me = nullptr;
    cuda_emu_switch(&unused, now->main_sp);
}

void open_barrier()
{
    if (now->n_waiting != now->n_live) return;
    for (auto &f : now->fibers)
        if (f.st == AT_BARRIER) f.st = RUNNING;
    now->n_waiting = 0;
    for (auto &w : now->warps) w.met = 0;
    race_barrier();
    if (me) go_on(*me);
}

void must_have_begun()
{
#ifdef CUDA_EMU_BEGINS
    if (!me->begun)
        die("a thread has passed its kernel's cu_begin by: on newer cards it would not wait for the kernel before");
#endif
}

void start()
{
    now->body(now->arg);
    must_have_begun();
    me->st = ENDED;
    now->n_live--;
    if (now->n_live && now->n_waiting) open_barrier();
    next();
}

void run_block(block &b, const dim3 &grid, const dim3 &dim, const dim3 &index)
{
    b.n_live = b.n;
    b.n_waiting = 0;
    for (auto &w : b.warps) w.turn = w.arrived[0] = w.arrived[1] = w.met = 0;
    for (unsigned i = 0; i < b.n; i++) {
        fiber &f = b.fibers[i];
        f.index = i;
        f.at = {dim3(i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)), index, dim, grid, i % 32};
        f.st = RUNNING, f.begun = false;
        f.n_groups = 0, f.late.clear();
        void **sp = (void **)(b.stacks + STACK * (i + 1) - 16);
        *--sp = nullptr; // where start() would return to
        *--sp = (void *)start;
        for (int k = 0; k < 6; k++) *--sp = nullptr;
        f.sp = sp;
    }
    race_block(index.x, index.y, index.z);
    go_on(b.fibers[b.reverse ? b.n - 1 : 0]);
    cuda_emu_switch(&b.main_sp, me->sp);
}

} // namespace

const place &here() { return me->at; }

void begin() { me->begun = true; }
#ifdef CUDA_EMU_BEGINS
bool has_begun() { return me->begun; }
#else
bool has_begun() { return true; }
#endif

void pause() { sched_yield(); }
void fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

bool bring(void *to, const void *from)
{
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) die("16 bytes are brought from or to where they are not aligned");
    if (now->reverse) return false;
    me->late.push_back({to, from, me->n_groups});
    return true;
}

void bring_group() { me->n_groups++; }

bool arrives(unsigned n, void **to, const void **from)
{
    if (me->late.empty() || me->late.front().group + n >= me->n_groups) return false;
    *to = me->late.front().to, *from = me->late.front().from;
    me->late.pop_front();
    return true;
}

void sync_threads()
{
    must_have_begun();
    me->st = AT_BARRIER;
    now->n_waiting++;
    open_barrier();
    if (me->st == AT_BARRIER) next();
}

uint64_t exchange(unsigned mask, uint64_t mine, unsigned from)
{
    must_have_begun();
    warp &w = now->warps[me->index / 32];
    unsigned lane = me->at.lane, turn = w.turn, side = turn & 1;
    if (!(mask >> lane & 1)) die("a lane shuffles with a mask that leaves it out");
    if (!(mask >> (from & 31) & 1)) die("a lane reads from a lane outside the mask");
    w.slot[side][lane] = mine;
    w.arrived[side] |= 1u << lane;
    if ((w.arrived[side] & mask) == mask) {
        w.arrived[!side] = 0;
        w.turn++;
    } else {
        me->st = IN_WARP;
        me->turn = turn;
        next();
    }
    return w.slot[side][from & 31];
}

void sync_warp(unsigned mask)
{
    warp &w = now->warps[me->index / 32];
    unsigned met = w.met;
    (void)exchange(mask, 0, me->at.lane);
    if (mask == 0xffffffffu && w.met == met) w.met++; // the first that comes out; none is in the next one before all have left this
    race_thread(me->index, w.met);
}

void run(dim3 grid, dim3 dim, body_fn body, void *arg)
{
    if (ordered_to_fail("launch")) {
        last_error = cudaErrorLaunchFailure;
        return;
    }
    block b = {};
    const char *order = getenv("CUDA_EMU_ORDER");
    b.n = dim.x * dim.y * dim.z;
    if (!b.n || b.n > 1024 || !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535) {
        last_error = cudaErrorInvalidValue; // as the real thing refuses it
        return;
    }
    b.body = body, b.arg = arg;
    b.reverse = order && !strcmp(order, "reverse");
    b.fibers.resize(b.n);
    b.warps.resize((b.n + 31) / 32);
    b.stacks = kept.of(b.n);
    opened o;
    now = &b;
    race_grid(true, b.stacks, STACK * b.n);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) run_block(b, grid, dim, dim3(x, y, z));
    race_grid(false, nullptr, 0);
    now = nullptr;
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(b.stacks, STACK * b.n); // a fiber's last frame never ends: whoever gets these addresses next would see its marks
#endif
}

// An aligned word that is the address of mapped memory outside the device's region is a pointer of the
// host's. Two numbers side by side can look like one too, so words whose lower half is small are passed
// over: most mistakes are found, and nothing else.
void check_argument(const void *bytes, size_t n)
{
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, (const char *)bytes + i, 8);
        if (word < (uint64_t)1 << 46 || word >> 47 || (uint32_t)word < 1u << 24) continue; // programs and heaps lie high
        if ((char *)word >= mem.base && (char *)word < mem.base + REGION) continue;
        if (is_registered((void *)word, 1)) continue;
        unsigned char in;
        long page = sysconf(_SC_PAGESIZE);
        if (mincore((void *)(word & ~((uint64_t)page - 1)), (size_t)page, &in) == 0)
            die("a kernel is given a pointer into the host's memory");
    }
}

} // namespace cuda_emu
