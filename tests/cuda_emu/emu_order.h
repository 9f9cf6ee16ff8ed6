// emu_order.h: what the thread sanitizer is told of the emulation (preset tsan): that what a stream does comes after what was told before, that what
// follows a wait for an event or a stream comes after what they have done; nothing else. The emulation's own locks and counters, which happen to
// order more than a card would, are hidden from it. Tried: a wait for a copy that is left out is not reported yet, though values then differ; what
// threads of the host do at once is. Elsewhere: the standard library's locks, and nothing.
#ifndef TESTS_CUDA_EMU_EMU_ORDER_H
#define TESTS_CUDA_EMU_EMU_ORDER_H

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <sched.h>
#include <time.h>

#ifdef __SANITIZE_THREAD__
#error "the emulation itself is compiled without the thread sanitizer: its atomics would tell it too much"
#endif

namespace cuda_emu {

#ifdef CUDA_EMU_TSAN
extern "C" void __tsan_acquire(void *p);
extern "C" void __tsan_release(void *p);
extern "C" void __tsan_write_range(void *p, unsigned long n);
extern "C" void __tsan_read_range(void *p, unsigned long n);
// What a copy on a stream does with memory, which it sees of kernels by itself.
static inline void reads(const void *p, unsigned long n) { __tsan_read_range((void *)p, n); }
static inline void writes(void *p, unsigned long n) { __tsan_write_range(p, n); }
static inline void before(const void *p) { __tsan_release((void *)p); }
static inline void after(const void *p) { __tsan_acquire((void *)p); }
extern "C" void AnnotateIgnoreReadsBegin(const char *file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char *file, int line);
extern "C" void AnnotateIgnoreWritesBegin(const char *file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char *file, int line);
static inline void ignore_begins() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
static inline void ignore_ends() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
struct hidden_mutex {
    std::atomic_flag taken = ATOMIC_FLAG_INIT;
    void lock()
    {
        while (taken.test_and_set(std::memory_order_acquire)) sched_yield();
        ignore_begins(); // what vectors and queues allocate is the emulation's, too
    }
    void unlock()
    {
        ignore_ends();
        taken.clear(std::memory_order_release);
    }
};
// Under such a lock: the memory is nobody's any more, which is a race with whoever still uses it.
static inline void gone(void *p, unsigned long n)
{
    ignore_ends();
    __tsan_write_range(p, n);
    ignore_begins();
}
struct hidden_signal {
    template <class G, class F> void wait(G &g, F f)
    {
        for (; !f(); g.lock()) {
            g.unlock();
            timespec t = {0, 50000};
            nanosleep(&t, nullptr);
        }
    }
    void notify_one() {}
};
#else
static inline void reads(const void *, unsigned long) {}
static inline void writes(void *, unsigned long) {}
static inline void before(const void *) {}
static inline void after(const void *) {}
static inline void gone(void *, unsigned long) {}
typedef std::mutex hidden_mutex;
typedef std::condition_variable hidden_signal;
#endif

} // namespace cuda_emu

#endif
