/* record.h: the journal's bytes: one record after another, each whole or not there.
 *
 *   file    "TSRJ" version u32 | fit u64 | record...
 *   record  n u32 | kind u8, 3 zeroes | request u64 | payload[n] | XXH3 of all before it in this record, u64
 *
 *   ACCEPT  a request as it was handed to the scheduler: everything that its answer is a function of
 *   PROMPT  log-probabilities of a prompt, where they were asked for
 *   TOKEN   one token of one choice, and the finish that comes with it
 *   FINISH  a choice has ended, or all that were left of a prompt (choice -1)
 *   END     the answer was given whole
 *
 * All little-endian. A reader takes records until the first that is cut off, does not add up, or makes no sense, and nothing after it. Pure. */
#ifndef COORDINATOR_JOURNAL_RECORD_H
#define COORDINATOR_JOURNAL_RECORD_H

#include "base/buf.h"
#include "base/err.h"
#include "coordinator/sched/scheduler.h"

enum record_kind { RECORD_ACCEPT = 1, RECORD_PROMPT, RECORD_TOKEN, RECORD_FINISH, RECORD_END };
enum { RECORD_FILE_HEAD = 16, RECORD_HEAD = 16, RECORD_TAIL = 8, RECORD_MAX = 64 << 20, RECORD_ID = 160 };

struct record_accept {
    uint8_t endpoint;
    bool resumable;
    uint64_t tenant;
    float weight;
    int64_t created;    /* seconds since 1970, as the answer says */
    uint64_t seed;      /* as settled, given or drawn */
    int32_t max_tokens; /* as settled */
    char id[RECORD_ID]; /* the request's */
    const char *body;   /* [n_body]; borrowed */
    size_t n_body;
};

struct record_event {
    enum record_kind kind;
    uint64_t request;
    struct record_accept accept;
    int32_t sub;           /* PROMPT, TOKEN, FINISH: which of the request's prompts */
    struct token_event event; /* TOKEN, FINISH; token and text borrowed of the reader */
    struct result_token token;
    char text[512];
    int32_t n_prompt;      /* PROMPT: how many; each by record_prompt_token */
    const uint8_t *prompt;
    size_t prompt_bytes;
    int64_t ended_s;       /* END: seconds since 1970 */
};

/* How likely a token of the prompt was, and how many were likelier, and one. */
struct record_score {
    struct result_token token;
    int32_t rank;
};

void record_file_head(struct buf *out, uint64_t fit);
/* Err BAD_CONFIG: not a journal, another version. *fit as it was written. */
MUST_USE enum err record_check_file(const uint8_t *p, size_t n, uint64_t *fit);

void record_put_accept(struct buf *out, uint64_t request, const struct record_accept *a);
void record_put_prompt(struct buf *out, uint64_t request, int32_t sub, const struct record_score t[], int32_t n);
/* A TOKEN or a FINISH. */
void record_put_event(struct buf *out, uint64_t request, int32_t sub, const struct token_event *e);
void record_put_end(struct buf *out, uint64_t request, int64_t now_s);

/* The record at r->p; false: no whole and sensible one begins there (or the end). *bytes: its length. */
bool record_next(struct rd *r, struct record_event *out, size_t *bytes);
/* PROMPT's i-th token, in order from 0. */
bool record_prompt_token(struct rd *r, struct record_score *out);

#endif
