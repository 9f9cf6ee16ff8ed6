/* fuzz_journal.c: any bytes as a journal: as it is, and as the payload of a record whose checksum is right. What is understood must be written
 * again as bytes that are understood the same. */
#include "coordinator/journal/record.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void again(const struct record_event *e)
{
    static struct record_event back;
    struct buf b = {0};
    size_t bytes;
    if (e->kind == RECORD_ACCEPT) record_put_accept(&b, e->request, &e->accept);
    if (e->kind == RECORD_TOKEN || e->kind == RECORD_FINISH) record_put_event(&b, e->request, e->sub, &e->event);
    if (e->kind == RECORD_END) record_put_end(&b, e->request, e->ended_s);
    struct rd r = rd_of(buf_str(&b), b.len);
    if (b.len && (!record_next(&r, &back, &bytes) || bytes != b.len || back.kind != e->kind || back.request != e->request)) abort();
    buf_free(&b);
}

static void read_all(const uint8_t *p, size_t n)
{
    static struct record_event e;
    struct rd r = rd_of(p, n);
    struct record_score t;
    size_t bytes;
    while (record_next(&r, &e, &bytes)) {
        struct rd tokens = e.kind == RECORD_PROMPT ? rd_of(e.prompt, e.prompt_bytes) : rd_of(p, 0);
        for (int32_t i = 0; e.kind == RECORD_PROMPT && i < e.n_prompt; i++)
            if (!record_prompt_token(&tokens, &t)) abort();
        again(&e);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint64_t fit;
    struct buf b = {0};
    if (!record_check_file(data, n, &fit) && n < RECORD_FILE_HEAD) abort();
    read_all(data, n);
    if (!n) return 0;
    buf_u32(&b, (uint32_t)(n - 1)); /* the first byte says which kind */
    buf_u32(&b, data[0]);
    buf_u64(&b, 7);
    buf_put(&b, data + 1, n - 1);
    buf_u64(&b, XXH3_64bits(b.data, b.len));
    read_all(b.data, b.len);
    buf_free(&b);
    return 0;
}
