/* control.h: the messages of the control plane as our own structs; wire.c alone sees generated protobuf.
 *
 * worker -> coordinator: Hello, LoadProgress, Ready, StepResult, Telemetry, Fault.
 * coordinator -> worker: LoadPlan, StepPlan (lead only), Wake, Drain, Shutdown, Adopt.
 * A decoded message owns its strings and bytes through its arena; control_msg_free releases it. */
#ifndef PROTO_CONTROL_H
#define PROTO_CONTROL_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/kv_type.h"
#include "proto/grid.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

enum { CONTROL_VERSION = 7 };

enum control_type {
    MSG_HELLO = 1, MSG_LOAD_PROGRESS, MSG_READY, MSG_STEP_RESULT, MSG_TELEMETRY, MSG_FAULT,
    MSG_LOAD_PLAN = 64, MSG_STEP_PLAN, MSG_WAKE, MSG_DRAIN, MSG_SHUTDOWN, MSG_ADOPT,
};

/* What lies between this rank and rank `rank` on another host: seconds that a small message takes one way, and bytes per second in one
 * direction while as many come the other way. */
struct msg_link { int32_t rank; double latency_s, bytes_s; };

struct msg_hello {
    const char *version;      /* of the program */
    const char *job;          /* same for all ranks of one MPI job */
    const char *host;
    int32_t rank, size;       /* in the MPI job */
    int32_t host_rank, host_size;
    int32_t pid;
    int32_t n_cpus;           /* usable by this rank */
    int64_t mem_total, mem_available; /* bytes, of the host; of the card when `gpu` */
    int32_t mem_ranks;        /* this job's ranks that share that memory */
    bool gpu;
    double read_bytes_s, ops_s; /* of the card; 0: unknown */
    const char *device;       /* "cpu avx512", "cuda:0 NVIDIA GeForce RTX 3090" */
    uint32_t loaded_epoch;    /* of the plan it loaded under a coordinator that is gone; 0: it holds nothing */
    const char *addresses;    /* of the host: "10.0.0.7,fd00::7" */
    int32_t n_links;          /* measured by the first rank of a host, to the first ranks of others (to itself: all at once, worker/links.h); else 0 */
    const struct msg_link *links;
};

struct msg_load_progress { int64_t bytes_done, bytes_total; };

struct msg_ready {
    int64_t weight_bytes, kv_bytes; int32_t n_blocks; double seconds;
    int64_t read_bytes, received_bytes, cached_bytes; /* of the model's file, and how they came */
};

struct msg_telemetry {        /* every second while awake, and at each change of state */
    uint64_t step; int32_t layer;
    const char *op;           /* collective being waited in, or "" */
    uint64_t op_seq; int64_t op_waited_us; int32_t op_rank;
    int64_t rss_bytes;
    uint64_t comm_bytes, comm_us, comm_ops;
};

struct msg_fault { int32_t code; const char *text; };  /* enum err; the sentence */

/* One rank's slice of the plan; enough for it to open its shard and its groups. */
struct msg_load_plan {
    uint32_t epoch;
    uint16_t replica, model;
    const char *model_path;
    struct grid grid;                            /* who holds what */
    int32_t n_threads;
    int32_t context;                             /* longest sequence */
    int32_t n_blocks;                            /* KV blocks, the same on every rank */
    int32_t n_slots;
    int32_t max_step_tokens;
    enum kv_type kv_type;
    uint64_t model_fingerprint;                  /* of the coordinator's model file at its start; 0: not compared */
    int32_t n_adapters;                          /* LoRA adapters beside it, numbered from 1 in step plans */
    const char *adapters[LIMIT_ADAPTERS];        /* where they lie */
    uint64_t adapter_fingerprints[LIMIT_ADAPTERS];
    bool oracle;                                 /* --activations f32 */
    bool exact;                                  /* the same bits whatever the cut: no sums of a vendor's own, no fewer bytes */
    const char *isa;                             /* "auto" or a table's name */
    const char *wire;                            /* "auto" | "shm" | "mpi" */
    const char *wire_type;                       /* "f32" | "f16" | "q8": how vectors to be summed travel between hosts */
    const char *shard_cache;                     /* "auto" | "off" | a directory on every rank's host */
    int64_t shard_cache_bytes;                   /* 0: a quarter of the free space */
    int64_t comm_timeout_us;
    int64_t telemetry_us;
    int64_t rejoin_us;                           /* a rank whose stream is lost dials again so long; 0: it leaves at once */
};

struct msg_shutdown { const char *reason; };

struct msg_adopt { uint32_t epoch; };            /* go on with what is loaded, as this incarnation, with no sequences */

struct control_msg {
    enum control_type type;
    struct arena arena;
    union {
        struct msg_hello hello;
        struct msg_load_progress progress;
        struct msg_ready ready;
        struct msg_telemetry telemetry;
        struct msg_fault fault;
        struct msg_load_plan load_plan;
        struct msg_shutdown shutdown;
        struct msg_adopt adopt;
        struct { const void *data; size_t n; } bytes;   /* STEP_PLAN, STEP_RESULT: packed */
    };
};

const char *control_type_name(enum control_type t);  /* "StepPlan"; "unknown" */

/* Append the encoding (type byte, then protobuf or packed bytes). */
void control_encode(const struct control_msg *m, struct buf *out);
/* Err LINK_PROTOCOL naming what was wrong. *out is allocated; Own: caller, control_msg_free. */
MUST_USE enum err control_decode(const void *data, size_t n, struct control_msg **out);
void control_msg_free(struct control_msg *m); /* NULL-safe */

#endif
