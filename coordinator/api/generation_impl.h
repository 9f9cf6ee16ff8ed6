/* generation_impl.h: what generation.c, events.c and stream.c share: one generation and its
 * sub-requests. Private.
 *
 * Three threads meet here. The owner (net) runs the steps and owns everything that is not marked
 * otherwise. A text thread borrows the whole generation from the moment the job is given until it
 * says so under the lock. Scheduler threads deliver events into the inbox under the lock, and touch
 * what is marked [sched]. I1  `wake` is called under the lock and only before `closed`; it must not
 * call back. I2  the generation lives until its owner closed it, its job ended and every request it
 * submitted has finished. I3  a byte that was appended is never taken back: errors after the first
 * byte become events of the stream. */
#ifndef COORDINATOR_API_GENERATION_IMPL_H
#define COORDINATOR_API_GENERATION_IMPL_H

#include "coordinator/api/answer_out.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/prompt_logprobs.h"
#include "coordinator/api/request.h"
#include "coordinator/journal/journal.h"

#include <pthread.h>
#include <stdatomic.h>

/* An event, owned: what it pointed to is beside it. */
struct crd_event {
    struct crd_sub *sub;
    struct token_event e;
    struct result_token token;
    char *text; /* Own */
};
struct crd_inbox {
    struct crd_event *at;
    size_t n, cap;
};

/* Of one choice, from the journal. */
struct crd_known {
    int32_t *ids, n, cap; /* Own: ids */
    enum seq_finish finish; /* that came with its last token */
    bool over;
};

/* One prompt: one request to the service. */
struct crd_sub {
    struct crd_generation *g;
    uint64_t id;
    const struct crd_prompt *prompt;
    struct crd_choice *choices; /* [n] of the generation's */
    int32_t n_going;            /* choices whose text goes on */
    int32_t n_cached;
    struct crd_known *known; /* [n] what the journal has of each choice; NULL: it begins here. Own */
    bool submitted, prompt_known;
    /* [sched] and the lock */
    int32_t n_unfinished; /* EVENT_FINISH still to come */
    bool cancelled;
    int64_t *last_us; /* [n] when a choice's last token came; 0: none yet */
    bool *by_text;    /* [n] ended by a stop string: no abort, though it was cancelled */
    struct crd_prompt_logprobs prompt_logprobs;
    bool prompt_written; /* to the journal */
};

struct crd_generation {
    /* [init] */
    struct crd_api *api;
    enum crd_endpoint endpoint;
    uint64_t tenant;
    float weight;
    void (*wake)(void *user);
    void *user;
    int64_t arrived_us;
    /* the owner; lent to the text thread while a job is out */
    size_t step;
    struct buf body;
    struct crd_request request;
    struct crd_answer answer;
    struct crd_api_error error;
    struct crd_sub *subs;       /* [request.n_prompts] */
    struct crd_choice *choices; /* [n_choices] */
    int32_t n_choices;
    bool job_given;
    bool journaling, resumable; /* to be journaled, where there is one; what is written of it */
    bool through; /* [init] of the subs: their events come by way of the journal's thread */
    struct crd_recall *recall; /* Own; NULL: it begins here */
    int32_t status; /* HTTP; set once */
    int64_t submitted_us, first_us, last_us;
    /* under the lock */
    pthread_mutex_t lock;
    bool closed, job_done;
    struct crd_inbox inbox;
    struct crd_journaled *journal; /* NULL: none, or it has been told the end */
    /* [any] */
    _Atomic int refs;
};

void crd_generation_unref(struct crd_generation *g);

/* recall.c: what the journal is told of a request that is about to be submitted, or what it tells. */
void crd_recall_submit(struct crd_generation *g);
void crd_recall_settle(struct crd_generation *g); /* after TOKENIZE: what was settled then */
void crd_recall_free(struct crd_generation *g);

/* events.c: towards the service. */
/* An event of another coordinator's time, as if it came now. */
void crd_sub_recall(struct crd_sub *s, const struct token_event *e);
void crd_sub_submit(struct crd_sub *s);
/* Ask the service to stop what is still running of it; more than once does no harm. */
void crd_sub_cancel(struct crd_sub *s);
/* Everything that came since the last time (Own: caller: at, and each text); *all_finished: no more
 * will come. */
struct crd_inbox crd_generation_take(struct crd_generation *g, bool *all_finished);
/* Remember how a choice ended, for the statistics of its EVENT_FINISH. */
void crd_sub_ended_by_text(struct crd_sub *s, int32_t choice);

/* stream.c: events -> choices -> bytes. */
enum crd_streamed { STREAM_WAITS, STREAM_ENDED, STREAM_FAILED };
enum crd_streamed crd_generation_stream(struct crd_generation *g, struct buf *out);
/* The first bytes of a stream: from here on it is too late for an HTTP error. */
void crd_generation_start_stream(struct crd_generation *g, struct buf *out);

#endif
