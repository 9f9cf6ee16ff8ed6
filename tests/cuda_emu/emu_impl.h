// emu_impl.h: what the emulation's files share. Not for kernels.
#ifndef TESTS_CUDA_EMU_EMU_IMPL_H
#define TESTS_CUDA_EMU_EMU_IMPL_H

#include "cuda_runtime_api.h"
#include "emu_counts.h"

#include <functional>

namespace cuda_emu {

extern cuda_emu_counts counts;
extern thread_local cudaError_t last_error;
cudaError_t fail(cudaError_t e);
// Is this the call that CUDA_EMU_FAIL names?
bool ordered_to_fail(const char *what);
// The device's memory can be touched while there is one of these.
struct opened {
    opened();
    ~opened();
};
// A copy by who works on a stream beside the kernels: either side may be the device's.
void touch(void *dst, const void *src, size_t n);

// f is done on the stream (NULL: one where nothing is ever under way): now, or, under CUDA_EMU_ASYNC, in its turn. While the thread captures it is kept instead.
void tell(cudaStream_t s, std::function<void()> f);
void drain(cudaStream_t s);
// The thread captures, and this cannot be: the capture will fail. False: it does not.
bool spoil_capture();

} // namespace cuda_emu

#endif
