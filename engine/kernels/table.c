/* table.c: the kernel tables of this build, best last, and the choice among them at run time. */
#include "engine/kernels/table.h"

#include "base/base.h"
#include "engine/kernels/cpu_flags.h"

#include <string.h>

#if KRN_HAVE_X86
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx512/avx512.h"
#endif
#if KRN_HAVE_AVXVNNI
#include "engine/kernels/avxvnni/avxvnni.h"
#endif
#if KRN_HAVE_AMX
#include "engine/kernels/amx/amx.h"
#endif
#if KRN_HAVE_ARM64
#include "engine/kernels/dotprod/dotprod.h"
#include "engine/kernels/i8mm/i8mm.h"
#include "engine/kernels/neon/neon.h"
#endif

struct candidate {
    const struct krn_table *table;
    uint32_t need;
};

static const struct candidate candidates[] = {
    {&krn_ref, 0},
#if KRN_HAVE_X86
    {&krn_avx2, KRN_CPU_NEED_AVX2},
#endif
#if KRN_HAVE_AVXVNNI
    {&krn_avxvnni, KRN_CPU_NEED_AVXVNNI},
#endif
#if KRN_HAVE_X86
    {&krn_avx512, KRN_CPU_NEED_AVX512},
#endif
#if KRN_HAVE_AMX
    {&krn_amx, KRN_CPU_NEED_AMX},
#endif
#if KRN_HAVE_ARM64
    {&krn_neon, KRN_CPU_NEON},
    {&krn_dotprod, KRN_CPU_NEED_DOTPROD},
    {&krn_i8mm, KRN_CPU_NEED_I8MM},
#endif
};

int32_t krn_table_all(const struct krn_table *out[], int32_t max)
{
    uint32_t have = krn_cpu_flags();
    int32_t n = 0;
    for (size_t i = 0; i < COUNT_OF(candidates) && n < max; i++)
        if ((candidates[i].need & ~have) == 0) out[n++] = candidates[i].table;
    return n;
}

/* " avx512bw avx512vl": the flags this CPU lacks. */
static void list_flags(uint32_t flags, char *text, size_t size)
{
    text[0] = '\0';
    for (uint32_t bit = 1; bit && bit <= flags; bit <<= 1) {
        if (!(flags & bit)) continue;
        strncat(text, " ", size - strlen(text) - 1);
        strncat(text, krn_cpu_flag_name((enum krn_cpu_flag)bit), size - strlen(text) - 1);
    }
}

enum err krn_table_pick(const char *want, const struct krn_table **out)
{
    uint32_t have = krn_cpu_flags();
    char names[64] = "";
    if (!want || strcmp(want, "auto") == 0) {
        const struct krn_table *all[COUNT_OF(candidates)];
        int32_t n = krn_table_all(all, COUNT_OF(all));
        *out = all[n - 1];
        return OK;
    }
    for (size_t i = 0; i < COUNT_OF(candidates); i++) {
        strncat(names, " ", sizeof names - strlen(names) - 1);
        strncat(names, candidates[i].table->name, sizeof names - strlen(names) - 1);
        if (strcmp(want, candidates[i].table->name) != 0) continue;
        uint32_t lacks = candidates[i].need & ~have;
        if (!lacks) {
            *out = candidates[i].table;
            return OK;
        }
        char text[128];
        list_flags(lacks, text, sizeof text);
        return err_raise(
            ERR_BAD_CONFIG,
            "kernels \"%s\" need instructions that this processor lacks:%s; use \"auto\"", want,
            text);
    }
    return err_raise(ERR_BAD_CONFIG,
                     "kernels \"%s\" do not exist in this build: use \"auto\" or one of%s", want,
                     names);
}
