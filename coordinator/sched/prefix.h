/* prefix.h: which block holds the KV of which run of tokens: a tree of full blocks, found by hash,
 * confirmed by token ids. Private to sched/. A node is named by its block. Not here: who refers to
 * a block and which goes first (blocks.c). */
#ifndef COORDINATOR_SCHED_PREFIX_H
#define COORDINATOR_SCHED_PREFIX_H

#include "base/base.h"
#include "proto/limits.h"

#include <stdbool.h>

enum { PREFIX_NONE = -1 };

/* 128 bits that stand for a block's tokens and everything before them. */
struct crd_prefix_hash {
    uint64_t lo, hi;
};

struct crd_prefix_node {
    struct crd_prefix_hash hash;
    uint64_t salt;
    int32_t parent; /* block of the tokens before, PREFIX_NONE at the root */
    int32_t n_children;
    int32_t next; /* in its bucket */
    bool used;
    int32_t ids[LIMIT_BLOCK_TOKENS];
};

struct crd_prefix {
    uint64_t key[2];
    int32_t n_nodes, n_buckets;
    struct crd_prefix_node *nodes; /* [n_nodes] by block id */
    int32_t *buckets;              /* [n_buckets] first block or PREFIX_NONE */
};

void crd_prefix_open(struct crd_prefix *p, int32_t n_blocks, const uint64_t key[2]);
void crd_prefix_close(struct crd_prefix *p);

/* The hash before the first block. */
struct crd_prefix_hash crd_prefix_root(const struct crd_prefix *p, uint64_t salt);
/* The hash after one more block. */
struct crd_prefix_hash crd_prefix_chain(struct crd_prefix_hash before,
                                        const int32_t ids[LIMIT_BLOCK_TOKENS]);

/* The block that holds `ids` right after block `parent` (PREFIX_NONE: at the start) within a salt,
 * or PREFIX_NONE. */
int32_t crd_prefix_find(const struct crd_prefix *p, int32_t parent, uint64_t salt,
                        struct crd_prefix_hash h, const int32_t ids[LIMIT_BLOCK_TOKENS]);
/* `block` now holds `ids` after `parent`. False, and nothing changed, when another block already
 * does. */
bool crd_prefix_insert(struct crd_prefix *p, int32_t block, int32_t parent, uint64_t salt,
                       struct crd_prefix_hash h, const int32_t ids[LIMIT_BLOCK_TOKENS]);
/* The contents of a childless node are about to go. */
void crd_prefix_forget(struct crd_prefix *p, int32_t block);

#endif
