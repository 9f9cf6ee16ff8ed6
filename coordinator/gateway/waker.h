/* waker.h: how any thread tells the net thread that an exchange has something to do.
 *
 * Handles outlive their exchange and even the gateway: each is counted, and so is the hub they
 * report to. A handle waits in the hub's list at most once, so a thousand tokens between two turns
 * of the loop cost one wake-up. Private to gateway; the public half is in gateway.h. */
#ifndef COORDINATOR_GATEWAY_WAKER_H
#define COORDINATOR_GATEWAY_WAKER_H

#include "coordinator/gateway/gateway.h"

struct waker_hub;
/* Err SYSTEM. */
MUST_USE enum err crd_waker_hub_open(struct waker_hub **out);
/* The owner lets go; wakes from then on go nowhere. NULL-safe. */
void crd_waker_hub_close(struct waker_hub *h);
int crd_waker_hub_fd(const struct waker_hub *h); /* readable when something was woken or poked */
void crd_waker_hub_poke(struct waker_hub *h);    /* make the fd readable */
/* [net] Call woken(exchange) for every live exchange, and run every task, that was woken since the
 * last call. */
void crd_waker_hub_drain(struct waker_hub *h, void (*woken)(struct gw_exchange *x));

/* A handle on x; Own: caller, gw_waker_free. */
struct gw_waker *crd_waker_open(struct waker_hub *h, struct gw_exchange *x);
/* A handle whose wakes run fn(user) on the net thread. */
struct gw_waker *crd_waker_task(struct waker_hub *h, void (*fn)(void *user), void *user);
struct gw_waker *crd_waker_ref(struct gw_waker *w);
/* [net] The exchange ends: later wakes are absorbed. */
void crd_waker_detach(struct gw_waker *w);

#endif
