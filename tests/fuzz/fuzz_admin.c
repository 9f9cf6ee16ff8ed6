/* Any bytes as a line for the admin socket: refused with a sentence, or one of the two verbs, its path whole. */
#include "coordinator/admin.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct crd_admin_request r;
    err_set_text("%s", "");
    if (crd_admin_parse(&r, (const char *)data, n)) {
        ASSERT(*err_text());
        return 0;
    }
    if (r.verb == ADMIN_DRAIN) ASSERT(n == 5 && !r.model[0]);
    else ASSERT(r.verb == ADMIN_RELOAD && strlen(r.model) == n - 7 && n > 7 && !memcmp(r.model, data + 7, n - 7));
    return 0;
}
