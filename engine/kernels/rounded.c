/* rounded.c: which processors round. On Intel's (Sapphire and Emerald Rapids) vdpbf16ps takes twice the time of the multiply-adds it
 * replaces; on AMD's since Zen 4 half of it. */
#include "engine/kernels/rounded.h"

#include "base/base.h"
#include "engine/kernels/cpu_flags.h"

#if KRN_HAVE_X86
#include "engine/kernels/avx512/avx512.h"
#endif
#if KRN_HAVE_AVX512BF16
#include "engine/kernels/avx512bf16/avx512bf16.h"
#endif

const struct krn_rounded *krn_rounded_of(const struct krn_table *t)
{
#if KRN_HAVE_AVX512BF16
    if (t == &krn_avx512 && krn_cpu_flags() & KRN_CPU_AVX512BF16) return &krn_avx512bf16;
#endif
    (void)t;
    return NULL;
}
