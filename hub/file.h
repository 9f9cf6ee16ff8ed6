/* file.h: a file that is being fetched: its bytes so far lie in a hidden file beside it (".NAME.part"), with their sha256 as far as they go;
 * it takes its name only when it is whole and its sum is the one that was promised. Whether a file that is here is the hub's: kept.h. */
#ifndef HUB_FILE_H
#define HUB_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct hub_part;

/* The folders of a path are made. Err IO. */
MUST_USE enum err hub_make_folders(const char *path);

/* Open DIR/PATH's part (folders are made). goes_on: sum what is there and go on behind it; where no sum will say whether that is of the same file,
 * it is begun anew. Err IO. */
MUST_USE enum err hub_part_open(struct hub_part **out, const char *dir, const char *path, int64_t size, bool goes_on);
/* What is there of it. */
int64_t hub_part_left(const char *dir, const char *path);
int64_t hub_part_bytes(const struct hub_part *p);
/* Append. Err LINK_PROTOCOL (more than the size), IO (the disk is full: what came stays). */
MUST_USE enum err hub_part_put(struct hub_part *p, const void *data, size_t n);
/* From the first byte again. Err IO. */
MUST_USE enum err hub_part_again(struct hub_part *p);
/* It has all its bytes: to disk, and by its name. sha256: "" is not checked. sum: 65 characters, what they sum up to.
 * Err BAD_FILE: another sum; the part is empty then. */
MUST_USE enum err hub_part_finish(struct hub_part *p, const char *sha256, char sum[]);
void hub_part_close(struct hub_part *p);

/* The sha256 of a file that is here. summed: is told of each so many bytes more. Err IO. */
MUST_USE enum err hub_file_sum(const char *dir, const char *path, void (*summed)(void *user, int64_t bytes), void *user, char sum[]);

#endif
