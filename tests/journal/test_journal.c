/* journal: what was written is read again, whatever of the file is there, and never anything else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "coordinator/journal/journal.h"
#include "tests/support/refuse_thread.h"
#include "tests/support/scratch.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIT = 77, N_REQUESTS = 4, N_EVENTS = 9 };

static struct crd_journal_conf conf_of(const char *path)
{
    return (struct crd_journal_conf){.path = path, .fit = FIT, .max_bytes = 1 << 20, .sync_us = 1000000, .keep_us = 60000000};
}

static struct crd_journal *open_at(const struct crd_journal_conf *c)
{
    struct crd_journal *j;
    if (crd_journal_open(&j, c)) fail_msg("%s", err_text());
    return j;
}

static struct record_accept accept_of(int i, char body[64])
{
    struct record_accept a = {.endpoint = (uint8_t)(i % 3), .resumable = i % 2, .tenant = (uint64_t)i * 7, .weight = 1.5f, .created = 1700000000 + i,
                              .seed = 99u + (uint64_t)i, .max_tokens = 40 + i, .body = body};
    a.n_body = (size_t)sprintf(body, "{\"prompt\":\"number %d\"}", i);
    sprintf(a.id, "req-%d", i);
    return a;
}

static struct result_token token_of(int i, int k)
{
    struct result_token t = {.id = i * 100 + k, .logprob = -0.25f * (float)k, .n_top = k % 3};
    for (int32_t n = 0; n < t.n_top; n++) t.top[n] = (struct result_logprob){n + 1, -(float)n};
    return t;
}

static _Atomic int n_handed_on;
static void handed_on(void *user, const struct token_event *e)
{
    assert_true(e->kind != EVENT_TOKEN || e->token->id == *(int *)user * 100 + e->n_prompt);
    n_handed_on++;
}

/* Request i says event k. */
static void say(struct crd_journaled *q, int *i, int k)
{
    struct result_token t = token_of(*i, k);
    struct token_event e = {.kind = EVENT_TOKEN, .choice = k % 2, .token = &t, .n_prompt = k};
    if (k == N_EVENTS - 1) e = (struct token_event){.kind = EVENT_FINISH, .choice = 1, .err = ERR_UNAVAILABLE, .text = "gone", .n_generated = k};
    crd_journaled_event(q, k / 4, &e, handed_on, i);
}

/* Four requests, interleaved; the second ends whole, the third is forgotten. */
static void fill(struct crd_journal *j)
{
    static int numbers[N_REQUESTS] = {0, 1, 2, 3};
    struct crd_journaled *q[N_REQUESTS];
    char body[64];
    struct record_score two[2] = {{token_of(0, 1), 3}, {token_of(0, 2), 1}};
    n_handed_on = 0;
    assert_int_equal(crd_journal_run(j), OK);
    for (int i = 0; i < N_REQUESTS; i++) {
        struct record_accept a = accept_of(i, body);
        assert_non_null(q[i] = crd_journal_accept(j, &a));
    }
    crd_journaled_prompt(q[3], 0, two, 2);
    for (int k = 0; k < N_EVENTS; k++)
        for (int i = 0; i < N_REQUESTS; i++) say(q[i], &numbers[i], k);
    crd_journaled_end(q[1], true);
    crd_journaled_end(q[2], false);
    crd_journal_close(j); /* hands on all that is queued */
    assert_int_equal(n_handed_on, N_REQUESTS * N_EVENTS);
}

/* The records of one request are those that were written, from the first on; returns how many events. */
static int check_records(struct rd r, int *i)
{
    static struct record_event e;
    char body[64];
    int n = 0;
    size_t bytes;
    assert_true(record_next(&r, &e, &bytes));
    assert_int_equal(e.kind, RECORD_ACCEPT);
    assert_int_equal(sscanf(e.accept.id, "req-%d", i), 1);
    struct record_accept want = accept_of(*i, body);
    assert_int_equal(e.accept.endpoint, want.endpoint);
    assert_int_equal(e.accept.resumable, want.resumable);
    assert_true(e.accept.tenant == want.tenant && e.accept.seed == want.seed && e.accept.weight == want.weight);
    assert_true(e.accept.created == want.created && e.accept.max_tokens == want.max_tokens);
    assert_int_equal(e.accept.n_body, want.n_body);
    assert_memory_equal(e.accept.body, want.body, want.n_body);
    while (record_next(&r, &e, &bytes)) {
        if (e.kind == RECORD_PROMPT) {
            struct rd p = rd_of(e.prompt, e.prompt_bytes);
            struct record_score t;
            struct result_token w = token_of(0, 1);
            assert_int_equal(e.n_prompt, 2);
            assert_true(record_prompt_token(&p, &t) && t.token.id == w.id && t.token.logprob == w.logprob && t.rank == 3);
            continue;
        }
        if (e.kind == RECORD_END) continue;
        struct result_token w = token_of(*i, n);
        assert_int_equal(e.sub, n / 4);
        if (e.kind == RECORD_TOKEN) {
            assert_int_equal(e.event.choice, n % 2);
            assert_int_equal(e.token.id, w.id);
            assert_int_equal(e.token.n_top, w.n_top);
            assert_memory_equal(e.token.top, w.top, (size_t)w.n_top * sizeof *w.top);
        } else {
            assert_int_equal(n, N_EVENTS - 1);
            assert_int_equal(e.event.err, ERR_UNAVAILABLE);
            assert_string_equal(e.event.text, "gone");
        }
        n++;
    }
    return n;
}

