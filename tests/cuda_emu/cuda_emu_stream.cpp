// cuda_emu_stream.cpp: streams, their events, captures and graphs. See cuda_runtime_api.h.
//
// By default a stream does what it is told at once. Under CUDA_EMU_ASYNC it is a thread that does it in its turn, as a card would: then a graph that waits for
// another card leaves the host free to notice, and host code that reads too early gets it wrong. A failure there shows in the next query or wait.
#include "emu_impl.h"
#include "emu_order.h"

extern "C" {
#include "tests/nccl_stub/nccl_stub.h"
}

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <time.h>
#include <vector>

using task = std::function<void()>;

namespace {

// Of the thread: what it captures now.
thread_local std::vector<task> *capture;
thread_local bool spoiled; // by something that cannot be captured

void nap()
{
    timespec t = {0, 20000};
    nanosleep(&t, nullptr);
}

void push(nccl_stub_stream *s, void (*fn)(void *), void *arg);
int record(nccl_stub_stream *s, void (*fn)(void *), void *arg, void (*drop)(void *));

} // namespace

using cuda_emu::hidden_mutex;
using cuda_emu::hidden_signal;

struct cuda_emu_stream {
    nccl_stub_stream stub; // first
    bool async;
    hidden_mutex lock;
    hidden_signal more;
    std::deque<task *> waiting; // on the heap: what a queue's own memory is used for next is nobody's to order
    uint64_t told = 0;
    uint64_t place = 0, known = 0; // what was told; of that, what the host has waited for
    std::atomic<uint64_t> done{0};
    std::atomic<int> failed{cudaSuccess};
    bool ends = false;
    std::thread thread;

    explicit cuda_emu_stream(bool a) : stub{push, cuda_emu::touch, record}, async(a)
    {
        if (async) thread = std::thread([this] { work(); });
    }
    ~cuda_emu_stream()
    {
        if (!async) return;
        {
            std::lock_guard<hidden_mutex> g(lock);
            ends = true;
        }
        more.notify_one();
        thread.join();
    }
    // The next one, if it is there.
    task *take()
    {
        std::lock_guard<hidden_mutex> g(lock);
        if (waiting.empty()) return nullptr;
        task *f = waiting.front();
        waiting.pop_front();
        cuda_emu::after(&waiting); // all that was told before it was
        return f;
    }
    void work()
    {
        for (;;) {
            {
                std::unique_lock<hidden_mutex> g(lock);
                more.wait(g, [this] { return ends || !waiting.empty(); });
                if (waiting.empty()) return;
            }
            run_all();
        }
    }
    // Memory is opened once for all that is there: opening it costs more than a small kernel.
    void run_all()
    {
        cuda_emu::opened o;
        while (task *f = take()) {
            (*f)();
            if (cuda_emu::last_error) failed = cuda_emu::last_error;
            cuda_emu::last_error = cudaSuccess;
            delete f; // before it counts as done: it may hold what others wait for
            cuda_emu::before(&done);
            done++;
        }
    }
    bool idle()
    {
        std::lock_guard<hidden_mutex> g(lock);
        if (done != told) return false;
        cuda_emu::after(&done);
        return true;
    }
    cudaError_t state() const { return failed ? cuda_emu::fail((cudaError_t)failed.load()) : cudaSuccess; }
};

struct cuda_emu_event {
    cudaStream_t stream = nullptr;
    uint64_t put = 0, place = 0; // place: of the stream, when it was put
    std::shared_ptr<std::atomic<uint64_t>> passed = std::make_shared<std::atomic<uint64_t>>(0);
};

struct cuda_emu_graph {
    std::vector<task> all;
    std::atomic<int> n_refs;
};

namespace {

void drop(cudaGraph_t g)
{
    cuda_emu::before(g);
    if (--g->n_refs) return;
    cuda_emu::after(g);
    delete g;
}

// For the stub: an operation of the library.
void push(nccl_stub_stream *s, void (*fn)(void *), void *arg)
{
    cuda_emu::tell((cudaStream_t)s, [=] { fn(arg); });
}

int record(nccl_stub_stream *, void (*fn)(void *), void *arg, void (*drop_arg)(void *))
{
    if (!capture) return 0;
    std::shared_ptr<void> held(arg, drop_arg);
    capture->push_back([=] { fn(held.get()); });
    return 1;
}

} // namespace

namespace cuda_emu {

void tell(cudaStream_t s, task f)
{
    if (s && !capture) s->place++;
    if (capture) {
        capture->push_back(std::move(f));
    } else if (s && s->async) {
        {
            std::lock_guard<hidden_mutex> g(s->lock);
            before(&s->waiting);
            s->waiting.push_back(new task(std::move(f)));
            s->told++;
        }
        s->more.notify_one();
    } else {
        f();
    }
}

// The host waits for what was told up to there: a wait, unless it has waited for that before.
static void waits(cudaStream_t s, uint64_t place)
{
    if (!s || place <= s->known) return;
    s->known = place;
    counts.waits++;
}

void drain(cudaStream_t s)
{
    while (s && s->async && !s->idle()) nap();
}

bool spoil_capture()
{
    spoiled |= capture != nullptr;
    return capture != nullptr;
}

} // namespace cuda_emu

using namespace cuda_emu;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new cuda_emu_stream(getenv("CUDA_EMU_ASYNC") != nullptr);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (spoil_capture()) return fail(cudaErrorStreamCaptureUnsupported);
    waits(s, s ? s->place : 0);
    drain(s);
    return s ? s->state() : cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t s)
{
    static std::atomic<int> said;
    const char *busy = getenv("CUDA_EMU_BUSY");
    if (spoil_capture()) return fail(cudaErrorStreamCaptureUnsupported);
    if (!busy) said = 0;
    if ((busy && said++ < atoi(busy)) || !s->idle()) return cudaErrorNotReady;
    s->known = s->place;
    return s->state();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    capture = new std::vector<task>;
    spoiled = ordered_to_fail("capture");
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *out)
{
    counts.captures++;
    *out = spoiled ? nullptr : new cuda_emu_graph{std::move(*capture), {1}};
    delete capture;
    capture = nullptr;
    return spoiled ? fail(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t g, void *, size_t *n)
{
    *n = g->all.size();
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long)
{
    counts.graphs++;
    if (ordered_to_fail("graph")) return fail(cudaErrorMemoryAllocation);
    *out = g;
    g->n_refs++;
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
// One that is destroyed while it is under way is gone when it is done.
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s)
{
    counts.replays++;
    g->n_refs++;
    tell(s, [=] {
        opened o;
        for (auto &f : g->all) f();
        drop(g);
    });
    return last_error;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    drop(g);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return cudaGraphDestroy(g); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new cuda_emu_event;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (spoil_capture()) return fail(cudaErrorStreamCaptureUnsupported);
    e->stream = s;
    auto passed = e->passed;
    uint64_t n = ++e->put;
    tell(s, [=] {
        before(passed.get());
        *passed = n;
    });
    e->place = s ? s->place : 0;
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    if (*e->passed < e->put) return cudaErrorNotReady;
    after(e->passed.get());
    if (e->stream && e->place > e->stream->known) e->stream->known = e->place;
    return e->stream ? e->stream->state() : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (spoil_capture()) return fail(cudaErrorStreamCaptureUnsupported);
    waits(e->stream, e->place);
    while (*e->passed < e->put) nap();
    after(e->passed.get());
    return e->stream ? e->stream->state() : cudaSuccess;
}

} // extern "C"
