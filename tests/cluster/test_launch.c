/* launch: what mpirun is given. In its place stands a script that looks at it. */
#include "cluster/launch.h"

#include "tests/support/scratch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#include <cmocka.h>

#define KEY "the same for all"

enum { KEEPERS = 4, STARTS = 10 };

pid_t __real_fork(void);
pid_t __wrap_fork(void);

/* A system that takes its time: what is ready before a fork must still be so. */
pid_t __wrap_fork(void)
{
    usleep(2000);
    return __real_fork();
}

static void stand_in(const char *text)
{
    const char *script = scratch_path("mpirun");
    char path[8192];
    scratch_write(script, text, strlen(text));
    assert_int_equal(chmod(script, 0700), 0);
    snprintf(path, sizeof path, "%.*s:%s", (int)(strlen(script) - strlen("/mpirun")), script, getenv("PATH"));
    setenv("PATH", path, 1);
}

/* Counts in *arg the jobs that were not started, or found no key. */
static void *keep_starting(void *arg)
{
    const struct clu_launch_conf c = {.program = "tessera", .n_ranks = 1, .join = "127.0.0.1:1", .key = KEY, .log_level = "info"};
    int *failed = arg;
    for (int i = 0; i < STARTS; i++) {
        struct clu_launch l;
        int status = -1;
        if (!clu_launch_start(&l, &c))
            while (!clu_launch_ended(&l, &status)) usleep(500);
        *failed += status != 0;
    }
    return NULL;
}

/* A host that goes takes ranks of several replicas with it: their keepers start workers at the same time. */
static void every_job_has_the_key_whoever_starts_beside_it(void **state)
{
    pthread_t t[KEEPERS];
    int failed[KEEPERS] = {0};
    (void)state;
    stand_in("#!/bin/sh\n[ \"$TESSERA_CLUSTER_KEY\" = '" KEY "' ]\n");
    for (int i = 0; i < KEEPERS; i++) assert_int_equal(pthread_create(&t[i], NULL, keep_starting, &failed[i]), 0);
    for (int i = 0; i < KEEPERS; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(failed[i], 0);
    }
    assert_null(getenv("TESSERA_CLUSTER_KEY")); /* ours is as it was */
}

static void more_arguments_than_fit_are_refused(void **state)
{
    char words[4 * (CLU_LAUNCH_EXTRA + 1)] = "";
    const char *argv[CLU_LAUNCH_ARGS];
    char *room;
    int n = 0;
    (void)state;
    for (int i = 0; i < CLU_LAUNCH_EXTRA; i++) strcat(words, " -q");
    assert_int_equal(clu_launch_check(NULL), OK);
    assert_int_equal(clu_launch_check(" \t "), OK);
    assert_int_equal(clu_launch_check(words), OK);
    char *all = xasprintf("--mca btl self,tcp --mca btl_tcp_if_include lo %s", words); /* what the coordinator adds */
    const struct clu_launch_conf c = {.program = "tessera", .n_ranks = 3, .join = "127.0.0.1:1", .key = "k", .log_level = "info", .hosts = "a:2,b:1",
                                      .yield = true, .unbound = true, .extra = all};
    clu_launch_argv(argv, &room, &c, NULL, NULL);
    while (argv[n]) n++;
    assert_true(n < CLU_LAUNCH_ARGS);
    assert_string_equal(argv[n - 1], "off");
    bool hosts = false;
    for (int i = 0; i + 1 < n; i++) hosts |= !strcmp(argv[i], "--host") && !strcmp(argv[i + 1], "a,a,b");
    assert_true(hosts);
    free(room);
    free(all);
    strcat(words, " -q");
    assert_int_equal(clu_launch_check(words), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "--mpirun-args has 65 words"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_job_has_the_key_whoever_starts_beside_it), cmocka_unit_test(more_arguments_than_fit_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
