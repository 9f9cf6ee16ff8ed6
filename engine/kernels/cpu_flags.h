/* cpu_flags.h: which of the instruction sets we have kernels for this processor (and its system)
 * runs. Internal to engine/kernels. Thr: any. */
#ifndef ENGINE_KERNELS_CPU_FLAGS_H
#define ENGINE_KERNELS_CPU_FLAGS_H

#include <stdint.h>

enum krn_cpu_flag {
    KRN_CPU_AVX2 = 1 << 0,
    KRN_CPU_FMA = 1 << 1,
    KRN_CPU_F16C = 1 << 2,
    KRN_CPU_AVX512F = 1 << 3,
    KRN_CPU_AVX512BW = 1 << 4,
    KRN_CPU_AVX512DQ = 1 << 5,
    KRN_CPU_AVX512VL = 1 << 6,
    KRN_CPU_AVX512VNNI = 1 << 7,
    KRN_CPU_AVXVNNI = 1 << 8,
    KRN_CPU_AMX_INT8 = 1 << 9, /* and its tiles, which the system lets this process use */
    KRN_CPU_NEON = 1 << 10,
    KRN_CPU_DOTPROD = 1 << 11,
    KRN_CPU_I8MM = 1 << 12,
    KRN_CPU_AVX512BF16 = 1 << 13, /* where its dot product is faster than f32's multiply-adds: not on Intel's */
    /* what the flags of engine/kernels/CMakeLists.txt let the compiler use in each folder */
    KRN_CPU_NEED_AVX2 = KRN_CPU_AVX2 | KRN_CPU_FMA | KRN_CPU_F16C,
    KRN_CPU_NEED_AVX512 = KRN_CPU_NEED_AVX2 | KRN_CPU_AVX512F | KRN_CPU_AVX512BW |
                          KRN_CPU_AVX512DQ | KRN_CPU_AVX512VL | KRN_CPU_AVX512VNNI,
    KRN_CPU_NEED_AVXVNNI = KRN_CPU_NEED_AVX2 | KRN_CPU_AVXVNNI,
    KRN_CPU_NEED_AMX = KRN_CPU_NEED_AVX512 | KRN_CPU_AMX_INT8,
    KRN_CPU_NEED_DOTPROD = KRN_CPU_NEON | KRN_CPU_DOTPROD,
    KRN_CPU_NEED_I8MM = KRN_CPU_NEED_DOTPROD | KRN_CPU_I8MM,
};

/* The flags present, registers saved by the system included; 0 on other architectures. Asks the system for the use
 * of AMX tiles where there are any: a process's threads started later may use them too. */
uint32_t krn_cpu_flags(void);
/* "avx512bw", ... of one flag. */
const char *krn_cpu_flag_name(enum krn_cpu_flag flag);

#endif
