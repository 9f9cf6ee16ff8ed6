/* rpc_reload.c: certificates and the cluster key of a running server: files that are looked at again whenever a session begins.
 *
 * What is there then holds for that session and those after it; sessions that stand are not touched. A file that cannot be understood changes
 * nothing and is logged. Thr: gRPC's own threads and the rpc thread; one lock. */
#include "transport/rpc_core.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define C "rpc"

enum { WATCHED_CERT, WATCHED_KEY, WATCHED_CA, WATCHED_CLUSTER_KEY, N_WATCHED };

/* As it was when last looked at; zeroed: it was not there. */
struct seen { int64_t ino, size, s, ns; };

struct rpc_reload {
    char *path[N_WATCHED]; /* Own; NULL: not given */
    pthread_mutex_t lock;
    struct seen seen[N_WATCHED];
};

static struct seen look(const char *path)
{
    struct stat st;
    if (stat(path, &st)) return (struct seen){0};
    return (struct seen){(int64_t)st.st_ino, (int64_t)st.st_size, (int64_t)st.st_mtim.tv_sec, (int64_t)st.st_mtim.tv_nsec};
}

/* Under the lock. */
static bool changed(struct rpc_reload *r, int first, int last)
{
    bool any = false;
    for (int i = first; i <= last; i++) {
        if (!r->path[i]) continue;
        struct seen now = look(r->path[i]);
        any |= memcmp(&now, &r->seen[i], sizeof now) != 0;
        r->seen[i] = now;
    }
    return any;
}

struct rpc_reload *rpc_reload_open(const struct rpc_conf *conf)
{
    const char *const given[N_WATCHED] = {conf->tls_cert, conf->tls_key, conf->tls_ca, conf->key_file};
    struct rpc_reload *r = xcalloc(1, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    for (int i = 0; i < N_WATCHED; i++) r->path[i] = given[i] ? xstrdup(given[i]) : NULL;
    (void)changed(r, WATCHED_CLUSTER_KEY, WATCHED_CLUSTER_KEY); /* the key of the conf is from it; certificates are fetched first */
    return r;
}

void rpc_reload_close(struct rpc_reload *r)
{
    if (!r) return;
    for (int i = 0; i < N_WATCHED; i++) free(r->path[i]);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

bool rpc_reload_key(struct rpc_reload *r, struct auth_key *key)
{
    struct auth_key fresh;
    pthread_mutex_lock(&r->lock);
    bool look_again = changed(r, WATCHED_CLUSTER_KEY, WATCHED_CLUSTER_KEY);
    pthread_mutex_unlock(&r->lock);
    if (!look_again) return false;
    if (trn_auth_key_load(&fresh, r->path[WATCHED_CLUSTER_KEY])) {
        log_warn(C, "the cluster key stays as it was: %s", err_text());
        return false;
    }
    *key = fresh;
    log_info(C, "the cluster key in %s has changed: sessions that begin from now on need it", r->path[WATCHED_CLUSTER_KEY]);
    return true;
}

/* gRPC asks before each handshake. */
grpc_ssl_certificate_config_reload_status rpc_reload_certificates(void *user, grpc_ssl_server_certificate_config **out)
{
    struct rpc_reload *r = user;
    struct rpc_pems p = {0};
    struct rpc_conf conf = {.tls_cert = r->path[WATCHED_CERT], .tls_key = r->path[WATCHED_KEY], .tls_ca = r->path[WATCHED_CA]};
    pthread_mutex_lock(&r->lock);
    bool first = !r->seen[WATCHED_CERT].ino, look_again = changed(r, WATCHED_CERT, WATCHED_CA);
    pthread_mutex_unlock(&r->lock);
    if (!look_again) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    enum err e = rpc_pems_read(&conf, &p);
    grpc_ssl_pem_key_cert_pair pair = {p.key, p.cert};
    /* gRPC 1.51 insists on a root here; where no client certificate is asked for, it is looked at by nobody */
    if (!e) *out = grpc_ssl_server_certificate_config_create(p.ca ? p.ca : p.cert, &pair, 1);
    rpc_pems_free(&p);
    if (e) {
        log_warn(C, "the certificate stays as it was: %s", err_text());
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
    }
    if (!first) log_info(C, "the certificate in %s has changed: sessions that begin from now on see it", r->path[WATCHED_CERT]);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}
