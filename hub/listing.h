/* listing.h: the files of a model on a hub, as its API lists them, and which of them are wanted. Pure.
 * Source: the hub's API, GET /api/models/ORG/NAME/tree/REVISION?recursive=true. */
#ifndef HUB_LISTING_H
#define HUB_LISTING_H

#include "hub/ref.h"

#include <stddef.h>
#include <stdint.h>

enum { HUB_MOST_FILES = 20000 };

struct hub_file {
    char *path;        /* Own; checked: relative, no "..", printable */
    int64_t size;
    char sha256[65];   /* "" where the hub says none (small files) */
    char oid[65];      /* those that have none: the hub's own name of these bytes (git's), or "" */
};

struct hub_listing {
    struct hub_file *files; /* Own */
    size_t n, cap;
};

/* One page of the listing, appended. Err LINK_PROTOCOL: not such a listing; names that lead elsewhere are refused by name. */
MUST_USE enum err hub_listing_add(struct hub_listing *l, const char *json, size_t n);
void hub_listing_close(struct hub_listing *l);

/* Keep what is wanted, smallest kinds first: of a GGUF repository the parts of one quantisation, of a checkpoint config, words and
 * safetensors. *first: the path to open in the model's folder, "" for the folder itself; of the listing.
 * Err BAD_CONFIG: nothing fits, or several do; it names what there is. */
MUST_USE enum err hub_listing_choose(struct hub_listing *l, const struct hub_ref *r, const char **first);

#endif
