/* cpu_flags.c: CPUID read directly: the compilers' own helpers know different names in different
 * versions. */
#include "engine/kernels/cpu_flags.h"

#include "base/base.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* The registers that the system saves (XCR0). Only called where CPUID says OSXSAVE. */
static uint32_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

uint32_t krn_cpu_flags(void)
{
    enum { YMM_SAVED = 0x6, ZMM_SAVED = 0xe6 };
    uint32_t a, b, c, d, flags = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    uint32_t saved = saved_registers();
    if ((saved & YMM_SAVED) != YMM_SAVED) return 0;
    if (c & bit_FMA) flags |= KRN_CPU_FMA;
    if (c & bit_F16C) flags |= KRN_CPU_F16C;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return flags;
    if (b & bit_AVX2) flags |= KRN_CPU_AVX2;
    if ((saved & ZMM_SAVED) != ZMM_SAVED) return flags;
    if (b & bit_AVX512F) flags |= KRN_CPU_AVX512F;
    if (b & bit_AVX512BW) flags |= KRN_CPU_AVX512BW;
    if (b & bit_AVX512DQ) flags |= KRN_CPU_AVX512DQ;
    if (b & bit_AVX512VL) flags |= KRN_CPU_AVX512VL;
    if (c & bit_AVX512VNNI) flags |= KRN_CPU_AVX512VNNI;
    return flags;
}
#else
uint32_t krn_cpu_flags(void) { return 0; }
#endif

const char *krn_cpu_flag_name(enum krn_cpu_flag flag)
{
    static const struct {
        enum krn_cpu_flag flag;
        const char *name;
    } names[] = {
        {KRN_CPU_AVX2, "avx2"},         {KRN_CPU_FMA, "fma"},
        {KRN_CPU_F16C, "f16c"},         {KRN_CPU_AVX512F, "avx512f"},
        {KRN_CPU_AVX512BW, "avx512bw"}, {KRN_CPU_AVX512DQ, "avx512dq"},
        {KRN_CPU_AVX512VL, "avx512vl"}, {KRN_CPU_AVX512VNNI, "avx512_vnni"},
    };
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (names[i].flag == flag) return names[i].name;
    return "unknown";
}
