/* fake_device.c: see fake_device.h. */
#include "tests/transport/fake_device.h"

#include "base/mailbox.h"
#include "tests/nccl_stub/nccl_stub.h"
#include "transport/wire_type.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_device {
    struct nccl_stub_stream stream; /* first: what the stub is given */
    struct trn_device ops;
    pthread_t thread;
    struct mailbox *tasks;
    int32_t told[TRN_DEVICE_MARKS]; /* how often each mark was put */
    _Atomic int32_t marks[TRN_DEVICE_MARKS]; /* and which of those was reached last */
    _Atomic int32_t n_held;
    struct task *kept; /* of a recording */
    int32_t n_kept;
    bool recording;
};

struct task {
    void (*fn)(void *arg);
    void *arg;
    struct fake_device *d;
    void *dst;
    const void *src;
    size_t bytes;
    struct trn_reduce plan;
    struct wire_pack pack;
    struct wire_unpack unpack;
    int64_t stride;
    int32_t mark, nth;
    bool own; /* src is freed */
    void (*drop)(void *arg); /* of a kept one, or NULL */
    struct mailbox *done;
};

static void *stream_main(void *arg)
{
    struct fake_device *d = arg;
    for (;;) {
        struct task *t = mailbox_get(d->tasks, -1);
        if (!t) continue;
        bool last = !t->fn;
        if (!last) t->fn(t->arg ? t->arg : t);
        if (t->own) free((void *)(uintptr_t)t->src);
        if (t->done) mailbox_put(t->done, d); /* its owner frees it */
        else free(t);
        if (last) return NULL;
    }
}

static void tell(struct fake_device *d, struct task t)
{
    if (d->recording) {
        ASSERT(!t.own && !t.done);
        d->kept = xrealloc(d->kept, (size_t)(d->n_kept + 1) * sizeof *d->kept);
        d->kept[d->n_kept++] = t;
        return;
    }
    struct task *p = malloc(sizeof *p);
    *p = t;
    mailbox_put(d->tasks, p);
}

static void push(struct nccl_stub_stream *s, void (*fn)(void *), void *arg)
{
    tell((struct fake_device *)s, (struct task){.fn = fn, .arg = arg});
}

static int record(struct nccl_stub_stream *s, void (*fn)(void *), void *arg, void (*drop)(void *))
{
    struct fake_device *d = (struct fake_device *)s;
    if (d->recording) tell(d, (struct task){.fn = fn, .arg = arg, .drop = drop});
    return d->recording;
}

/* In the stream, behind the replays that are under way. */
static void dev_forget(void *user)
{
    struct fake_device *d = user;
    for (int32_t i = 0; i < d->n_kept; i++)
        if (d->kept[i].drop) tell(d, (struct task){.fn = d->kept[i].drop, .arg = d->kept[i].arg});
    free(d->kept);
    d->kept = NULL;
    d->n_kept = 0;
}

static void do_copy(void *p)
{
    const struct task *t = p;
    if (t->bytes) memmove(t->dst, t->src, t->bytes);
}

static void do_reduce(void *p)
{
    const struct task *t = p;
    const float *part[TRN_DEVICE_PARTS];
    for (int32_t i = 0; i < t->plan.n_parts; i++) part[i] = (const float *)t->src + i * t->stride;
    trn_reduce_run(&t->plan, part, t->dst, (int64_t)t->bytes);
}

static enum trn_wire_type type_of(bool q8) { return q8 ? TRN_WIRE_Q8 : TRN_WIRE_F16; }

static void do_pack(void *p)
{
    const struct wire_pack *a = &((const struct task *)p)->pack;
    float *x = malloc((size_t)a->n * sizeof *x);
    for (int64_t i = 0; i < a->n; i++) {
        x[i] = a->parts[i];
        for (int32_t k = 1; k < a->n_parts; k++) x[i] += a->parts[k * a->stride + i];
    }
    trn_wire_pack(type_of(a->q8), x, a->n, a->out);
    free(x);
}

static void do_unpack(void *p)
{
    const struct wire_unpack *a = &((const struct task *)p)->unpack;
    if (!a->n_parts) trn_wire_unpack(type_of(a->q8), a->in, a->n, a->out);
    else memset(a->out, 0, (size_t)a->n * sizeof *a->out);
    for (int32_t k = 0; k < a->n_parts; k++) trn_wire_add(type_of(a->q8), (const char *)a->in + k * a->stride, a->n, a->out);
}

