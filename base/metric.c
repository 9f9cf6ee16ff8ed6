/* metric.c: see metric.h. */
#include "base/metric.h"

#include <stdio.h>
#include <string.h>

void metric_add(struct metric *m, int64_t n) { atomic_fetch_add_explicit(&m->value, n, memory_order_relaxed); }

void metric_set(struct metric *m, double v)
{
    atomic_store_explicit(&m->value, (int64_t)(v * 1e6), memory_order_relaxed);
}

void metric_observe(struct metric *m, double v)
{
    int i = 0;
    while (i < m->n_buckets && v > m->buckets[i]) i++;
    atomic_fetch_add_explicit(&m->counts[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->sum_e6, (int64_t)(v * 1e6), memory_order_relaxed);
}

static void line(struct buf *out, const char *name, const char *suffix, const char *common, const char *labels,
                 const char *le, const char *value)
{
    const char *sep1 = *common && labels ? "," : "";
    const char *sep2 = (*common || labels) && le ? "," : "";
    buf_printf(out, "%s%s{%s%s%s%s", name, suffix, common, sep1, labels ? labels : "", sep2);
    if (le) buf_printf(out, "le=\"%s\"", le);
    buf_printf(out, "} %s\n", value);
}

static void histogram(struct buf *out, struct metric *m, const char *common)
{
    char v[40], le[40];
    uint64_t sum = 0;
    for (int i = 0; i <= m->n_buckets; i++) {
        sum += atomic_load_explicit(&m->counts[i], memory_order_relaxed);
        if (i < m->n_buckets) snprintf(le, sizeof le, "%g", m->buckets[i]);
        else snprintf(le, sizeof le, "+Inf");
        snprintf(v, sizeof v, "%llu", (unsigned long long)sum);
        line(out, m->name, "_bucket", common, m->labels, le, v);
    }
    snprintf(v, sizeof v, "%.6f", (double)atomic_load_explicit(&m->sum_e6, memory_order_relaxed) / 1e6);
    line(out, m->name, "_sum", common, m->labels, NULL, v);
    snprintf(v, sizeof v, "%llu", (unsigned long long)sum);
    line(out, m->name, "_count", common, m->labels, NULL, v);
}

void metric_render(struct buf *out, struct metric *const metrics[], size_t n, const char *common)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    for (size_t i = 0; i < n; i++) {
        struct metric *m = metrics[i];
        const char *total = m->kind == METRIC_COUNTER ? "_total" : "";
        char v[40];
        if (!i || strcmp(m->name, metrics[i - 1]->name))
            buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", m->name, total, m->help, m->name, total,
                       kinds[m->kind]);
        if (m->kind == METRIC_HISTOGRAM) {
            histogram(out, m, common);
            continue;
        }
        int64_t x = atomic_load_explicit(&m->value, memory_order_relaxed);
        if (m->kind == METRIC_COUNTER) snprintf(v, sizeof v, "%lld", (long long)x);
        else snprintf(v, sizeof v, "%.6g", (double)x / 1e6);
        line(out, m->name, total, common, m->labels, NULL, v);
    }
}
