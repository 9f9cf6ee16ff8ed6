/* cpu_flags.c: CPUID read directly: the compilers' own helpers know different names in different
 * versions. On ARM64 the system says what it saw. */
#include "engine/kernels/cpu_flags.h"

#include "base/base.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The registers that the system saves (XCR0). Only called where CPUID says OSXSAVE. */
static uint32_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool is_intel(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx;
}

/* Tiles are a large state: the system saves them only for processes that ask. */
static bool may_use_tiles(void)
{
    enum { REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 }; /* of arch_prctl; of XCR0 */
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILE_DATA) == 0;
}

uint32_t krn_cpu_flags(void)
{
    enum { YMM_SAVED = 0x6, ZMM_SAVED = 0xe6, TILES_SAVED = 0x60000, AMX_TILE = 1 << 24,
           AMX_INT8 = 1 << 25, AVX_VNNI = 1 << 4, AVX512_BF16 = 1 << 5 };
    uint32_t a, b, c, d, flags = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    uint32_t saved = saved_registers();
    if ((saved & YMM_SAVED) != YMM_SAVED) return 0;
    if (c & bit_FMA) flags |= KRN_CPU_FMA;
    if (c & bit_F16C) flags |= KRN_CPU_F16C;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return flags;
    uint32_t amx = AMX_TILE | AMX_INT8, has_amx = (d & amx) == amx, a1 = 0, b1, c1, d1;
    if (b & bit_AVX2) flags |= KRN_CPU_AVX2;
    if (a >= 1 && !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)) a1 = 0;
    if (a1 & AVX_VNNI) flags |= KRN_CPU_AVXVNNI;
    if ((saved & ZMM_SAVED) != ZMM_SAVED) return flags;
    if (b & bit_AVX512F) flags |= KRN_CPU_AVX512F;
    if (b & bit_AVX512BW) flags |= KRN_CPU_AVX512BW;
    if (b & bit_AVX512DQ) flags |= KRN_CPU_AVX512DQ;
    if (b & bit_AVX512VL) flags |= KRN_CPU_AVX512VL;
    if (c & bit_AVX512VNNI) flags |= KRN_CPU_AVX512VNNI;
    if (a1 & AVX512_BF16 && !is_intel()) flags |= KRN_CPU_AVX512BF16;
    if (has_amx && (saved & TILES_SAVED) == TILES_SAVED && may_use_tiles())
        flags |= KRN_CPU_AMX_INT8;
    return flags;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

uint32_t krn_cpu_flags(void)
{
    enum { ASIMD = 1 << 1, ASIMDDP = 1 << 20, I8MM2 = 1 << 13 }; /* the kernel's HWCAP_*, HWCAP2_* */
    unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    uint32_t flags = 0;
    if (one & ASIMD) flags |= KRN_CPU_NEON;
    if (one & ASIMDDP) flags |= KRN_CPU_DOTPROD;
    if (two & I8MM2) flags |= KRN_CPU_I8MM;
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
        {KRN_CPU_AVXVNNI, "avx_vnni"},  {KRN_CPU_AMX_INT8, "amx_int8"},
        {KRN_CPU_NEON, "asimd"},        {KRN_CPU_DOTPROD, "asimddp"},
        {KRN_CPU_I8MM, "i8mm"},         {KRN_CPU_AVX512BF16, "avx512_bf16"},
    };
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (names[i].flag == flag) return names[i].name;
    return "unknown";
}
