/* fuzz_state_dir.c: any bytes as what a coordinator left of a replica. What is understood is written again as something that means the same. */
#include "coordinator/state_dir.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct crd_left l, again;
    struct buf b = {0};
    if (crd_left_parse(&l, (const char *)data, n) || !l.listen[0]) return 0;
    crd_left_write(&l, &b);
    if (crd_left_parse(&again, buf_str(&b), b.len) || memcmp(&l, &again, sizeof l)) abort();
    buf_free(&b);
    return 0;
}
