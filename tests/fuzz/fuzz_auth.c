/* fuzz_auth.c: any bytes as handshake messages and frames, to both sides. Nothing without the key's
 * tag may get through. The input is cut into messages by a length byte before each. */
#include "transport/auth.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Both sides after an honest handshake. */
static void shake(struct trn_auth *client, struct trn_auth *server)
{
    struct buf a = {0}, b = {0}, c = {0};
    bool done = false;
    if (trn_auth_start(client, &a) || trn_auth_receive(server, a.data, a.len, &b, &done) ||
        trn_auth_receive(client, b.data, b.len, &c, &done) ||
        trn_auth_receive(server, c.data, c.len, &a, &done) || !done)
        abort();
    buf_free(&a);
    buf_free(&b);
    buf_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct auth_key key;
    if (trn_auth_key_of_text(&key, "a key of the fuzzer's own")) abort();
    struct trn_auth *client = trn_auth_open(&key, false, "client"),
                    *server = trn_auth_open(&key, true, "server");
    struct trn_auth *fresh_client = trn_auth_open(&key, false, "c"),
                    *fresh_server = trn_auth_open(&key, true, "s");
    struct buf out = {0};
    shake(client, server);
    while (n > 1) {
        size_t len = MIN((size_t)data[0], n - 1), payload_n;
        const uint8_t *payload;
        bool done;
        if (!trn_auth_open_frame(client, data + 1, len, &payload, &payload_n)) abort();
        if (!trn_auth_open_frame(server, data + 1, len, &payload, &payload_n)) abort();
        if (!trn_auth_receive(fresh_client, data + 1, len, &out, &done)) abort();
        if (!trn_auth_receive(fresh_server, data + 1, len, &out, &done)) abort();
        data += 1 + len;
        n -= 1 + len;
    }
    trn_auth_close(client);
    trn_auth_close(server);
    trn_auth_close(fresh_client);
    trn_auth_close(fresh_server);
    buf_free(&out);
    return 0;
}
