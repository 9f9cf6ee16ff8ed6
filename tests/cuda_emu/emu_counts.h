/* emu_counts.h: what the host has asked of the emulated cards so far, for tests: the plug-in's cuda_emu_counted, found by dlsym. Of threads that ask at
 * the same time some may be missed. */
#ifndef TESTS_CUDA_EMU_EMU_COUNTS_H
#define TESTS_CUDA_EMU_EMU_COUNTS_H

#include <stdint.h>

struct cuda_emu_counts {
    uint64_t allocations;       /* of a card's memory, of pinned memory; what is freed, too */
    uint64_t waits;             /* of the host for a card; not those for what an earlier wait has shown to be done */
    uint64_t captures, graphs, replays;
    uint64_t held;              /* bytes of the cards' memory now, as they were asked for */
};

typedef void cuda_emu_counted_fn(struct cuda_emu_counts *out);

#endif
