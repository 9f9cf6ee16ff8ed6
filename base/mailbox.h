/* mailbox.h: how threads talk: an unbounded FIFO of pointers with a blocking receive and a wake-up.
 * Ownership of a message moves with it. Thr: any. */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

#include "base/base.h"

#include <stdbool.h>

struct mailbox;
struct mailbox *mailbox_open(void);
void mailbox_close(struct mailbox *m);       /* NULL-safe; must be empty or its messages leak */
void mailbox_put(struct mailbox *m, void *msg);
/* Wait at most timeout_us (0: do not wait; <0: for ever). NULL when none came or mailbox_poke was called. */
void *mailbox_get(struct mailbox *m, int64_t timeout_us);
void mailbox_poke(struct mailbox *m);        /* wake one waiter (or the next) without a message */

#endif
