/* plugin.h: what a backend plug-in (libtessera_cuda.so) exports: one function that gives one table.
 *
 * The plug-in is opened at run time, so that one binary runs on machines with and without the
 * driver. It is plain C, calls nothing of the program that opens it, and reports errors as text that
 * the caller turns into an enum err (backend.c): its codes are 0 for success and 1 for failure.
 * Device pointers are what `alloc` gives; the host never reads through them. Work on a device is
 * ordered: a kernel sees the uploads and kernels before it.
 * Not here: what is computed (engine/kernels/table.h), who holds which memory (engine/model). */
#ifndef ENGINE_BACKEND_PLUGIN_H
#define ENGINE_BACKEND_PLUGIN_H

#include "base/exchange.h"
#include "base/wire.h"
#include "engine/kernels/experts.h"
#include "engine/kernels/fused.h"
#include "engine/kernels/heads.h"
#include "engine/kernels/rounded.h"
#include "engine/kernels/table.h"
#include "engine/kernels/tree_sum.h"

enum {
    PLUGIN_TEXT = 256, /* bytes of an error's sentence */
    PLUGIN_MARKS = 66,
    PLUGIN_ROUNDED_MAJOR = 8,
};

/* Raise the version when this file changes; a change of table.h shows in the sizes. */
enum { PLUGIN_VERSION = 17 };
#define PLUGIN_ABI                                                                                                    \
    ((int32_t)(PLUGIN_VERSION << 24 | (sizeof(struct krn_table) + 7 * sizeof(struct krn_attention) +                  \
                                       31 * sizeof(struct krn_matmul) + 127 * sizeof(struct krn_kv) +                 \
                                       1021 * sizeof(struct krn_mat) + 4093 * sizeof(struct krn_act)) % (1 << 24)))
#define PLUGIN_ENTRY "tessera_backend_plugin"

struct plugin_share { /* plain bytes: between processes */
    int32_t pid, device;
    void *p;
    uint8_t handle[64];
};

struct plugin_device; /* one opened device; the plug-in's own */

struct plugin_device_info {
    char name[96];       /* "NVIDIA GeForce RTX 3090" */
    char where[32];      /* its address on the bus, "0000:01:00.0": the same card for every process */
    int64_t total_bytes, free_bytes; /* free: without what is kept for the display of a card that has one */
    double read_bytes_s; /* of its memory, by its clock and width; 0: it does not say */
    double ops_s;        /* int8 products, by its clock and units; 0: it does not say */
    int32_t n_units;     /* that compute side by side (multiprocessors) */
    int32_t major, minor;/* compute capability */
};

struct plugin {
    int32_t abi;           /* PLUGIN_ABI; first, so that any version can read it */
    int32_t layout;        /* KRN_LAYOUT_VERSION of the packed tiles that its kernels read */
    const char *name;      /* "cuda" */
    const struct krn_table *krn; /* pointers in arguments are device pointers unless said otherwise */

    /* Do its kernels read packed matrices of this type? 1: yes. */
    int (*reads)(enum dtype type);
    /* How many devices there are. A machine without driver or card: failure with the reason. */
    int (*count)(int32_t *n, char text[PLUGIN_TEXT]);
    int (*info)(int32_t device, struct plugin_device_info *out, char text[PLUGIN_TEXT]);
    int (*open)(int32_t device, struct plugin_device **out, char text[PLUGIN_TEXT]);
    void (*close)(struct plugin_device *d); /* NULL-safe; frees what was allocated on it */

    /* The calling thread's kernels and copies go to d from now on. Thr: one thread per device at a time. */
    void (*enter)(struct plugin_device *d);
    /* Zeroed, 256-byte aligned. */
    int (*alloc)(struct plugin_device *d, void **out, int64_t bytes, char text[PLUGIN_TEXT]);
    void (*free)(struct plugin_device *d, void *p);
    /* src may be reused when it returns, which is before the bytes are there: neither waits for kernels unless megabytes are on their way. */
    int (*upload)(struct plugin_device *d, void *dst, const void *src, int64_t bytes, char text[PLUGIN_TEXT]);
    /* Waits for everything before it (of 0 bytes: too). */
    int (*download)(struct plugin_device *d, void *dst, const void *src, int64_t bytes, char text[PLUGIN_TEXT]);
    int (*copy)(struct plugin_device *d, void *dst, const void *src, int64_t bytes, char text[PLUGIN_TEXT]);
    int (*clear)(struct plugin_device *d, void *p, int64_t bytes, char text[PLUGIN_TEXT]); /* to zero */
    /* Waits; failure: the first thing that went wrong since open, kernels included. */
    int (*sync)(struct plugin_device *d, char text[PLUGIN_TEXT]);

