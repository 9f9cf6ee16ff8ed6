/* coll_reduce.c: see coll_reduce.h.
 *
 * Addition goes element by element, so the tree may be walked for any block of elements by anybody:
 * the bits of out[i] depend on part[*][i] alone. Blocks are small enough that intermediate sums
 * stay in the first-level cache.
 *
 * I1  out is written only by the last addition of a block, after every part was read: out may be a
 *     part. */
#include "transport/coll_reduce.h"

#include "base/base.h"

#include <string.h>

enum { BLOCK = 512, DEPTH = 12 };

static void emit(struct trn_reduce *p, const struct tree_node *parts, int32_t a, int32_t b,
                 int32_t *next)
{
    if (parts[*next].b == b) {
        ASSERT(parts[*next].a == a);
        p->ops[p->n_ops++] = (int16_t)(*next)++;
        return;
    }
    int32_t m = tree_split(a, b);
    emit(p, parts, a, m, next);
    emit(p, parts, m, b, next);
    p->ops[p->n_ops++] = -1;
}

void trn_reduce_plan(struct trn_reduce *p, const struct coll_cut *cut, int32_t size)
{
    struct tree_node parts[TREE_MAX_LEAF + TREE_MAX_NODES];
    int32_t next = 0;
    p->n_parts = p->n_ops = 0;
    for (int32_t r = 0; r < size; r++) {
        p->first[r] = p->n_parts;
        p->n_parts +=
            tree_maximal(cut->n_leaf, cut->bounds[r], cut->bounds[r + 1], parts + p->n_parts);
    }
    p->first[size] = p->n_parts;
    emit(p, parts, 0, cut->n_leaf, &next);
}

void trn_reduce_plan_node(struct trn_reduce *p, const struct tree_node parts[], int32_t n, int32_t a, int32_t b)
{
    int32_t next = 0;
    p->n_parts = n;
    p->n_ops = 0;
    emit(p, parts, a, b, &next);
    ASSERT(next == n);
}

/* dst may be l or r, wholly; the three loops differ only in what the compiler may assume. */
static void add(float *dst, const float *l, const float *r, int64_t n)
{
    float *restrict d = dst;
    if (dst == l || dst == r) {
        const float *restrict x = dst == l ? r : l;
        for (int64_t i = 0; i < n; i++) d[i] += x[i];
    } else {
        for (int64_t i = 0; i < n; i++) d[i] = l[i] + r[i];
    }
}

static void run_block(const struct trn_reduce *p, const float *const part[], float *out, int64_t lo,
                      int64_t n)
{
    float buf[DEPTH][BLOCK];
    const float *top[DEPTH];
    int32_t h = 0;
    for (int32_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i] >= 0) {
            top[h++] = part[p->ops[i]] + lo;
            continue;
        }
        h--;
        float *dst = i + 1 == p->n_ops ? out + lo : buf[h - 1];
        add(dst, top[h - 1], top[h], n);
        top[h - 1] = dst;
    }
}

void trn_reduce_run(const struct trn_reduce *p, const float *const part[], float *out, int64_t n)
{
    if (p->n_parts == 1) {
        if (out != part[0] && n) memcpy(out, part[0], (size_t)n * sizeof *out);
        return;
    }
    for (int64_t lo = 0; lo < n; lo += BLOCK) run_block(p, part, out, lo, MIN(n - lo, BLOCK));
}
