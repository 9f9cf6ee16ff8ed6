/* topo.h: the machines of a cluster as plain structs: hosts, the devices on them that a rank may
 * run on, the links between hosts.
 *
 * Values only: no pointer, no handle; copied by assignment, recorded as text (topo_text.c) and
 * replayed, so that a machine from the field is a test and a laptop can plan for a cluster it does
 * not see. Discovery of this host: topo_hwloc.c. Units: bytes, seconds, bytes and operations per
 * second (an operation: one int8 multiplication or addition). */
#ifndef CLUSTER_TOPO_H
#define CLUSTER_TOPO_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CLU_MAX_HOSTS = 64,
    CLU_MAX_LINKS = 2016,
    CLU_MAX_NICS = 4,
    CLU_NAME = 64,
    CLU_TOPO_BYTES = 256 << 10
};

enum clu_kind { CLU_CPU, CLU_GPU };

/* Ranks that share processors: what one of them has depends on how many compute at the same time. */
struct clu_crowd {
    int32_t ranks;           /* this one included; 0: nothing is known of it, the device's figures hold always */
    int32_t processors;      /* that they share */
    bool moves;              /* each may run on any of them */
    double most;             /* processors that one rank can use */
    double read_bytes_s, ops_s;  /* of one processor */
    double all_read_bytes_s; /* of all together; 0: as many times one */
};

/* What one rank runs on. */
struct clu_device {
    enum clu_kind kind;
    char name[CLU_NAME];
    int32_t host;
    int32_t cores;       /* CPU: physical cores */
    int64_t mem_bytes;   /* that a rank may take */
    double read_bytes_s; /* of its memory, measured, all cores together */
    double ops_s;        /* peak of int8 products */
    struct clu_crowd crowd; /* of ranks that run already; not recorded */
};

/* Latency of a small message, one way, and bytes per second, one direction. */
struct clu_wire {
    double latency_s, bytes_s;
};

struct clu_nic {
    char name[16];
    double bytes_s;
};

struct clu_host {
    char name[CLU_NAME];
    int32_t packages, cores, threads, numa;
    int64_t cache_bytes;   /* last level, all of them */
    double disk_bytes_s;   /* reading a model file */
    struct clu_wire local; /* between ranks of this host */
    int32_t n_nics;
    struct clu_nic nics[CLU_MAX_NICS];
};

struct clu_link {
    int32_t a, b;
    struct clu_wire wire;
};

struct clu_topo {
    int32_t n_hosts, n_devices, n_links;
    struct clu_host hosts[CLU_MAX_HOSTS];
    struct clu_device devices[LIMIT_RANKS]; /* by host, in order: the numbering of ranks */
    struct clu_wire wire;                   /* of host pairs that no link names */
    bool wire_said;                         /* it was recorded, not assumed */
    struct clu_link links[CLU_MAX_LINKS];
    /* An exchange of all hosts at once, of ranks that run already: seconds of a small one, and bytes per second that each host gets of a larger
     * one; zeros: not measured. Not recorded. */
    struct clu_wire together;
};

/* What is assumed where nothing was measured. */
void clu_topo_init(struct clu_topo *t);
/* Read bandwidth and peak of one rank while `active` of a crowd compute. even: they need not wait for each other all the time, so that where they
 * may move what counts is the mean; else the slowest, which has a processor with the most others. */
void clu_crowd_speed(const struct clu_crowd *c, int32_t active, bool even, double *read_bytes_s, double *ops_s);
/* Between two hosts, or within one. */
struct clu_wire clu_topo_wire(const struct clu_topo *t, int32_t a, int32_t b);
/* Every CPU device becomes `ranks` equal ones. Err BAD_CONFIG when there would be more than
 * LIMIT_RANKS. */
MUST_USE enum err clu_topo_split(struct clu_topo *t, int32_t ranks);
/* Add all hosts of `more`, renamed when a name is taken already. Err BAD_CONFIG (too many). */
MUST_USE enum err clu_topo_add(struct clu_topo *t, const struct clu_topo *more, const char *name);

/* The text form, described in docs/topology.md. Own: *out appended to. */
void clu_topo_write(const struct clu_topo *t, struct buf *out);
/* Err BAD_FILE, one sentence with the line, what it says and what is needed; *out is written only
 * on success. */
MUST_USE enum err clu_topo_parse(struct clu_topo *out, const char *text, size_t n);
/* Err as clu_topo_parse, IO; the file is named. */
MUST_USE enum err clu_topo_read(struct clu_topo *out, const char *path);

/* This host, by hwloc: one CPU device of all cores we may use. measure: its read bandwidth, in
 * about a quarter of a second (else, and where that fails, a guess by cores). Err SYSTEM. */
MUST_USE enum err clu_topo_discover(struct clu_topo *out, bool measure);

#endif
