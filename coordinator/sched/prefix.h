/* prefix.h: which blocks hold the KV of which run of tokens: a tree of full blocks, found by hash,
 * confirmed by token ids. Private to sched/. A node stands for LIMIT_BLOCK_TOKENS tokens and all
 * before them, and names at most one block of each group (proto/kv_groups.h); it lasts while it has
 * a block, a child, or a user. Not here: who refers to a block and which goes first (blocks.c). */
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
    int32_t parent; /* of the tokens before, PREFIX_NONE at the root */
    int32_t n_uses; /* children, blocks and users; 0: the node is free */
    int32_t next;   /* in its bucket, or of the free ones */
    int32_t ids[LIMIT_BLOCK_TOKENS];
    int32_t blocks[LIMIT_GROUPS]; /* or PREFIX_NONE */
};

struct crd_prefix {
    uint64_t key[2];
    int32_t n_nodes, n_buckets, n_blocks, n_free;
    struct crd_prefix_node *nodes; /* [n_nodes] */
    int32_t *buckets;              /* [n_buckets] first node or PREFIX_NONE */
    int32_t first_free;
    int32_t *owner; /* [n_blocks] the node that names a block, or PREFIX_NONE */
};

void crd_prefix_open(struct crd_prefix *p, int32_t n_nodes, int32_t n_blocks, const uint64_t key[2]);
void crd_prefix_close(struct crd_prefix *p);

/* The hash before the first block. */
struct crd_prefix_hash crd_prefix_root(const struct crd_prefix *p, uint64_t salt);
/* The hash after one more block. */
struct crd_prefix_hash crd_prefix_chain(struct crd_prefix_hash before,
                                        const int32_t ids[LIMIT_BLOCK_TOKENS]);

/* The node of `ids` right after node `parent` (PREFIX_NONE: at the start) within a salt, or
 * PREFIX_NONE. */
int32_t crd_prefix_find(const struct crd_prefix *p, int32_t parent, uint64_t salt,
                        struct crd_prefix_hash h, const int32_t ids[LIMIT_BLOCK_TOKENS]);
/* The same; where there is none it is made. PREFIX_NONE: no node is free. */
int32_t crd_prefix_enter(struct crd_prefix *p, int32_t parent, uint64_t salt,
                         struct crd_prefix_hash h, const int32_t ids[LIMIT_BLOCK_TOKENS]);
/* A user more, a user less; PREFIX_NONE is nobody's. A node that has just been entered needs one, or
 * a block. */
void crd_prefix_use(struct crd_prefix *p, int32_t node);
void crd_prefix_unuse(struct crd_prefix *p, int32_t node);
/* `block` holds a group's KV of the node, which named none. */
void crd_prefix_name(struct crd_prefix *p, int32_t node, int32_t group, int32_t block);
/* A named block's contents are about to go. */
void crd_prefix_forget(struct crd_prefix *p, int32_t block);

#endif
