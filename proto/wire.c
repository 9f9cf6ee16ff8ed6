/* wire.c: control messages to bytes and back; the only file that sees code generated from
 * control.proto.
 *
 * A message is one type byte and a body: packed bytes for StepPlan and StepResult, nothing for Wake
 * and Drain, protobuf for the rest. Each protobuf type has one row in `kinds`: fill (our struct ->
 * generated) and read (back). What is the same for all is done once, over protobuf's own
 * descriptors: every field must be there, none may be unknown, no string may be longer than
 * STRING_MAX_BYTES. Then control_check.c looks at the values, so that nobody behind this file meets
 * rank 7 of 4. */
#include "proto/control.h"

#include "proto/control_check.h"

#include "control.pb-c.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { STRING_MAX_BYTES = 4096, BODY_MAX_BYTES = 64 << 10 };

typedef Tessera__Hello pb_hello;
typedef Tessera__LoadPlan pb_load_plan;

/* Room for any generated message. */
union pb {
    ProtobufCMessage base;
    Tessera__Hello hello;
    Tessera__LoadProgress progress;
    Tessera__Ready ready;
    Tessera__Telemetry telemetry;
    Tessera__Fault fault;
    Tessera__LoadPlan load_plan;
    struct { Tessera__Hello hello; int32_t rank[LIMIT_RANKS]; double s[LIMIT_RANKS], bytes_s[LIMIT_RANKS]; } greeted;
    struct { Tessera__LoadPlan plan; int32_t shares[3][LIMIT_RANKS]; char *adapters[LIMIT_ADAPTERS]; } filled; /* what a plan being encoded points at */
    Tessera__Shutdown shutdown;
    Tessera__Adopt adopt;
};

struct kind {
    enum control_type type;
    const char *name;
    const ProtobufCMessageDescriptor *pb;   /* NULL: no protobuf */
    void (*fill)(union pb *to, const struct control_msg *from);
    void (*read)(struct control_msg *to, const union pb *from);
};

/* ---- our structs <-> generated ones; decoded strings are copied into the arena ---- */

/* protobuf-c has no const. */
static char *str(const char *s) { return (char *)(uintptr_t)(s ? s : ""); }
static const char *keep(struct control_msg *m, const char *s)
{
    return arena_strndup(&m->arena, s, strlen(s));
}

static void fill_hello(union pb *to, const struct control_msg *from)
{
    const struct msg_hello *h = &from->hello;
    pb_hello *p = &to->hello;
    p->version = str(h->version);
    p->job = str(h->job);
    p->host = str(h->host);
    p->rank = h->rank;
    p->size = h->size;
    p->host_rank = h->host_rank;
    p->host_size = h->host_size;
    p->pid = h->pid;
    p->n_cpus = h->n_cpus;
    p->mem_total = h->mem_total;
    p->mem_available = h->mem_available;
    p->device = str(h->device);
    p->loaded_epoch = h->loaded_epoch;
    p->gpu = h->gpu;
    p->mem_ranks = h->mem_ranks;
    p->read_bytes_s = h->read_bytes_s;
    p->ops_s = h->ops_s;
    p->addresses = str(h->addresses);
    ASSERT(h->n_links >= 0 && h->n_links <= LIMIT_RANKS);
    p->n_link_rank = p->n_link_s = p->n_link_bytes_s = (size_t)h->n_links;
    p->n_links = h->n_links;
    p->link_rank = to->greeted.rank;
    p->link_s = to->greeted.s;
    p->link_bytes_s = to->greeted.bytes_s;
    for (int32_t i = 0; i < h->n_links; i++) {
        p->link_rank[i] = h->links[i].rank;
        p->link_s[i] = h->links[i].latency_s;
        p->link_bytes_s[i] = h->links[i].bytes_s;
    }
}

static void read_hello(struct control_msg *to, const union pb *from)
{
    const pb_hello *p = &from->hello;
    struct msg_link *links = arena_alloc(&to->arena, MAX(p->n_link_rank, 1) * sizeof *links);
    for (size_t i = 0; i < p->n_link_rank; i++) links[i] = (struct msg_link){p->link_rank[i], p->link_s[i], p->link_bytes_s[i]};
    to->hello = (struct msg_hello){
        .version = keep(to, p->version),
        .job = keep(to, p->job),
        .host = keep(to, p->host),
        .rank = p->rank,
        .size = p->size,
        .host_rank = p->host_rank,
        .host_size = p->host_size,
        .pid = p->pid,
        .n_cpus = p->n_cpus,
        .mem_total = p->mem_total,
        .mem_available = p->mem_available,
        .device = keep(to, p->device),
        .loaded_epoch = p->loaded_epoch,
        .gpu = p->gpu,
        .mem_ranks = p->mem_ranks,
        .read_bytes_s = p->read_bytes_s,
        .ops_s = p->ops_s,
        .addresses = keep(to, p->addresses),
        .n_links = (int32_t)p->n_link_rank,
        .links = links,
    };
}

