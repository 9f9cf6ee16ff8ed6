/* journal_file.h: the journal's file: appended to, or written anew. Private to journal/. Thr: one, but sync. */
#ifndef COORDINATOR_JOURNAL_JOURNAL_FILE_H
#define COORDINATOR_JOURNAL_JOURNAL_FILE_H

#include "coordinator/journal/record.h"

#include <pthread.h>

struct crd_journal_file {
    char *path;
    int fd;         /* -1: there is none that can be written; changed under the lock */
    int64_t size;
    pthread_mutex_t lock;
};

void crd_journal_file_open(struct crd_journal_file *f, const char *path); /* touches nothing yet */
void crd_journal_file_close(struct crd_journal_file *f);
/* All of what is there; nothing when there is no file. Err IO. */
MUST_USE enum err crd_journal_file_read(const struct crd_journal_file *f, struct buf *out);
/* Whole or not at all: after a failure the file is as before. Err IO. */
MUST_USE enum err crd_journal_file_append(struct crd_journal_file *f, const void *p, size_t n);
/* A new file beside the old one, in parts; end puts it in the old one's place, synced. Err IO: the old one stands. */
struct crd_journal_fresh { int fd; int64_t size; bool good; };
void crd_journal_fresh_begin(struct crd_journal_file *f, struct crd_journal_fresh *n);
void crd_journal_fresh_put(struct crd_journal_fresh *n, const void *p, size_t len);
MUST_USE enum err crd_journal_fresh_end(struct crd_journal_file *f, struct crd_journal_fresh *n);
/* What was written is on the disk when this returns. Thr: any. */
void crd_journal_file_sync(struct crd_journal_file *f);

#endif
