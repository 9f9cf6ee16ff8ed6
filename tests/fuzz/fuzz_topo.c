/* Any bytes as a topology, and as a hostfile: refused with a sentence, or whole and written back to
 * the same. Seeds: tests/machines. */
#include "cluster/hostfile.h"
#include "cluster/topo.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct clu_topo t, again;
    struct clu_hostfile h;
    struct buf b = {0};
    err_set_text("%s", "");
    if (clu_topo_parse(&t, (const char *)data, n)) {
        ASSERT(*err_text());
    } else {
        ASSERT(t.n_devices > 0 && t.n_devices <= LIMIT_RANKS && t.n_hosts <= CLU_MAX_HOSTS);
        for (int32_t i = 0; i < t.n_devices; i++)
            ASSERT(t.devices[i].host >= 0 && t.devices[i].host < t.n_hosts);
        clu_topo_write(&t, &b);
        if (b.len <= CLU_TOPO_BYTES)
            ASSERT(!clu_topo_parse(&again, (const char *)b.data, b.len) &&
                   again.n_devices == t.n_devices);
    }
    buf_free(&b);
    err_set_text("%s", "");
    if (clu_hostfile_parse(&h, (const char *)data, n))
        ASSERT(*err_text());
    else
        ASSERT(h.n > 0 && h.n_slots <= LIMIT_RANKS);
    return 0;
}