static void fill_progress(union pb *to, const struct control_msg *from)
{
    to->progress.bytes_done = from->progress.bytes_done;
    to->progress.bytes_total = from->progress.bytes_total;
}

static void read_progress(struct control_msg *to, const union pb *from)
{
    const Tessera__LoadProgress *p = &from->progress;
    to->progress = (struct msg_load_progress){p->bytes_done, p->bytes_total};
}

static void fill_ready(union pb *to, const struct control_msg *from)
{
    to->ready.weight_bytes = from->ready.weight_bytes;
    to->ready.kv_bytes = from->ready.kv_bytes;
    to->ready.n_blocks = from->ready.n_blocks;
    to->ready.seconds = from->ready.seconds;
    to->ready.read_bytes = from->ready.read_bytes;
    to->ready.received_bytes = from->ready.received_bytes;
    to->ready.cached_bytes = from->ready.cached_bytes;
}

static void read_ready(struct control_msg *to, const union pb *from)
{
    const Tessera__Ready *p = &from->ready;
    to->ready = (struct msg_ready){p->weight_bytes, p->kv_bytes, p->n_blocks, p->seconds,
                                    p->read_bytes, p->received_bytes, p->cached_bytes};
}

static void fill_telemetry(union pb *to, const struct control_msg *from)
{
    const struct msg_telemetry *t = &from->telemetry;
    Tessera__Telemetry *p = &to->telemetry;
    p->step = t->step;
    p->layer = t->layer;
    p->op = str(t->op);
    p->op_seq = t->op_seq;
    p->op_waited_us = t->op_waited_us;
    p->op_rank = t->op_rank;
    p->rss_bytes = t->rss_bytes;
    p->comm_bytes = t->comm_bytes;
    p->comm_us = t->comm_us;
    p->comm_ops = t->comm_ops;
}

static void read_telemetry(struct control_msg *to, const union pb *from)
{
    const Tessera__Telemetry *p = &from->telemetry;
    to->telemetry = (struct msg_telemetry){
        .step = p->step, .layer = p->layer, .op = keep(to, p->op), .op_seq = p->op_seq,
        .op_waited_us = p->op_waited_us, .op_rank = p->op_rank, .rss_bytes = p->rss_bytes,
        .comm_bytes = p->comm_bytes, .comm_us = p->comm_us, .comm_ops = p->comm_ops,
    };
}

static void fill_fault(union pb *to, const struct control_msg *from)
{
    to->fault.code = from->fault.code;
    to->fault.text = str(from->fault.text);
}

static void read_fault(struct control_msg *to, const union pb *from)
{
    to->fault = (struct msg_fault){from->fault.code, keep(to, from->fault.text)};
}

static void fill_load_plan(union pb *to, const struct control_msg *from)
{
    const struct msg_load_plan *l = &from->load_plan;
    pb_load_plan *p = &to->load_plan;
    const struct grid *g = &l->grid;
    ASSERT(g->n_stages >= 1 && g->n_stages <= LIMIT_RANKS && (!g->shared || grid_ranks(g) <= LIMIT_RANKS));
    p->epoch = l->epoch;
    p->replica = l->replica;
    p->model = l->model;
    p->model_path = str(l->model_path);
    p->stage_layers = (int32_t *)(uintptr_t)g->layers;
    p->n_stage_layers = (size_t)g->n_stages + 1;
    p->stage_width = (int32_t *)(uintptr_t)g->width;
    p->n_stage_width = (size_t)g->n_stages;
    p->n_share_heads = p->n_share_ffn = p->n_share_vocab = g->shared ? (size_t)grid_ranks(g) : 0;
    p->share_heads = to->filled.shares[0];
    p->share_ffn = to->filled.shares[1];
    p->share_vocab = to->filled.shares[2];
    for (size_t r = 0; r < p->n_share_heads; r++) {
        p->share_heads[r] = g->share[r].heads;
        p->share_ffn[r] = g->share[r].ffn;
        p->share_vocab[r] = g->share[r].vocab;
    }
    p->n_threads = l->n_threads;
    p->context = l->context;
    p->n_blocks = l->n_blocks;
    p->n_slots = l->n_slots;
    p->max_step_tokens = l->max_step_tokens;
    p->kv_type = (uint32_t)l->kv_type;
    p->model_fingerprint = l->model_fingerprint;
    ASSERT(l->n_adapters >= 0 && l->n_adapters <= LIMIT_ADAPTERS);
    p->adapter_count = l->n_adapters;
    p->n_adapters = p->n_adapter_fingerprints = (size_t)l->n_adapters;
    p->adapters = to->filled.adapters;
    p->adapter_fingerprints = (uint64_t *)(uintptr_t)l->adapter_fingerprints;
    for (int32_t i = 0; i < l->n_adapters; i++) p->adapters[i] = str(l->adapters[i]);
    p->oracle = l->oracle;
    p->exact = l->exact;
    p->whole_experts = g->whole_experts;
    p->isa = str(l->isa);
    p->wire = str(l->wire);
    p->wire_type = str(l->wire_type);
    p->shard_cache = str(l->shard_cache);
    p->shard_cache_bytes = l->shard_cache_bytes;
    p->comm_timeout_us = l->comm_timeout_us;
    p->telemetry_us = l->telemetry_us;
    p->rejoin_us = l->rejoin_us;
}