static int32_t count_left(const struct crd_journal_conf *c, int32_t *n_events)
{
    struct crd_journal *j = open_at(c);
    int32_t n = 0, i;
    *n_events = 0;
    for (struct crd_journaled *q = NULL; (q = crd_journal_left(j, q)); n++) *n_events += check_records(crd_journaled_records(q), &i);
    crd_journal_close(j);
    return n;
}

static void what_was_written_is_read(void **state)
{
    const char *path = scratch_path("journal");
    struct crd_journal_conf c = conf_of(path);
    struct stat st;
    int32_t n_events;
    (void)state;
    fill(open_at(&c));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    for (int again = 0; again < 3; again++) { /* opening writes it anew */
        assert_int_equal(count_left(&c, &n_events), N_REQUESTS - 1);
        assert_int_equal(n_events, (N_REQUESTS - 1) * N_EVENTS);
    }
    c.fit++;
    assert_int_equal(count_left(&c, &n_events), 0);
    c.fit--;
    assert_int_equal(count_left(&c, &n_events), 0); /* of another model: thrown away */
}

/* kill -9 at any moment, and a machine that stopped at any byte. */
static void it_is_safe_at_every_byte(void **state)
{
    const char *path = scratch_path("cut");
    struct crd_journal_conf c = conf_of(path);
    struct buf whole = {0};
    int32_t last = 0, n_events;
    (void)state;
    fill(open_at(&c));
    assert_true(scratch_read(path, &whole));
    assert_true(whole.len > 1200);
    for (size_t n = 0; n <= whole.len; n++) {
        scratch_write(path, whole.data, n);
        count_left(&c, &n_events);
        assert_true(n_events >= last || n > whole.len - 64); /* the END that forgets one is near the end */
        last = n_events;
    }
    assert_int_equal(last, (N_REQUESTS - 1) * N_EVENTS);
    buf_free(&whole);
}

static void damage_ends_what_is_read(void **state)
{
    const char *path = scratch_path("flip");
    struct crd_journal_conf c = conf_of(path);
    struct buf whole = {0};
    int32_t n_events;
    (void)state;
    fill(open_at(&c));
    assert_true(scratch_read(path, &whole));
    for (size_t i = RECORD_FILE_HEAD; i < whole.len; i += 2) {
        whole.data[i] ^= (uint8_t)(1u << (i % 8));
        scratch_write(path, whole.data, whole.len);
        count_left(&c, &n_events); /* whatever is read is checked against what was written */
        whole.data[i] ^= (uint8_t)(1u << (i % 8));
    }
    scratch_write(path, "not a journal at all", 20);
    struct crd_journal *j = NULL;
    assert_int_equal(crd_journal_open(&j, &c), ERR_BAD_CONFIG); /* somebody else's file is left alone */
    buf_clear(&whole);
    assert_true(scratch_read(path, &whole));
    assert_string_equal(buf_str(&whole), "not a journal at all");
    buf_free(&whole);
}

static int64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) ? -1 : (int64_t)st.st_size;
}

static void it_stays_within_its_bound(void **state)
{
    const char *path = scratch_path("bound");
    struct crd_journal_conf c = conf_of(path);
    struct crd_journal_status s;
    static int zero = 0;
    char body[64];
    (void)state;
    c.max_bytes = 100000;
    c.keep_us = 0;
    struct crd_journal *j = open_at(&c);
    assert_int_equal(crd_journal_run(j), OK);
    for (int i = 0; i < 300; i++) { /* a hundred times the bound goes through it */
        struct record_accept a = accept_of(0, body);
        struct crd_journaled *q;
        for (int64_t end = clock_us() + 5000000; !(q = crd_journal_accept(j, &a)) && clock_us() < end;) clock_sleep_us(500);
        assert_non_null(q); /* refused for a moment only, while the writer is behind */
        for (int k = 0; k < 400; k++) say(q, &zero, k % 3);
        crd_journaled_end(q, i % 2);
        assert_true(size_of(path) < 100000 + 400 * 100 * 40 + (1 << 20));
    }
    uint64_t refused;
    crd_journal_status(j, &s);
    refused = s.n_refused;
    char *big = xcalloc(1, 60000);
    struct record_accept a = accept_of(1, body);
    a.body = big;
    a.n_body = 60000;
    assert_null(crd_journal_accept(j, &a));
    crd_journal_status(j, &s);
    assert_int_equal(s.n_refused, refused + 1);
    crd_journal_close(j);
    free(big);
}

