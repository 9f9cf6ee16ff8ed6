// emu_race.cpp: every access of every emulated thread, held against the model of memory that a card has.
//
// Kernels are compiled with -fsanitize=thread, whose calls come here and not to that sanitizer's library: it knows threads of a machine, not blocks
// and barriers, and would need a clock for each of a grid's threads. Here the order is simple. Two accesses of one grid to the same bytes, one of
// them a write, are a race unless they are of one thread, or of one block with a __syncthreads between them, or of one warp with a __syncwarp
// between them, or both atomic. A shuffle orders nothing: CUDA promises none. Threads of two blocks are never ordered. What no barrier
// orders is found in whatever order threads happened to run.
//
// The process ends with the place in the source at
//   a race in device or shared memory,
//   an access outside of what cudaMalloc gave, to the byte; one before the kernel's cu_begin.
// Not what is read before it is written: kernels of tiles compute tails from what lies there and use nothing of it.
//
// A word of four bytes has a cell (what wrote it last, who has read it), its bytes have one each once they are accessed singly. Kernels on different
// streams are not compared: volatile flags order them (exchange.cu), and that is the thread sanitizer's to judge (preset tsan).
#include "emu_race.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <initializer_list>
#include <link.h>
#include <sys/mman.h>

namespace cuda_emu {
namespace {

constexpr size_t PAGE = 4096;

struct access {
    uint32_t segment; // counts barriers, blocks and grids of a stream; 0: nobody
    uint16_t met;     // __syncwarps of its warp before
    uint16_t thread : 10, stream : 5, atomic : 1;
};
static_assert(sizeof(access) == 8, "");

struct cell {
    access write;
    access first, last; // of those that have read since the last barrier: two different threads, or twice the same
    access other;       // of those of another block that have read
};

// One per word and one per byte of a piece of memory.
struct shadow {
    char *base = nullptr;
    size_t bytes = 0;
    cell *words = nullptr, *singly = nullptr;
    uint8_t *split = nullptr; // of a word: its bytes have cells

    void open(char *at, size_t n)
    {
        base = at, bytes = n;
        words = (cell *)room(n / 4 * sizeof(cell));
        singly = (cell *)room(n * sizeof(cell));
        split = (uint8_t *)room(n / 4);
    }
    static void *room(size_t n)
    {
        void *p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            fprintf(stderr, "cuda_emu: no room to note accesses in\n");
            abort();
        }
        return p;
    }
};

shadow device;
char **ends; // for each page of device memory where the allocation ends that it is of

struct stream {
    access me;
    uint32_t grid_first, block_first; // segments
    unsigned block[3];
    const char *stacks, *stacks_end;
    bool open = false;
    shadow shared;
    unsigned id = 0;
};
thread_local stream here_;

int find_shared(dl_phdr_info *info, size_t, void *arg)
{
    auto *s = (stream *)arg;
    bool mine = false;
    size_t n = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto &p = info->dlpi_phdr[i];
        auto at = (const char *)(info->dlpi_addr + p.p_vaddr), code = (const char *)find_shared;
        if (p.p_type == PT_LOAD && code >= at && code < at + p.p_memsz) mine = true;
        if (p.p_type == PT_TLS) n = p.p_memsz;
    }
    if (!mine || !info->dlpi_tls_data) return mine;
    auto from = (uintptr_t)info->dlpi_tls_data & ~(uintptr_t)15;
    s->shared.open((char *)from, (n + 31) / 16 * 16);
    return 1;
}

[[noreturn]] __attribute__((noinline)) void tell(const stream &s, const void *p, size_t n, const char *what, const access *before, const char *how, void *pc)
{
    Dl_info from = {};
    char line[512];
    fprintf(stderr, "cuda_emu: %s: thread %u of block %u,%u,%u at %p, %zu bytes of %s memory", what, (unsigned)s.me.thread, s.block[0], s.block[1], s.block[2], p,
            n, device.base && (const char *)p >= device.base && (const char *)p < device.base + device.bytes ? "device" : "shared");
    if (before)
        fprintf(stderr, "; %s by thread %u of %s", how, (unsigned)before->thread,
                before->segment < s.block_first ? "another block" : "the same block, with no barrier between");
    fputc('\n', stderr);
    if (!getenv("CUDA_EMU_QUIET") && dladdr(pc, &from) && from.dli_fname) {
        snprintf(line, sizeof line, "addr2line -Cfpi -e '%s' 0x%zx >&2", from.dli_fname, (size_t)((char *)pc - (char *)from.dli_fbase) - 1);
        fprintf(stderr, "cuda_emu: %s\n", line);
        if (system(line)) fputs("(addr2line is not here)\n", stderr);
    }
    abort();
}

inline bool stale(const stream &s, access a) { return a.segment < s.grid_first || a.stream != s.me.stream; }

// Is nothing between a and now?
inline bool clashes(const stream &s, access a, bool shared)
{
    if (stale(s, a)) return false;
    if (a.segment < s.block_first) return !shared;
    if (a.segment < s.me.segment || a.thread == s.me.thread) return false;
    return a.thread / 32 != s.me.thread / 32 || a.met >= s.me.met;
}

inline bool same(access a, access b) { return !memcmp(&a, &b, sizeof a); }

inline void note_read(stream &s, cell &c, bool shared, const void *p, size_t n, void *pc)
{
    if (same(c.last, s.me)) return;
    if (clashes(s, c.write, shared)) tell(s, p, n, "a race: a read", &c.write, c.write.atomic ? "an atomic one" : "written", pc);
    if (!stale(s, c.last)) {
        if (c.last.segment < s.block_first) c.other = c.last;
        else if (c.last.thread != s.me.thread && !clashes(s, c.first, true)) c.first = c.last;
    }
    c.last = s.me;
}