    /* What works on the device beside the kernels (NCCL) takes this: a cudaStream_t. */
    void *(*stream)(struct plugin_device *d);
    /* *done: everything told so far is. Never waits; failure as sync's. */
    int (*ready)(struct plugin_device *d, int32_t *done, char text[PLUGIN_TEXT]);
    /* Mark i < PLUGIN_MARKS behind everything told so far; *done: the device has come to it. Never waits. */
    int (*mark)(struct plugin_device *d, int32_t i, char text[PLUGIN_TEXT]);
    int (*marked)(struct plugin_device *d, int32_t i, int32_t *done, char text[PLUGIN_TEXT]);
    /* Work that comes again and again with the same arguments, told as one. `record`: what follows is kept, not done; only kernels and copies
     * within the device may follow. `keep`: until here, *n things to do; it is known as `key` from now on, and all the memory that it takes is taken. `replay`:
     * *known, and then done. Failure of record and keep: the device is well, and a graph of this kind cannot be had here. */
    int (*record)(struct plugin_device *d, char text[PLUGIN_TEXT]);
    int (*keep)(struct plugin_device *d, uint64_t key, int32_t *n, char text[PLUGIN_TEXT]);
    int (*replay)(struct plugin_device *d, uint64_t key, int32_t *known, char text[PLUGIN_TEXT]);
    /* Nothing is known any more, nor recorded. What is under way comes to its end. */
    void (*forget)(struct plugin_device *d);

    /* As engine/kernels/cuda/rows.h; on the device that was entered. */
    void (*copy_rows)(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at, const float *by, int32_t n_rows, int32_t n);
    void (*copy_codes)(uint8_t *dst, const uint8_t *src, int32_t n_tok, int32_t cols, const int32_t *at, int32_t n_rows);
    /* As engine/kernels/cuda/choose.h. */
    void (*best)(const float *x, int32_t n_rows, int32_t n, int32_t id0, struct krn_pick *best);
    void (*draw)(const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how, const struct krn_pick *best,
                 struct krn_pick *drawn);
    void (*top)(const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how, const struct krn_pick *best,
                struct krn_pick *scratch, struct krn_pick *top);
    void (*chosen)(int32_t n, const struct krn_noise *how, const struct krn_pick *best, const struct krn_pick *drawn, int32_t *there, int32_t *host);
    void (*among)(int32_t n_rows, const struct krn_noise *how, const struct krn_pick *top, struct krn_pick *drawn);
    void (*merge_best)(int32_t n, int32_t size, int64_t each, const struct krn_pick *all, struct krn_pick *out);
    void (*merge_top)(int32_t n, int32_t size, int64_t each, const struct krn_pick *all, const struct krn_noise *how, struct krn_pick *out);
    void (*inputs)(int32_t n, int32_t *ids, const int32_t *chosen, int32_t id0, int32_t rows);
    /* As engine/kernels/rounded.h, xb being a row of pairs for each token; from compute capability PLUGIN_ROUNDED_MAJOR on. */
    const struct krn_rounded *rounded;
    /* Before those are used: takes what memory they need, and what library there is. how: "by cuBLASLt", or why not. */
    void (*rounded_begin)(struct plugin_device *d, char how[PLUGIN_TEXT]);
    /* As engine/kernels/experts.h. */
    struct plugin_experts {
        void (*route)(const struct krn_route *a);
        void (*matmul)(const struct krn_matmul *a, const struct krn_slots *s);
        void (*group)(const struct krn_grouping *a);
        void (*matmul_grouped)(const struct krn_matmul *a, const struct krn_grouped *g);
        void (*combine)(const struct krn_combine *a);
        void (*slot_bias)(const struct krn_slot_bias *a);
        void (*token_bias)(const struct krn_token_bias *a);
    } experts;
    /* As engine/kernels/heads.h. */
    struct plugin_heads {
        void (*squares)(const struct krn_head_squares *a);
        void (*norm)(const struct krn_head_norm *a);
    } heads;
    const struct krn_fused *fused; /* engine/kernels/fused.h */
    int (*tree_sum)(struct plugin_device *d, const struct krn_tree_sum *a, char text[PLUGIN_TEXT]);

    /* Memory that ranks of one host reach. share: what another rank needs to reach an allocation of d's; reach: that, as d's kernels see it
     * (failure: the cards do not reach each other); map_host: page-aligned memory of the host, as d's kernels see it. */
    int (*share)(struct plugin_device *d, void *p, struct plugin_share *out, char text[PLUGIN_TEXT]);
    int (*reach)(struct plugin_device *d, const struct plugin_share *s, void **out, char text[PLUGIN_TEXT]);
    void (*unreach)(struct plugin_device *d, const struct plugin_share *s, void *p);
    int (*map_host)(struct plugin_device *d, void *host, int64_t bytes, void **out, char text[PLUGIN_TEXT]);
    void (*unmap_host)(struct plugin_device *d, void *host);
    int (*exchange)(struct plugin_device *d, const struct exchange *x, char text[PLUGIN_TEXT]);
    int (*pack)(struct plugin_device *d, const struct wire_pack *a, char text[PLUGIN_TEXT]);
    int (*unpack)(struct plugin_device *d, const struct wire_unpack *a, char text[PLUGIN_TEXT]);
};

typedef const struct plugin *(*plugin_entry_fn)(void);

#endif
