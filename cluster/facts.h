/* facts.h: what one host says about itself before anything is loaded, as plain values.
 *
 * `tessera doctor` gathers them here and on every other host, sends them as one line of JSON and
 * judges them with the rules of doctor.h. Gathering never fails: what cannot be learned stays
 * empty, 0 or UNKNOWN, and the rules say what that means. Units: bytes, Mbit/s, microseconds. */
#ifndef CLUSTER_FACTS_H
#define CLUSTER_FACTS_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CLU_FACTS_NICS = 12,
    CLU_FACTS_LINE = 4000,  /* one line of JSON is shorter */
    CLU_FACTS_UNKNOWN = -1, /* of sizes and speeds */
};
#define CLU_FACTS_UNLIMITED INT64_MAX

/* One address of one network interface; several of one interface follow each other. */
struct clu_facts_nic {
    char name[16], address[46];
    int64_t prefix, mtu, speed_mbit; /* speed UNKNOWN: the driver does not say */
};

struct clu_facts {
    char host[64];       /* what the host calls itself */
    char resolves[46];   /* the address that its own name resolves to; "": none */
    char version[32];    /* of tessera */
    char mpi[32];        /* of Open MPI, "4.1.4"; "": no mpirun */
    char kernel[64];
    char driver[32];     /* NVIDIA's; "": none */
    int64_t n_cards;     /* NVIDIA's, that its driver lists */
    char cards[160];     /* "2 x NVIDIA GeForce RTX 4090" */
    char cards_error[128]; /* why they could not be asked for; "": they were, or there is no driver */
    int64_t card_pairs, card_pairs_apart; /* of cards; those that cannot read each other's memory */
    char card_apart[48]; /* the first of them, with the driver's word: "cards 0 and 1: CNS" */
    char nccl[16];       /* "2.28.9", where there are cards; "": not found */
    char thp[16];        /* transparent hugepages: always, madvise, never; "": unknown */
    int64_t packages;    /* sockets with processors; 0: unknown */
    int64_t cores;       /* processors that this process may use */
    double cpu_limit;    /* of the control group, in processors; 0: none */
    double load;         /* average of the last minute */
    int64_t mem_total, mem_available;
    int64_t mem_limit;   /* of the control group; UNLIMITED: none */
    int64_t nofile_soft, nofile_hard, memlock;
    int64_t shm_total, shm_free;
    bool rdma;           /* has an InfiniBand or RoCE device */
    int64_t unix_us;
    char model[256];     /* the path asked for; "": none was */
    int64_t model_bytes; /* all files of it; UNKNOWN: see model_error */
    int64_t model_files;
    char model_error[160];
    uint64_t model_head, model_places, model_tail; /* sampled hashes: see clu_facts_model */
    int64_t n_nics;
    struct clu_facts_nic nics[CLU_FACTS_NICS]; /* up, with an address, not loopback */
};

/* Everything about this host; model: path or NULL. Takes well under a second, with cards
 * as long as nvidia-smi does. */
void clu_facts_gather(struct clu_facts *out, const char *model);

/* A part of it: NVIDIA's cards, and NCCL. Runs nvidia-smi: at most 8 s where its driver hangs. */
void clu_facts_cards(struct clu_facts *f);
/* Interfaces, and what our own name resolves to. */
void clu_facts_net(struct clu_facts *f);
/* Size, and XXH3 over the first and the last 64 KiB and 16 places of 64 KiB between, of each file:
 * one file, all parts of "-00001-of-0000N", or the files of a directory in order of name. */
void clu_facts_model(struct clu_facts *f, const char *path);

/* One line without a newline, shorter than CLU_FACTS_LINE; addresses that have no room are left
 * out. Own: *out appended to. */
void clu_facts_write(const struct clu_facts *f, struct buf *out);
/* Err BAD_FILE (no such line; what is wrong with it). Unknown members are ignored. */
MUST_USE enum err clu_facts_parse(struct clu_facts *out, const char *line);

#endif
