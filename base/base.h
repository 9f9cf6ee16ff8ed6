/* base.h: the handful of words every file uses: MUST_USE, TRY, COUNT_OF, MIN/MAX, ASSERT.
 * Not an umbrella: errors, logs and containers have headers of their own. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <stddef.h>
#include <stdint.h>

#define MUST_USE       __attribute__((warn_unused_result))
#define PRINTF(f, a)   __attribute__((format(printf, f, a)))
#define COUNT_OF(a)    (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)      ((a) < (b) ? (a) : (b))
#define MAX(a, b)      ((a) > (b) ? (a) : (b))
#define CLAMP(x, l, h) MIN(MAX((x), (l)), (h))
#define ROUND_UP(x, m) (((x) + (m)-1) / (m) * (m))
#define DIV_UP(x, m)   (((x) + (m)-1) / (m))

/* ON_DEVICE before a function that the CUDA kernels (engine/kernels/cuda) compile too. */
#ifdef __CUDACC__
#define ON_DEVICE __host__ __device__
#else
#define ON_DEVICE
#endif

/* TRY(call): evaluates a call returning enum err; on failure stores it in `rc` and jumps to `out`.
 * The only macro of the house that jumps. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        rc = (call);                                                                               \
        if (rc) goto out;                                                                          \
    } while (0)

/* ASSERT stays on in release: a false one is our bug, never bad input. */
#define ASSERT(x) ((x) ? (void)0 : base_assert_failed(#x, __FILE__, __LINE__))
_Noreturn void base_assert_failed(const char *what, const char *file, int line);

/* Allocation that ends the process with one sentence when memory is out (boot and request lifetimes;
 * large buffers sized by a model use plain malloc and report NO_MEMORY). Own: caller, free(). */
MUST_USE void *xmalloc(size_t n);
MUST_USE void *xcalloc(size_t n, size_t size);
MUST_USE void *xrealloc(void *p, size_t n);
MUST_USE char *xstrdup(const char *s);
MUST_USE char *xstrndup(const char *s, size_t n);
MUST_USE char *xasprintf(const char *fmt, ...) PRINTF(1, 2);

#endif
