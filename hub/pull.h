/* pull.h: fetch a model from a hub into its folder (ref.h): what is there already and is what the hub has now is kept (kept.h), what broke off goes on
 * where it stood, and a file takes its name only when its sum is right. */
#ifndef HUB_PULL_H
#define HUB_PULL_H

#include "hub/listing.h"

struct hub_progress {
    const char *file;             /* being fetched; or summed: */
    bool sums;                    /* what is here is read; then done, total and n are of what must be */
    int32_t at, n;                /* of the files; from 0 */
    int64_t done, total;          /* bytes of all */
    int64_t had;                  /* of done: were here before */
};

struct hub_pull_conf {
    const char *endpoint;         /* "https://huggingface.co", or a mirror's; no slash at its end */
    const char *token;            /* or NULL */
    int64_t connect_s, stall_s;   /* deadlines */
    int64_t pause_ms;             /* before a second try; doubled with each that brings nothing */
    int32_t tries;                /* that bring nothing, in a row */
    bool check;                   /* sum every file that is here, not only those that changed or that nothing is known of */
    void (*progress)(void *user, const struct hub_progress *p); /* or NULL */
    /* A try that failed, and why; failed: how many in a row have, this one too, of `tries`; 0: it brought something, so it does not count;
     * -1: none failed, a file that is here is not the hub's and is fetched anew. Or NULL. */
    void (*say)(void *user, const char *text, int32_t failed);
    void *user;
};

/* *path: what to open (a folder, or a GGUF file). Own: caller, free().
 * Err NOT_FOUND, LINK_AUTH (the token is missing or refused), LINK_CLOSED, LINK_PROTOCOL (the hub lies), BAD_FILE (a wrong sum, twice), IO
 * (disk), NO_FIT (not enough room, before anything is fetched), BAD_CONFIG (nothing to choose, or too much). */
MUST_USE enum err hub_pull(const struct hub_pull_conf *conf, const struct hub_ref *r, char **path);

#endif
