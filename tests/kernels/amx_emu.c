/* amx_emu.c: krn_table_all as test_matmul.c of the program kernels_amx_emu calls it: ref, and AMX's
 * products with their tiles emulated (amx_emu.h). */
#include "engine/kernels/amx/amx.h"
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/pack.h"

#include <stdio.h>
#include <stdlib.h>

int32_t amx_emu_tables(const struct krn_table *out[], int32_t max);
extern const struct krn_leaf_kernel krn_amx_emu_int8[DTYPE_COUNT];

static void matmul(const struct krn_matmul *a)
{
    if (krn_pack_is_quant(a->w->type) && a->x->q)
        krn_leaf_walk(a, &krn_amx_emu_int8[a->w->type]);
    else
        krn_avx512_matmul(a);
}

int32_t amx_emu_tables(const struct krn_table *out[], int32_t max)
{
    static const struct krn_table table = {.name = "amx, tiles emulated", .matmul = matmul};
    const struct krn_table *avx512;
    if (max < 2) return 0;
    if (krn_table_pick("avx512", &avx512)) {
        printf("skipped: the emulated tiles stand among AVX-512 code, and %s\n", err_text());
        exit(77);
    }
    out[0] = &krn_ref;
    out[1] = &table;
    return 2;
}
