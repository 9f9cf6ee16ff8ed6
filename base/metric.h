/* metric.h: counters, gauges and histograms, and their Prometheus text (exposition format 0.0.4).
 *
 * A metric is a static object registered once; updates are relaxed atomics and order nothing. Thr: any. */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include "base/buf.h"

#include <stdatomic.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum { METRIC_MAX_BUCKETS = 32 };

struct metric {
    const char *name;        /* without "_total": counters get it on the wire */
    const char *help;
    enum metric_kind kind;
    const char *labels;      /* extra labels, `a="b"`, or NULL; same-named metrics stand side by side */
    const double *buckets;   /* histogram upper bounds, ascending */
    int n_buckets;
    /* [any] */
    _Atomic int64_t value;   /* counter: count; gauge: value * 1e6 */
    _Atomic uint64_t counts[METRIC_MAX_BUCKETS + 1];
    _Atomic int64_t sum_e6;  /* histogram: sum * 1e6 */
};

void metric_add(struct metric *m, int64_t n);        /* counter */
void metric_set(struct metric *m, double v);         /* gauge */
void metric_observe(struct metric *m, double v);     /* histogram */
/* Append `metrics[n]` as Prometheus text; `common` labels (e.g. `model_name="x",engine="0"`) go on every line. */
void metric_render(struct buf *out, struct metric *const metrics[], size_t n, const char *common);

#endif
