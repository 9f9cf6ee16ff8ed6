/* rejoin.c: a rank whose coordinator is gone: parked with what it has loaded, it dials the same address for another one with the same key.
 *
 *   lost -> parked (step_loop.c: no step is begun any more) -> dialling, at most rejoin_us -> Hello with loaded_epoch -> Adopt, or leave
 *
 * A coordinator that ended the stream itself (this replica has lost a rank, or is over) wants nobody back. Nor is there anything to keep before
 * the shard is loaded. */
#include "worker/worker_impl.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <unistd.h>

#define C "worker"

enum { GRACE_US = 3000000, POLL_US = 2000 };

/* Without the stream no step may finish. The step thread may sit in a collective, so the process ends here. meant: the coordinator ended the
 * stream itself, and its log says why; that is no fault of ours. */
static _Noreturn void leave(struct worker *w, const char *why, bool meant)
{
    bool leaving = atomic_load(&w->leaving);
    if (!leaving && meant) log_info(C, "%s: leaving", why);
    else if (!leaving) log_error(C, "the coordinator's stream ended (%s): leaving", why);
    mailbox_put(w->loop.in, NULL);
    clock_sleep_us(leaving ? GRACE_US : 0);
    _exit(leaving ? 0 : 3);
}

/* The step thread has put everything down and uses the old session no more. */
static bool parked_until(struct worker *w, int64_t until_us)
{
    while (atomic_load(&w->loop.n_parked) < atomic_load(&w->loop.n_lost)) {
        if (clock_us() >= until_us || atomic_load(&w->leaving)) return false;
        clock_sleep_us(POLL_US);
    }
    return true;
}

void wrk_rejoin(struct worker *w, struct rpc_event *e)
{
    int64_t patience = w->plan ? w->plan->load_plan.rejoin_us : 0, until = clock_us() + patience;
    bool worth = patience && atomic_load(&w->loaded_epoch) && !e->orderly && e->err == ERR_LINK_CLOSED;
    if (!worth || atomic_load(&w->leaving)) leave(w, e->text, e->orderly);
    log_warn(C, "the coordinator's stream was lost (%s): no further step, waiting %.0f s for another coordinator at %s", e->text,
             (double)patience / 1e6, w->join);
    wrk_step_loop_lost(&w->loop);
    if (!parked_until(w, until)) leave(w, "the ranks did not come to rest", false);
    rpc_event_free(e);
    rpc_client_close(w->client);
    w->client = NULL;
    if (wrk_join(w, (int32_t)MAX((until - clock_us()) / 1000, 1))) leave(w, err_text(), false);
    log_info(C, "found a coordinator at %s again", w->join);
}