static void read_load_plan(struct control_msg *to, const union pb *from)
{
    const pb_load_plan *p = &from->load_plan;
    struct msg_load_plan *l = &to->load_plan;
    *l = (struct msg_load_plan){
        .epoch = p->epoch,
        .replica = (uint16_t)p->replica,
        .model = (uint16_t)p->model,
        .model_path = keep(to, p->model_path),
        .grid = {.n_stages = (int32_t)p->n_stage_width, .shared = p->n_share_heads > 0, .whole_experts = p->whole_experts},
        .n_threads = p->n_threads,
        .context = p->context,
        .n_blocks = p->n_blocks,
        .n_slots = p->n_slots,
        .max_step_tokens = p->max_step_tokens,
        .kv_type = (enum kv_type)p->kv_type,
        .model_fingerprint = p->model_fingerprint,
        .n_adapters = (int32_t)p->n_adapters,
        .oracle = p->oracle,
        .exact = p->exact,
        .isa = keep(to, p->isa),
        .wire = keep(to, p->wire),
        .wire_type = keep(to, p->wire_type),
        .shard_cache = keep(to, p->shard_cache),
        .shard_cache_bytes = p->shard_cache_bytes,
        .comm_timeout_us = p->comm_timeout_us,
        .telemetry_us = p->telemetry_us,
        .rejoin_us = p->rejoin_us,
    };
    memcpy(l->grid.layers, p->stage_layers, p->n_stage_layers * sizeof *l->grid.layers);
    memcpy(l->grid.width, p->stage_width, p->n_stage_width * sizeof *l->grid.width);
    for (size_t i = 0; i < p->n_adapters; i++) {
        l->adapters[i] = keep(to, p->adapters[i]);
        l->adapter_fingerprints[i] = p->adapter_fingerprints[i];
    }
    for (size_t r = 0; r < p->n_share_heads; r++)
        l->grid.share[r] = (struct grid_share){p->share_heads[r], p->share_ffn[r], p->share_vocab[r]};
}

static void fill_shutdown(union pb *to, const struct control_msg *from)
{
    to->shutdown.reason = str(from->shutdown.reason);
}

static void read_shutdown(struct control_msg *to, const union pb *from)
{
    to->shutdown.reason = keep(to, from->shutdown.reason);
}

static void fill_adopt(union pb *to, const struct control_msg *from)
{
    to->adopt.epoch = from->adopt.epoch;
}

static void read_adopt(struct control_msg *to, const union pb *from)
{
    to->adopt.epoch = from->adopt.epoch;
}

static const struct kind kinds[] = {
    {MSG_HELLO, "Hello", &tessera__hello__descriptor, fill_hello, read_hello},
    {MSG_LOAD_PROGRESS, "LoadProgress", &tessera__load_progress__descriptor, fill_progress,
     read_progress},
    {MSG_READY, "Ready", &tessera__ready__descriptor, fill_ready, read_ready},
    {MSG_STEP_RESULT, "StepResult", NULL, NULL, NULL},
    {MSG_TELEMETRY, "Telemetry", &tessera__telemetry__descriptor, fill_telemetry, read_telemetry},
    {MSG_FAULT, "Fault", &tessera__fault__descriptor, fill_fault, read_fault},
    {MSG_LOAD_PLAN, "LoadPlan", &tessera__load_plan__descriptor, fill_load_plan, read_load_plan},
    {MSG_STEP_PLAN, "StepPlan", NULL, NULL, NULL},
    {MSG_WAKE, "Wake", NULL, NULL, NULL},
    {MSG_DRAIN, "Drain", NULL, NULL, NULL},
    {MSG_SHUTDOWN, "Shutdown", &tessera__shutdown__descriptor, fill_shutdown, read_shutdown},
    {MSG_ADOPT, "Adopt", &tessera__adopt__descriptor, fill_adopt, read_adopt},
};

