/* scratch.h: where tests find shared data and put files of their own. Thr: one. */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include "base/buf.h"

#include <stdbool.h>

/* $TESSERA_SHARED/data/REL (or ../shared/data/REL), or NULL when nothing is there; valid until the
 * next call. */
const char *scratch_shared(const char *rel);
/* Say on stdout that REL is absent; returns 77, a skipped test program's exit status. */
int scratch_skip(const char *rel);

/* A path that reads as these bytes (a file in memory); valid until the next call, which drops the
 * bytes. */
const char *scratch_bytes(const void *p, size_t n);
/* The whole file into *out (emptied first); false if it cannot be read. */
bool scratch_read(const char *path, struct buf *out);
void scratch_write(const char *path, const void *p, size_t n);

/* A fresh empty directory under $TMPDIR, removed with all that is in it when the program ends. */
const char *scratch_dir(void);
/* "DIR/name" in that directory; valid until the program ends. */
const char *scratch_path(const char *name);

#endif