inline void note_write(stream &s, cell &c, bool shared, bool atomic, const void *p, size_t n, void *pc)
{
    if (!(atomic && c.write.atomic) && clashes(s, c.write, shared)) tell(s, p, n, "a race: a write", &c.write, "written", pc);
    for (access *a : {&c.first, &c.last, &c.other})
        if (clashes(s, *a, shared)) tell(s, p, n, "a race: a write", a, "read", pc);
    c.write = s.me;
    c.write.atomic = atomic;
}

template <class F> inline void each(shadow &m, const char *p, size_t n, F f)
{
    size_t at = (size_t)(p - m.base), end = at + n;
    while (at < end) {
        size_t w = at / 4;
        if (at % 4 == 0 && end - at >= 4 && !m.split[w]) {
            f(m.words[w]);
            at += 4;
            continue;
        }
        if (!m.split[w]) {
            for (size_t b = 0; b < 4; b++) m.singly[4 * w + b] = m.words[w];
            m.split[w] = 1;
        }
        f(m.singly[at++]);
    }
}

template <class F> inline void look(const void *at, size_t n, void *pc, F f)
{
    stream &s = here_;
    auto p = (const char *)at;
    if (!s.open || !n || (p >= s.stacks && p < s.stacks_end)) return;
    if (p >= device.base && p < device.base + device.bytes) {
        if (!has_begun()) tell(s, p, n, "an access before cu_begin, while the kernel before may still be at work", nullptr, "", pc);
        const char *end = ends[(size_t)(p - device.base) / PAGE];
        if (!end || p + n > end) tell(s, p, n, "an access outside of what is allocated", nullptr, "", pc);
        each(device, p, n, [&](cell &c) { f(s, c, false); });
    } else if (p >= s.shared.base && p < s.shared.base + s.shared.bytes) {
        each(s.shared, p, n, [&](cell &c) { f(s, c, true); });
    }
}

inline void reads(const void *p, size_t n, void *pc)
{
    look(p, n, pc, [&](stream &s, cell &c, bool shared) { note_read(s, c, shared, p, n, pc); });
}
inline void writes(const void *p, size_t n, void *pc, bool atomic = false)
{
    look(p, n, pc, [&](stream &s, cell &c, bool shared) { note_write(s, c, shared, atomic, p, n, pc); });
}

void step(stream &s)
{
    if (!++s.me.segment) abort(); // four thousand million barriers: older ones would look new
    s.me.met = 0;
}

} // namespace

void race_region(char *base, size_t bytes)
{
    device.open(base, bytes);
    ends = (char **)shadow::room(bytes / PAGE * sizeof *ends);
}

void race_allocated(char *p, size_t n)
{
    for (size_t at = 0; at < n; at += PAGE) ends[(size_t)(p + at - device.base) / PAGE] = p + n;
}

// Addresses are not given twice; what is noted of them only takes room.
void race_freed(char *p, size_t n)
{
    size_t at = (size_t)(p - device.base);
    for (size_t i = 0; i < n; i += PAGE) ends[(at + i) / PAGE] = nullptr;
    n = n / PAGE * PAGE;
    madvise(device.words + at / 4, n / 4 * sizeof(cell), MADV_DONTNEED);
    madvise(device.singly + at, n * sizeof(cell), MADV_DONTNEED);
}

void race_grid(bool begins, const char *stacks, size_t n_stacks)
{
    static unsigned n_streams;
    stream &s = here_;
    if (!s.id) {
        s.id = __atomic_add_fetch(&n_streams, 1, __ATOMIC_RELAXED);
        s.me.stream = s.id % 32;
        dl_iterate_phdr(find_shared, &s);
    }
    s.open = begins;
    s.stacks = stacks, s.stacks_end = stacks + n_stacks;
    if (begins) step(s), s.grid_first = s.me.segment;
}

void race_block(unsigned x, unsigned y, unsigned z)
{
    stream &s = here_;
    s.block[0] = x, s.block[1] = y, s.block[2] = z;
    step(s);
    s.block_first = s.me.segment;
}

void race_barrier() { step(here_); }

void race_thread(unsigned index, unsigned met)
{
    here_.me.thread = (uint16_t)(index & 1023);
    here_.me.met = (uint16_t)met;
}

void touched_atomically(const void *p, size_t n) { writes(p, n, __builtin_return_address(0), true); }

} // namespace cuda_emu

using namespace cuda_emu;

// What the compiler calls.
#define PC __builtin_return_address(0)
#define OF(n)                                                                                                                                             \
    void __tsan_read##n(void *p) { reads(p, n, PC); }                                                                                                     \
    void __tsan_write##n(void *p) { writes(p, n, PC); }                                                                                                   \
    void __tsan_unaligned_read##n(void *p) { reads(p, n, PC); }                                                                                           \
    void __tsan_unaligned_write##n(void *p) { writes(p, n, PC); }
extern "C" {
OF(1)
OF(2)
OF(4)
OF(8)
OF(16)
void __tsan_read_range(void *p, size_t n) { reads(p, n, PC); }
void __tsan_write_range(void *p, size_t n) { writes(p, n, PC); }
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
void __tsan_init() {}
// Flags between cards.
unsigned __tsan_atomic32_load(const volatile unsigned *p, int) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
void __tsan_atomic32_store(volatile unsigned *p, unsigned v, int) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
}
