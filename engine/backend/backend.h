/* backend.h: where a rank computes: its memory, its kernels, and the way between that memory and the host's.
 *
 * `cpu` is this process: its memory is the host's, so uploads are copies and the pointers may be read. Any other one comes from a
 * plug-in (plugin.h): its pointers mean something to its kernels only. engine/model is written once, against this file: it never asks
 * which device it has, only whether the host may read its memory (`on_host`).
 * Thr: one thread at a time, which has called eng_backend_enter last. */
#ifndef ENGINE_BACKEND_BACKEND_H
#define ENGINE_BACKEND_BACKEND_H

#include "engine/backend/plugin.h"
#include "transport/device.h"

/* What memory is for: its name in errors, and how the host gives it. */
enum eng_memory {
    ENG_MEMORY_WEIGHTS, /* read from end to end by every step: huge pages where the system has them */
    ENG_MEMORY_KV,      /* pages that nobody has written cost nothing */
    ENG_MEMORY_STEP,
};

struct eng_backend {
    char name[24];               /* "cpu", "cuda:0" */
    const struct krn_table *krn; /* works on this backend's memory */
    const struct krn_table *host;/* works on the host's: what has been downloaded */
    bool on_host;
    int32_t index;               /* of a device, among its kind */
    int32_t major;               /* of a device's compute capability */
    int32_t n_units;             /* that compute side by side; 0 on the host, where the team's threads do */
    /* private */
    struct eng_backend_block { void *p; int64_t bytes; } *blocks;
    int32_t n_blocks, cap_blocks;
    void *library;
    const struct plugin *plugin;
    struct plugin_device *device;
    enum err (*watch)(void *user);
    void *watch_user;
};

/* device: "cpu"; "cuda" (device 0), "cuda:N"; "auto": cuda:0 where a card can be used, else cpu. NULL is "cpu". isa: the host's kernels.
 * Err BAD_CONFIG with the reason why the device cannot be used. */
MUST_USE enum err eng_backend_open(struct eng_backend **out, const char *device, const char *isa);
/* NULL-safe; frees all that was allocated on it. */
void eng_backend_close(struct eng_backend *b);
void eng_backend_enter(struct eng_backend *b);

/* Zeroed, 64-byte aligned. Err NO_MEMORY naming bytes and remedy. */
MUST_USE enum err eng_backend_alloc(struct eng_backend *b, enum eng_memory what, void **out, int64_t bytes);
void eng_backend_free(struct eng_backend *b, void *p); /* NULL-safe */

/* Ordered with the kernels; src of an upload may be reused at once; a download waits. Err SYSTEM: the device failed. */
MUST_USE enum err eng_backend_upload(struct eng_backend *b, void *dst, const void *src, int64_t bytes);
MUST_USE enum err eng_backend_download(struct eng_backend *b, void *dst, const void *src, int64_t bytes);
MUST_USE enum err eng_backend_copy(struct eng_backend *b, void *dst, const void *src, int64_t bytes);
MUST_USE enum err eng_backend_clear(struct eng_backend *b, void *p, int64_t bytes); /* to zero */
MUST_USE enum err eng_backend_sync(struct eng_backend *b);
/* Of a device only. Mark i < PLUGIN_MARKS behind everything told so far; has the device come to it (never waits); has it, asked by who waits, so that
 * whoever watches the wait has a look too; or wait until it has. All marks but the last ENG_BACKEND_MARKS are collectives' (transport/device.h). */
enum { ENG_BACKEND_MARKS = 2 };
MUST_USE enum err eng_backend_mark(struct eng_backend *b, int32_t i);
MUST_USE enum err eng_backend_marked(struct eng_backend *b, int32_t i, bool *done);
MUST_USE enum err eng_backend_look(struct eng_backend *b, int32_t i, bool *done);
MUST_USE enum err eng_backend_reach(struct eng_backend *b, int32_t i);
/* Of a device only: page-aligned memory of the host, and where its kernels find it. Err UNSUPPORTED: it cannot be had; the device is well. */
MUST_USE enum err eng_backend_map(struct eng_backend *b, void *host, int64_t bytes, void **out);
void eng_backend_unmap(struct eng_backend *b, void *host);
/* Of a device only: work that comes again and again with the same arguments, told as one (plugin.h). Between record and keep nothing is done;
 * false where the device cannot. keep: *n launches. replay: it was known, and is told. Err of replay: the device's. */
