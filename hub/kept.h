/* kept.h: what is known of the files of a model's folder, in the hidden folder .tessera in it: beside each file what the hub promised and what its
 * bytes summed up to when they came; and which pulls have begun to change the folder and are not finished.
 *
 * A record counts only for the file whose size and time of change it names, and is dropped before its file is replaced: whatever a crash leaves,
 * the worst is that a file is summed again. Folders of older versions have none of this. */
#ifndef HUB_KEPT_H
#define HUB_KEPT_H

#include "hub/listing.h"

enum { HUB_SUM = 65 }; /* characters of a sha256, with the 0 */

enum hub_here {
    HERE_NOT,
    HERE_SAME,   /* what the hub has, as far as size, record and time of change say */
    HERE_OTHER,  /* another size, another promise, or nothing to compare it by */
    HERE_TO_SUM, /* its bytes must say */
};

/* Is DIR's file what the hub lists? sum[HUB_SUM]: with HERE_TO_SUM what its bytes must sum up to. anyway: TO_SUM in place of SAME. */
enum hub_here hub_kept_look(const char *dir, const struct hub_file *f, bool anyway, char sum[]);
/* DIR's file is what the hub lists, and its bytes have this sum. Err IO. */
MUST_USE enum err hub_kept_note(const char *dir, const struct hub_file *f, const char *sum);
/* It is about to be replaced. */
void hub_kept_forget(const char *dir, const char *path);

/* A pull changes the folder from here on; first: what it will be opened by (hub_listing_choose). It is on the disk when this returns. Err IO. */
MUST_USE enum err hub_kept_begin(const char *dir, const char *first);
/* Everything is here. Err IO. */
MUST_USE enum err hub_kept_end(const char *dir, const char *first);
bool hub_kept_is_unfinished(const char *dir, const char *first);
/* Has a pull of a version that keeps records been at work here? */
bool hub_kept_is_known(const char *dir);

#endif
