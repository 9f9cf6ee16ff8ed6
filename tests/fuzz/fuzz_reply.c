/* Any bytes as a model's reply, in each style of calls: whole and byte by byte it says the same,
 * and without a call no byte of a reply is lost but white space around thoughts. The first byte
 * chooses the style. */
#include "coordinator/api/reply.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_reply(const struct crd_reply_conf *c, const char *text, size_t n, bool bytes,
                       struct crd_said *said)
{
    struct crd_reply *r = crd_reply_open(c);
    bool over = false;
    for (size_t i = 0; i < (bytes ? n : 1) && !over; i++)
        over = bytes ? crd_reply_push(r, text + i, 1, said) : crd_reply_push(r, text, n, said);
    crd_reply_finish(r, said);
    crd_reply_close(r);
}

static bool same(struct buf *a, struct buf *b)
{
    return a->len == b->len && !memcmp(buf_str(a), buf_str(b), a->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct crd_think_style think = {"<think>", "</think>"};
    struct crd_said whole = {0}, bytes = {0};
    if (!n) return 0;
    size_t styles = 0;
    while (crd_style_at(styles)) styles++;
    struct crd_reply_conf c = {.calls = crd_style_at(data[0] % (styles + 1)),
                               .think = data[0] & 64 ? &think : NULL,
                               .one_call = data[0] & 128};
    read_reply(&c, (const char *)data + 1, n - 1, false, &whole);
    read_reply(&c, (const char *)data + 1, n - 1, true, &bytes);
    ASSERT(same(&whole.text, &bytes.text) && same(&whole.thoughts, &bytes.thoughts) &&
           whole.n_calls == bytes.n_calls);
    for (int32_t i = 0; i < whole.n_calls; i++)
        ASSERT(!strcmp(whole.calls[i].name, bytes.calls[i].name) &&
               same(&whole.calls[i].args, &bytes.calls[i].args));
    if (!whole.n_calls && !c.think)
        ASSERT(whole.text.len == n - 1 && !memcmp(buf_str(&whole.text), data + 1, n - 1));
    crd_said_free(&whole);
    crd_said_free(&bytes);
    return 0;
}