MUST_USE enum err eng_backend_replay(struct eng_backend *b, uint64_t key, bool *done);
bool eng_backend_record(struct eng_backend *b);
bool eng_backend_keep(struct eng_backend *b, uint64_t key, int32_t *n);
void eng_backend_forget(struct eng_backend *b); /* all of it, and what is being recorded */
/* Of a device only, ordered with the kernels: rows by a list, of floats and of codes (engine/kernels/cuda/rows.h). */
void eng_backend_copy_rows(struct eng_backend *b, float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at, const float *by,
                           int32_t n_rows, int32_t n);
void eng_backend_copy_codes(struct eng_backend *b, uint8_t *dst, const uint8_t *src, int32_t n_tok, int32_t cols, const int32_t *at, int32_t n_rows);
/* Products that round more than the contract, where they are faster: the host's or the device's; NULL: none. */
const struct krn_rounded *eng_backend_rounded(struct eng_backend *b);
/* Kernels of experts (engine/kernels/experts.h). */
const struct plugin_experts *eng_backend_experts(const struct eng_backend *b);
/* Several operations in one call (engine/kernels/fused.h); NULL on the host. */
const struct krn_fused *eng_backend_fused(const struct eng_backend *b);
/* Kernels of a norm over all heads (engine/kernels/heads.h). */
const struct plugin_heads *eng_backend_heads(const struct eng_backend *b);
/* Each row's largest logit, what noise draws of it, and its few best; tokens that stay on the device, and inputs from them (engine/kernels/cuda/choose.h). */
void eng_backend_best(struct eng_backend *b, const float *x, int32_t n_rows, int32_t n, int32_t id0, struct krn_pick *best);
void eng_backend_draw(struct eng_backend *b, const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how,
                      const struct krn_pick *best, struct krn_pick *drawn);
void eng_backend_top(struct eng_backend *b, const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how,
                     const struct krn_pick *best, struct krn_pick *scratch, struct krn_pick *top);
void eng_backend_chosen(struct eng_backend *b, int32_t n, const struct krn_noise *how, const struct krn_pick *best, const struct krn_pick *drawn,
                        int32_t *there, int32_t *host);
void eng_backend_among(struct eng_backend *b, int32_t n_rows, const struct krn_noise *how, const struct krn_pick *top, struct krn_pick *drawn);
void eng_backend_merge_best(struct eng_backend *b, int32_t n, int32_t size, int64_t each, const struct krn_pick *all, struct krn_pick *out);
void eng_backend_merge_top(struct eng_backend *b, int32_t n, int32_t size, int64_t each, const struct krn_pick *all, const struct krn_noise *how,
                           struct krn_pick *out);
void eng_backend_inputs(struct eng_backend *b, int32_t n, int32_t *ids, const int32_t *chosen, int32_t id0, int32_t rows);
/* Do its kernels read packed matrices of this type? */
bool eng_backend_reads(const struct eng_backend *b, enum dtype type);

/* While this backend waits for its device, fn is called again and again; an error it gives ends the wait and is the wait's: collectives that
 * the device was told to are watched so (trn_coll_poll). NULL: nobody. */
void eng_backend_watch(struct eng_backend *b, enum err (*fn)(void *user), void *user);
/* b, which is not on the host, as collectives take it (transport/device.h); borrows b. */
MUST_USE enum err eng_backend_device(struct eng_backend *b, struct trn_device *out);

/* The nth of this host's ranks under --device want: which of n devices; -1: the CPU. "auto" gives each device one rank, "cuda" deals them
 * round, "cuda:N" is N. "auto+K", "cuda+K": the same, leaving the first K to others: the ranks of another replica. Pure. */
int32_t eng_backend_nth(const char *want, int32_t nth, int32_t n);
/* The same as a name for eng_backend_open, looked up on this machine; *n: its devices, *info: the chosen one (zeroed for the CPU; info may be NULL).
 * Err BAD_CONFIG: `want` is unknown, or names a device that cannot be used, with the reason. */
MUST_USE enum err eng_backend_choose(const char *want, int32_t nth, char out[24], int32_t *n, struct plugin_device_info *info);

/* The devices of this machine; *n = 0 and a reason in why[] where there are none. Err: none. */
void eng_backend_devices(struct plugin_device_info out[], int32_t max, int32_t *n, char why[PLUGIN_TEXT]);

#endif