static const struct kind *kind_of(enum control_type type)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (kinds[i].type == type) return &kinds[i];
    return NULL;
}

static bool is_packed(enum control_type type)
{
    return type == MSG_STEP_PLAN || type == MSG_STEP_RESULT;
}

const char *control_type_name(enum control_type t)
{
    const struct kind *k = kind_of(t);
    return k ? k->name : "unknown";
}

/* ---- what holds for every protobuf message, by its descriptor ---- */

static void *member(const ProtobufCMessage *m, unsigned offset)
{
    return (char *)(uintptr_t)m + offset;
}

static void mark_present(ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING)
            *(protobuf_c_boolean *)member(m, f->quantifier_offset) = 1;
    }
}

static enum err check_text(const char *msg, const char *field, const char *s)
{
    if (strnlen(s, STRING_MAX_BYTES + 1) <= STRING_MAX_BYTES) return OK;
    return err_raise(ERR_LINK_PROTOCOL, "%s: field %s is longer than %d bytes", msg, field, STRING_MAX_BYTES);
}

static enum err check_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const char *msg = m->descriptor->short_name;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t n = *(size_t *)member(m, f->quantifier_offset);
        enum err e = control_need(msg, f->name, (int64_t)n, 0, LIMIT_RANKS + 1);
        for (size_t i = 0; i < n && !e && f->type == PROTOBUF_C_TYPE_STRING; i++) e = check_text(msg, f->name, (*(char ***)member(m, f->offset))[i]);
        return e;
    }
    if (f->type != PROTOBUF_C_TYPE_STRING) {
        if (*(protobuf_c_boolean *)member(m, f->quantifier_offset)) return OK;
        return err_raise(ERR_LINK_PROTOCOL, "%s: field %s is missing", msg, f->name);
    }
    const char *s = *(char **)member(m, f->offset);
    if (!s) return err_raise(ERR_LINK_PROTOCOL, "%s: field %s is missing", msg, f->name);
    return check_text(msg, f->name, s);
}

static enum err check_fields(const ProtobufCMessage *m)
{
    enum err rc = OK;
    if (m->n_unknown_fields)
        TRY(err_raise(ERR_LINK_PROTOCOL, "%s: unknown field number %" PRIu32,
                      m->descriptor->short_name, m->unknown_fields[0].tag));
    for (unsigned i = 0; i < m->descriptor->n_fields; i++)
        TRY(check_field(m, &m->descriptor->fields[i]));
out:
    return rc;
}

/* As many of each share as there are ranks, or none. */
static enum err check_shares(const pb_load_plan *p)
{
    enum err rc = OK;
    int64_t ranks = 0;
    for (size_t i = 0; i < p->n_stage_width; i++) ranks += p->stage_width[i];
    if (!p->n_share_heads && !p->n_share_ffn && !p->n_share_vocab) return OK;
    TRY(control_need("LoadPlan", "sum of stage_width", ranks, 1, LIMIT_RANKS));
    TRY(control_need("LoadPlan", "number of share_heads", (int64_t)p->n_share_heads, ranks, ranks));
    TRY(control_need("LoadPlan", "number of share_ffn", (int64_t)p->n_share_ffn, ranks, ranks));
    TRY(control_need("LoadPlan", "number of share_vocab", (int64_t)p->n_share_vocab, ranks, ranks));
out:
    return rc;
}

static enum err check_adapters(const pb_load_plan *p)
{
    enum err rc = OK;
    int64_t n = p->adapter_count;
    TRY(control_need("LoadPlan", "adapter_count", n, 0, LIMIT_ADAPTERS));
    TRY(control_need("LoadPlan", "number of adapters", (int64_t)p->n_adapters, n, n));
    TRY(control_need("LoadPlan", "number of adapter_fingerprints", (int64_t)p->n_adapter_fingerprints, n, n));
out:
    return rc;
}

