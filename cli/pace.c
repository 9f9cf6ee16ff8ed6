/* pace.c: prediction beside measurement, while a server runs. */
#include "cli/placement.h"

#include "base/clock.h"
#include "base/log.h"

enum { AGAIN_US = 600000000 }; /* the same is said again after ten minutes */

void placement_pace(void *user, const struct replica_pace *y)
{
    struct placement *p = user;
    char text[320];
    if (y->index >= ROUTE_REPLICAS) return;
    const struct clu_forecast *f = &p->forecast[y->index];
    struct clu_measured m = {y->rows, y->step_s, y->lead_s, y->least_s};
    enum clu_term t = clu_forecast_judge(f, &m, text);
    if (!text[0]) return;
    /* where a term was a guess, that it was wrong is no news */
    bool guess = (t == CLU_TERM_COMPUTE && !f->speed_known) || (t == CLU_TERM_LINKS && !f->links_known);
    int64_t now = clock_us();
    if (t == p->said[y->index].term && p->said[y->index].us && now - p->said[y->index].us < AGAIN_US) return;
    p->said[y->index].term = t;
    p->said[y->index].us = now;
    if (t && !guess) log_warn("plan", "replica %d: %s", y->index, text);
    else if (t) log_debug("plan", "replica %d: %s", y->index, text);
    else log_info("plan", "replica %d: as predicted: %s", y->index, text);
}
