/* process.c: see process.h. */
#include "cli/process.h"

#include "base/base.h"
#include "cluster/launch.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

void process_program(char out[4096])
{
    ssize_t n = readlink("/proc/self/exe", out, 4095);
    snprintf(out + MAX(n, 0), (size_t)(4096 - MAX(n, 0)), "%s", n > 0 ? "" : "tessera");
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
    (void)sig;
    if (++signals == 1) return;
    clu_launch_abandon();
    _exit(130);
}

/* Kernel and shell both send one when a terminal closes: however many come, nobody meant "at once". */
static void on_hangup(int sig)
{
    (void)sig;
    if (!signals) signals = 1;
}

void process_catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal}, hangup = {.sa_handler = on_hangup}, before;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    if (!sigaction(SIGHUP, NULL, &before) && before.sa_handler != SIG_IGN) sigaction(SIGHUP, &hangup, NULL); /* nohup stays nohup */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of whoever writes it */
}

bool process_stop(void) { return signals > 0; }
