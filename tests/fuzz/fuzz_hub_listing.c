/* Any bytes as a hub's list of a model's files: refused with a sentence, or every name in it stays in the model's folder, and choosing keeps
 * only names that were there. The first byte says whether a quantisation is asked for. Seeds: corpus/hub_listing. */
#include "hub/listing.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hub_listing l = {0};
    struct hub_ref r;
    const char *first = NULL;
    if (!n) return 0;
    ASSERT(hub_ref_parse(&r, data[0] % 2 ? "org/model:Q4_K_M" : "org/model"));
    err_set_text("%s", "");
    if (hub_listing_add(&l, (const char *)data + 1, n - 1)) {
        ASSERT(*err_text());
    } else {
        size_t before = l.n;
        for (size_t i = 0; i < l.n; i++)
            ASSERT(*l.files[i].path != '/' && !strstr(l.files[i].path, "/../") && strncmp(l.files[i].path, "../", 3) && l.files[i].size >= 0);
        if (!hub_listing_choose(&l, &r, &first)) {
            bool found = !*first;
            for (size_t i = 0; i < l.n; i++) found |= l.files[i].path == first;
            ASSERT(found && l.n && l.n <= before);
        }
    }
    hub_listing_close(&l);
    return 0;
}
