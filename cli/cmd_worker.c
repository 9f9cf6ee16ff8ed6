/* cmd_worker.c: `tessera worker`: one rank, started by mpirun or srun. */
#include "cli/commands.h"
#include "cli/options.h"

#include "base/address.h"
#include "base/log.h"
#include "transport/coll_open.h"
#include "worker/worker.h"

#include <signal.h>
#include <stdlib.h>

struct options {
    const char *join, *key_file, *tls_cert, *tls_key, *tls_ca, *log_level, *device;
    int64_t threads;
    double join_timeout;
    bool bind;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"join", CONF_STR, O(join), NULL, 0, 0, "HOST:PORT", "the coordinator's worker plane (needed)"},
    {"cluster-key-file", CONF_STR, O(key_file), NULL, 0, 0, "FILE", "the cluster key (mode 0600); else TESSERA_CLUSTER_KEY"},
    {"join-timeout", CONF_FLOAT, O(join_timeout), "30", 0.1, 1e6, "S", "seconds to try to reach the coordinator"},
    {"threads", CONF_INT, O(threads), "0", 0, 512, "N", "compute threads of this rank; 0: what the plan says"},
    {"device", CONF_STR, O(device), "auto", 0, 0, "NAME", "where this rank computes: auto (a GPU of its own where there is one), cpu, cuda, cuda:N"},
    {"bind", CONF_FLAG, O(bind), "on", 0, 0, "on|off", "bind compute threads to cores"},
    {"tls-cert", CONF_STR, O(tls_cert), NULL, 0, 0, "FILE", "client certificate (PEM)"},
    {"tls-key", CONF_STR, O(tls_key), NULL, 0, 0, "FILE", "its key"},
    {"tls-ca", CONF_STR, O(tls_ca), NULL, 0, 0, "FILE", "CA of the coordinator's certificate"},
    {"log-level", CONF_STR, O(log_level), "info", 0, 0, "LEVEL", "error, warn, info or debug"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "worker", "worker --join HOST:PORT [options]",
    "One rank of a replica. Started by the coordinator, or by yourself:\n"
    "  mpirun -n 4 --hostfile hosts tessera worker --join head:7000", groups, 0, 0};

int cmd_worker(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    int n_args;
    bool help;
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    TRY(options_log_level(o.log_level));
    if (!o.join) TRY(err_raise(ERR_BAD_CONFIG, "--join HOST:PORT is needed: the address that the coordinator printed"));
    struct address coordinator;
    TRY(address_parse(&coordinator, "--join", o.join));
    if (coordinator.port <= 0) TRY(err_raise(ERR_BAD_CONFIG, "--join %s: needed HOST:PORT, the address that the coordinator printed", o.join));
    struct wrk_conf w = {.join = o.join, .join_timeout_ms = (int32_t)(o.join_timeout * 1000), .n_threads = (int32_t)o.threads, .bind = o.bind,
                         .device = o.device,
                         .tls_cert = o.tls_cert, .tls_key = o.tls_key, .tls_ca = o.tls_ca};
    TRY(trn_auth_key_load(&w.key, o.key_file));
    unsetenv("TESSERA_CLUSTER_KEY"); /* not for our children */
    signal(SIGINT, SIG_IGN); /* the coordinator decides when we leave */
    return wrk_worker_run(&w);
out:
    return cmd_fail(rc);
}
