/* fuzz_control.c: any bytes as a control message. What is accepted must encode to bytes that are
 * accepted. */
#include "proto/control.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct control_msg *m = NULL, *again = NULL;
    struct buf b = {0};
    if (control_decode(data, n, &m)) return 0;
    control_encode(m, &b);
    if (control_decode(b.data, b.len, &again) || again->type != m->type) abort();
    control_msg_free(m);
    control_msg_free(again);
    buf_free(&b);
    return 0;
}
