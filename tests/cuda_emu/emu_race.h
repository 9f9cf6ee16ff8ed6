// emu_race.h: what the emulation tells the check of kernels' accesses (emu_race.cpp), which is in libtessera_cuda_emu_race.so alone: nothing elsewhere.
#ifndef TESTS_CUDA_EMU_EMU_RACE_H
#define TESTS_CUDA_EMU_EMU_RACE_H

#include <cstddef>

namespace cuda_emu {

bool has_begun(); // has the running thread passed its kernel's cu_begin?

#ifdef CUDA_EMU_RACES
// Device memory lies in base[bytes], what is allocated of it is [p, p + n).
void race_region(char *base, size_t bytes);
void race_allocated(char *p, size_t n);
void race_freed(char *p, size_t n);
// Around a grid, at the start of each block, and when the threads of one have passed a barrier; of the thread that goes on, its index and how often
// its warp has met in __syncwarp.
void race_grid(bool begins, const char *stacks, size_t n_stacks);
void race_block(unsigned x, unsigned y, unsigned z);
void race_barrier();
void race_thread(unsigned index, unsigned met);
#else
static inline void race_region(char *, size_t) {}
static inline void race_allocated(char *, size_t) {}
static inline void race_freed(char *, size_t) {}
static inline void race_grid(bool, const char *, size_t) {}
static inline void race_block(unsigned, unsigned, unsigned) {}
static inline void race_barrier() {}
static inline void race_thread(unsigned, unsigned) {}
#endif

} // namespace cuda_emu

#endif
