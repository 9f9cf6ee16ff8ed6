/* formats.c: which dialect answers at which endpoint. */
#include "coordinator/api/answer_out.h"

#include <string.h>

const struct crd_format *crd_format_of(enum crd_endpoint ep)
{
    static const struct crd_format *const formats[] = {
        [ENDPOINT_CHAT] = &crd_format_chat,
        [ENDPOINT_COMPLETIONS] = &crd_format_completions,
    };
    return formats[ep];
}

const struct crd_format *crd_format_at(const char *path)
{
    (void)path;
    return &crd_format_chat;
}
