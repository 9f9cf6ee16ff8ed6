/* topo_write.c: a topology to text, as topo_text.c reads it. */
#include "cluster/topo.h"

#include "cluster/topo_units.h"

#include <string.h>

/* Six digits are more than was measured. */
static void put(struct buf *b, const char *key, double v, enum unit u)
{
    const struct suffix *s = &suffixes[u][0];
    for (size_t i = 0; i < COUNT_OF(suffixes[u]) && suffixes[u][i].text; i++) {
        const struct suffix *c = &suffixes[u][i];
        bool bits = strstr(c->text, "bit") != NULL,
             binary = strchr(c->text, 'i') != NULL && u == BYTES;
        if (bits || (u == BYTES && !binary && c->factor > 1)) continue;
        if (v >= c->factor && (s->factor < c->factor || v < s->factor))
            s = c;
        else if (v < s->factor && c->factor < s->factor)
            s = c;
    }
    buf_printf(b, " %s=%.6g%s", key, v / s->factor, s->text);
}

static void put_wire(struct buf *b, const struct clu_wire *w)
{
    put(b, "latency", w->latency_s, SECONDS);
    put(b, "rate", w->bytes_s, BYTES_S);
    buf_putc(b, '\n');
}

static void put_host(const struct clu_topo *t, int32_t i, struct buf *b)
{
    const struct clu_host *h = &t->hosts[i];
    buf_printf(b, "host %s packages=%d cores=%d threads=%d numa=%d", h->name, h->packages, h->cores,
               h->threads, h->numa);
    if (h->cache_bytes) put(b, "cache", (double)h->cache_bytes, BYTES);
    put(b, "disk", h->disk_bytes_s, BYTES_S);
    buf_putc(b, '\n');
    for (int32_t k = 0; k < t->n_devices; k++) {
        const struct clu_device *d = &t->devices[k];
        if (d->host != i) continue;
        buf_printf(b, "%s %s", d->kind == CLU_GPU ? "gpu" : "cpu", d->name);
        if (d->kind == CLU_CPU) buf_printf(b, " cores=%d", d->cores);
        put(b, "memory", (double)d->mem_bytes, BYTES);
        put(b, "read", d->read_bytes_s, BYTES_S);
        put(b, "ops", d->ops_s, OPS_S);
        buf_putc(b, '\n');
    }
    for (int32_t k = 0; k < h->n_nics; k++) {
        buf_printf(b, "nic %s", h->nics[k].name);
        put(b, "rate", h->nics[k].bytes_s, BYTES_S);
        buf_putc(b, '\n');
    }
    buf_puts(b, "local");
    put_wire(b, &h->local);
}

void clu_topo_write(const struct clu_topo *t, struct buf *b)
{
    buf_puts(b, "tessera topology 1\n");
    for (int32_t i = 0; i < t->n_hosts; i++) put_host(t, i, b);
    if (t->wire_said || t->n_hosts > 1) {
        buf_puts(b, "wire");
        put_wire(b, &t->wire);
    }
    for (int32_t i = 0; i < t->n_links; i++) {
        buf_printf(b, "link %s %s", t->hosts[t->links[i].a].name, t->hosts[t->links[i].b].name);
        put_wire(b, &t->links[i].wire);
    }
}