/* A file that may not grow stands for a full disk: writes end in the middle. */
static void a_full_disk_stops_nobody(void **state)
{
    const char *path = scratch_path("full");
    struct crd_journal_conf c = conf_of(path);
    struct crd_journal_status s;
    struct rlimit before, tight;
    static int zero = 0;
    char body[64];
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    struct crd_journal *j = open_at(&c);
    assert_int_equal(crd_journal_run(j), OK);
    tight = before;
    tight.rlim_cur = 300;
    setrlimit(RLIMIT_FSIZE, &tight);
    n_handed_on = 0;
    struct record_accept a = accept_of(0, body);
    struct crd_journaled *q = crd_journal_accept(j, &a);
    for (int k = 0; k < N_EVENTS - 1; k++) {
        say(q, &zero, k);
        clock_sleep_us(2000);
    }
    for (int64_t end = clock_us() + 5000000; n_handed_on < N_EVENTS - 1 && clock_us() < end;) clock_sleep_us(1000);
    assert_int_equal(n_handed_on, N_EVENTS - 1);
    crd_journal_status(j, &s);
    assert_true(s.failing);
    assert_non_null(strstr(s.text, "File too large"));
    setrlimit(RLIMIT_FSIZE, &before);
    for (int64_t end = clock_us() + 5000000; s.failing && clock_us() < end; clock_sleep_us(10000)) crd_journal_status(j, &s);
    assert_false(s.failing);
    say(q, &zero, N_EVENTS - 1);
    crd_journal_close(j);
    int32_t n_events;
    assert_int_equal(count_left(&c, &n_events), 1);
    assert_int_equal(n_events, N_EVENTS); /* nothing that was said meanwhile is missing */
}

/* A long prompt's log-probabilities: it is not journaled, and what comes behind it is. */
static void a_record_that_is_too_long_spoils_nothing(void **state)
{
    enum { N = 400000 };
    char body[64];
    struct crd_journal_conf c = conf_of(scratch_path("long"));
    struct record_score *t = calloc(N, sizeof *t);
    int n_events, i = 2;
    (void)state;
    c.max_bytes = 1 << 30;
    for (int k = 0; k < N; k++) t[k] = (struct record_score){.token = {.id = k, .n_top = LIMIT_LOGPROBS}, .rank = 1};
    struct crd_journal *j = open_at(&c);
    assert_int_equal(crd_journal_run(j), OK);
    struct record_accept a = accept_of(1, body);
    struct crd_journaled *q = crd_journal_accept(j, &a);
    assert_non_null(q);
    assert_false(crd_journaled_prompt(q, 0, t, N));
    crd_journaled_end(q, false);
    a = accept_of(2, body);
    q = crd_journal_accept(j, &a);
    assert_non_null(q);
    say(q, &i, 0);
    crd_journal_close(j);
    free(t);
    assert_int_equal(count_left(&c, &n_events), 1);
    assert_int_equal(n_events, 1);
}

static void threads_that_cannot_be_started_are_an_error(void **state)
{
    const char *path = scratch_path("threads");
    struct crd_journal_conf c = conf_of(path);
    (void)state;
    for (int started = 0; started < 2; started++) {
        struct crd_journal *j = open_at(&c);
        refuse_thread_after(started);
        assert_int_equal(crd_journal_run(j), ERR_SYSTEM);
        assert_non_null(strstr(err_text(), started ? "syncs the journal" : "writes the journal"));
        crd_journal_close(j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),  cmocka_unit_test(it_is_safe_at_every_byte), cmocka_unit_test(damage_ends_what_is_read),
        cmocka_unit_test(it_stays_within_its_bound), cmocka_unit_test(a_full_disk_stops_nobody),
        cmocka_unit_test(a_record_that_is_too_long_spoils_nothing), cmocka_unit_test(threads_that_cannot_be_started_are_an_error),
    };
    log_set_level(LOG_ERROR);
    setenv("TMPDIR", "/dev/shm", 0); /* thousands of files are opened, each synced: in memory that costs nothing */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
