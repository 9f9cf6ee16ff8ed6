/* formats.c: which dialect answers at which endpoint and path. */
#include "coordinator/api/answer_out.h"

#include <string.h>

const struct crd_format *crd_format_of(enum crd_endpoint ep)
{
    static const struct crd_format *const formats[] = {
        [ENDPOINT_CHAT] = &crd_format_chat,
        [ENDPOINT_COMPLETIONS] = &crd_format_completions,
        [ENDPOINT_RESPONSES] = &crd_format_responses,
        [ENDPOINT_MESSAGES] = &crd_format_messages,
        [ENDPOINT_OLLAMA_CHAT] = &crd_format_ollama,
        [ENDPOINT_OLLAMA_GENERATE] = &crd_format_ollama,
        [ENDPOINT_EMBEDDINGS] = &crd_format_embeddings,
        [ENDPOINT_OLLAMA_EMBED] = &crd_format_ollama_embed,
        [ENDPOINT_OLLAMA_EMBEDDINGS] = &crd_format_ollama_embeddings,
    };
    return formats[ep];
}

const struct crd_format *crd_format_at(const char *path)
{
    if (!strncmp(path, "/v1/messages", 12)) return &crd_format_messages;
    if (!strncmp(path, "/api/", 5)) return &crd_format_ollama;
    return &crd_format_chat;
}
