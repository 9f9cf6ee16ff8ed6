/* matmul.c: a packed matrix times activations, one output at a time: the order of table.h,
 * literally. */
#include "engine/kernels/pack.h"
#include "engine/kernels/panel.h"
#include "engine/kernels/ref/ref.h"

#include <math.h>

/* One output element in the making: row r of a tile against token t. */
struct dot {
    const struct krn_matmul *a;
    const uint8_t *tile;
    struct krn_planes planes; /* of a quantised tile */
    int32_t row, t;
};

static float chain_elements(const struct dot *o, int32_t k0, int32_t k1)
{
    const struct krn_mat *w = o->a->w;
    const float *x = o->a->x->x + (int64_t)o->t * w->cols;
    float acc = 0.0f;
    for (int32_t k = k0; k < k1; k++)
        acc = fmaf(krn_pack_element(w->type, o->tile, k, o->row), x[k], acc);
    return acc;
}

static float chain_dequantised(const struct dot *o, int32_t k0, int32_t k1)
{
    const struct krn_mat *w = o->a->w;
    const float *x = o->a->x->x + (int64_t)o->t * w->cols;
    float acc = 0.0f;
    for (int32_t k = k0; k < k1; k += KRN_UNIT) {
        struct krn_unit_row u;
        float value[KRN_UNIT];
        krn_pack_unit_row(w->type, &o->planes, k / KRN_UNIT, o->row, &u);
        krn_pack_unit_values(w->type, &u, value);
        for (int32_t i = 0; i < KRN_UNIT; i++) acc = fmaf(value[i], x[k + i], acc);
    }
    return acc;
}

static float chain_units(const struct dot *o, int32_t k0, int32_t k1)
{
    const struct krn_mat *w = o->a->w;
    const struct krn_act *x = o->a->x;
    float acc = 0.0f;
    for (int32_t k = k0; k < k1; k += KRN_UNIT) {
        struct krn_panel_lane l = krn_panel_lane(x, o->t, k / KRN_UNIT);
        const int8_t *xq = krn_lane_q(&l);
        float dx = krn_lane_f32(&l, KRN_UNIT_D);
        struct krn_unit_row u;
        krn_pack_unit_row(w->type, &o->planes, k / KRN_UNIT, o->row, &u);
        int32_t isum[2] = {0, 0}, s[2] = {0, 0}; /* of the two half units */
        for (int32_t i = 0; i < KRN_UNIT; i++) {
            isum[i / 16] += u.q[i] * xq[i];
            s[i / 16] += xq[i];
        }
        if (!krn_pack_halves(w->type)) { /* one step for both */
            isum[0] += isum[1];
            s[0] += s[1];
        }
        for (int32_t h = 0; h < (krn_pack_halves(w->type) ? 2 : 1); h++) {
            acc = fmaf(u.d[h] * dx, (float)isum[h], acc);
            if (krn_pack_has_min(w->type)) acc = fmaf(-(u.m[h] * dx), (float)s[h], acc);
        }
    }
    return acc;
}

/* The sum over leaves [la, lb) in the order of the tree. */
static float node_sum(const struct dot *o, int32_t la, int32_t lb)
{
    const struct krn_leaves *l = o->a->leaves;
    if (lb - la > 1) {
        int32_t m = tree_split(la, lb);
        float left = node_sum(o, la, m);
        return left + node_sum(o, m, lb);
    }
    int32_t k0 = l->cols[la - l->lo], k1 = l->cols[lb - l->lo];
    if (!krn_pack_is_quant(o->a->w->type)) return chain_elements(o, k0, k1);
    return o->a->x->q ? chain_units(o, k0, k1) : chain_dequantised(o, k0, k1);
}

void krn_ref_matmul(const struct krn_matmul *a)
{
    const struct krn_mat *w = a->w;
    const struct krn_leaves *l = a->leaves;
    ASSERT(a->x->cols == w->cols && l->cols[l->hi - l->lo] == w->cols && a->row0 % KRN_TILE == 0);
    for (int32_t t = 0; t < a->x->n_tok; t++)
        for (int32_t r = a->row0; r < a->row1; r++) {
            struct dot o = {.a = a,
                            .tile = w->data + r / KRN_TILE * w->tile_bytes,
                            .row = r % KRN_TILE,
                            .t = t};
            if (krn_pack_is_quant(w->type)) o.planes = krn_pack_planes(w->type, o.tile, w->cols);
            for (int32_t i = 0; i < l->n_nodes; i++)
                a->y[t * a->y_stride + i * a->node_stride + r] =
                    node_sum(&o, l->nodes[i].a, l->nodes[i].b);
        }
}
