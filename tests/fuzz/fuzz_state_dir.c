/* fuzz_state_dir.c: any bytes as what a coordinator left of a replica, and of the model it served. What is understood is written again as something
 * that means the same. */
#include "coordinator/state_dir.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct crd_left l, again;
    struct buf b = {0};
    static struct crd_now now, same;
    if (!crd_now_parse(&now, (const char *)data, n)) {
        buf_printf(&b, "%d\n%s\n", now.number, now.model);
        if (crd_now_parse(&same, buf_str(&b), b.len) || same.number != now.number || strcmp(same.model, now.model)) abort();
        buf_free(&b);
    }
    if (crd_left_parse(&l, (const char *)data, n) || !l.listen[0]) return 0;
    crd_left_write(&l, &b);
    if (crd_left_parse(&again, buf_str(&b), b.len) || memcmp(&l, &again, sizeof l)) abort();
    buf_free(&b);
    return 0;
}