static void do_mark(void *p)
{
    const struct task *t = p;
    atomic_store(&t->d->marks[t->mark], t->nth);
}

static void nothing(void *p) { (void)p; }

static enum err dev_alloc(void *user, void **out, int64_t bytes)
{
    struct fake_device *d = user;
    *out = malloc((size_t)bytes);
    if (*out) d->n_held++;
    return *out ? OK : err_raise(ERR_NO_MEMORY, "no memory");
}

static void drain(struct fake_device *d)
{
    struct task t = {.fn = nothing, .done = mailbox_open()};
    mailbox_put(d->tasks, &t);
    while (!mailbox_get(t.done, -1)) {}
    mailbox_close(t.done);
}

static void dev_free(void *user, void *p)
{
    struct fake_device *d = user;
    if (!p) return;
    drain(d);
    d->n_held--;
    free(p);
}

static enum err dev_copy(void *user, void *dst, const void *src, int64_t bytes)
{
    tell(user, (struct task){.fn = do_copy, .dst = dst, .src = src, .bytes = (size_t)bytes});
    return OK;
}

static enum err dev_upload(void *user, void *dst, const void *src, int64_t bytes)
{
    void *own = malloc((size_t)bytes + 1);
    memcpy(own, src, (size_t)bytes);
    tell(user, (struct task){.fn = do_copy, .dst = dst, .src = own, .bytes = (size_t)bytes, .own = true});
    return OK;
}

static enum err dev_download(void *user, void *dst, const void *src, int64_t bytes)
{
    drain(user);
    if (bytes) memcpy(dst, src, (size_t)bytes);
    return OK;
}

static enum err dev_reduce(void *user, const struct trn_reduce *plan, const float *parts, int64_t stride, float *out, int64_t n)
{
    ASSERT(plan->n_parts >= 1 && plan->n_parts <= TRN_DEVICE_PARTS);
    tell(user, (struct task){.fn = do_reduce, .plan = *plan, .src = parts, .stride = stride, .dst = out, .bytes = (size_t)n});
    return OK;
}

static enum err dev_pack(void *user, const struct wire_pack *a)
{
    tell(user, (struct task){.fn = do_pack, .pack = *a});
    return OK;
}

static enum err dev_unpack(void *user, const struct wire_unpack *a)
{
    tell(user, (struct task){.fn = do_unpack, .unpack = *a});
    return OK;
}

static enum err dev_mark(void *user, int32_t i)
{
    struct fake_device *d = user;
    tell(d, (struct task){.fn = do_mark, .d = d, .mark = i, .nth = ++d->told[i]});
    return OK;
}

static enum err dev_marked(void *user, int32_t i, bool *done)
{
    struct fake_device *d = user;
    *done = atomic_load(&d->marks[i]) == d->told[i];
    return OK;
}

struct fake_device *fake_device_open(const char *where)
{
    struct fake_device *d = xcalloc(1, sizeof *d);
    d->stream.push = push;
    d->stream.record = record;
    d->ops = (struct trn_device){.user = d, .stream = d, .alloc = dev_alloc, .free = dev_free, .copy = dev_copy, .upload = dev_upload,
                                 .download = dev_download, .reduce = dev_reduce, .mark = dev_mark, .marked = dev_marked, .forget = dev_forget,
                                 .pack = dev_pack, .unpack = dev_unpack};
    snprintf(d->ops.where, sizeof d->ops.where, "%s", where);
    d->tasks = mailbox_open();
    ASSERT(!pthread_create(&d->thread, NULL, stream_main, d));
    return d;
}

void fake_device_close(struct fake_device *d)
{
    dev_forget(d);
    tell(d, (struct task){0});
    pthread_join(d->thread, NULL);
    mailbox_close(d->tasks);
    free(d);
}

void fake_device_record(struct fake_device *d) { d->recording = true; }
void fake_device_keep(struct fake_device *d) { d->recording = false; }

void fake_device_replay(struct fake_device *d)
{
    for (int32_t i = 0; i < d->n_kept; i++) tell(d, d->kept[i]);
}

const struct trn_device *fake_device_ops(struct fake_device *d) { return &d->ops; }
int32_t fake_device_held(const struct fake_device *d) { return d->n_held; }