static enum err check_links(const pb_hello *p)
{
    enum err rc = OK;
    int64_t n = p->n_links;
    TRY(control_need("Hello", "n_links", n, 0, LIMIT_RANKS));
    TRY(control_need("Hello", "number of link_rank", (int64_t)p->n_link_rank, n, n));
    TRY(control_need("Hello", "number of link_s", (int64_t)p->n_link_s, n, n));
    TRY(control_need("Hello", "number of link_bytes_s", (int64_t)p->n_link_bytes_s, n, n));
out:
    return rc;
}

/* Ranges that must hold before `read` may narrow or copy. */
static enum err check_narrow(const union pb *p)
{
    enum err rc = OK;
    if (p->base.descriptor == &tessera__hello__descriptor) return check_links(&p->hello);
    if (p->base.descriptor != &tessera__load_plan__descriptor) return OK;
    TRY(control_need("LoadPlan", "replica", p->load_plan.replica, 0, UINT16_MAX));
    TRY(control_need("LoadPlan", "model", p->load_plan.model, 0, UINT16_MAX));
    TRY(control_need("LoadPlan", "n_stages", (int64_t)p->load_plan.n_stage_width, 1, LIMIT_RANKS));
    TRY(control_need("LoadPlan", "number of stage_layers", (int64_t)p->load_plan.n_stage_layers,
             (int64_t)p->load_plan.n_stage_width + 1, (int64_t)p->load_plan.n_stage_width + 1));
    TRY(check_adapters(&p->load_plan));
    TRY(check_shares(&p->load_plan));
out:
    return rc;
}

/* ---- encode, decode ---- */

void control_encode(const struct control_msg *m, struct buf *out)
{
    const struct kind *k = kind_of(m->type);
    ASSERT(k);
    buf_u8(out, (uint8_t)m->type);
    if (is_packed(m->type)) buf_put(out, m->bytes.data, m->bytes.n);
    if (!k->pb) return;
    union pb p;
    protobuf_c_message_init(k->pb, &p);
    k->fill(&p, m);
    mark_present(&p.base);
    size_t n = protobuf_c_message_get_packed_size(&p.base);
    buf_reserve(out, n);
    protobuf_c_message_pack(&p.base, out->data + out->len);
    out->len += n;
    out->data[out->len] = 0;
}

static enum err decode_bytes(struct control_msg *m, const void *body, size_t n)
{
    size_t most = m->type == MSG_STEP_PLAN ? LIMIT_STEP_BYTES : LIMIT_FRAME_BYTES;
    if (n > most)
        return err_raise(ERR_LINK_PROTOCOL, "%s of %zu bytes, at most %zu are allowed",
                         control_type_name(m->type), n, most);
    void *copy = arena_alloc(&m->arena, n);
    if (n) memcpy(copy, body, n);
    m->bytes.data = copy;
    m->bytes.n = n;
    return OK;
}

static enum err decode_pb(struct control_msg *m, const struct kind *k, const void *body, size_t n)
{
    enum err rc = OK;
    union pb *p = NULL;
    if (n > BODY_MAX_BYTES)
        TRY(err_raise(ERR_LINK_PROTOCOL, "%s of %zu bytes, at most %d are allowed", k->name, n,
                      BODY_MAX_BYTES));
    p = (union pb *)protobuf_c_message_unpack(k->pb, NULL, n, body);
    if (!p) TRY(err_raise(ERR_LINK_PROTOCOL, "%s of %zu bytes is damaged", k->name, n));
    TRY(check_fields(&p->base));
    TRY(check_narrow(p));
    k->read(m, p);
    TRY(control_check(m));
out:
    if (p) protobuf_c_message_free_unpacked(&p->base, NULL);
    return rc;
}

enum err control_decode(const void *data, size_t n, struct control_msg **out)
{
    enum err rc = OK;
    struct control_msg *m = xcalloc(1, sizeof *m);
    const uint8_t *d = data;
    if (!n) TRY(err_raise(ERR_LINK_PROTOCOL, "an empty control message"));
    const struct kind *k = kind_of((enum control_type)d[0]);
    if (!k) TRY(err_raise(ERR_LINK_PROTOCOL, "control message of unknown type %u", d[0]));
    m->type = k->type;
    if (is_packed(k->type))
        TRY(decode_bytes(m, d + 1, n - 1));
    else if (k->pb)
        TRY(decode_pb(m, k, d + 1, n - 1));
    else if (n != 1)
        TRY(err_raise(ERR_LINK_PROTOCOL, "%s carries %zu bytes, it has no body", k->name, n - 1));
    *out = m;
    m = NULL;
out:
    control_msg_free(m);
    return rc;
}

void control_msg_free(struct control_msg *m)
{
    if (!m) return;
    arena_free(&m->arena);
    free(m);
}
