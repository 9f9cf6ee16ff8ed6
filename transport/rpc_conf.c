/* rpc_conf.c: gRPC's arguments, credentials and log, in one place. */
#include "transport/rpc_core.h"

#include "base/log.h"

#include <grpc/support/log.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define C "rpc"

static void put_int(struct rpc_args *a, const char *key, int v)
{
    ASSERT(a->all.num_args < COUNT_OF(a->args));
    a->args[a->all.num_args++] =
        (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = v};
    a->all.args = a->args;
}

static void put_common(struct rpc_args *a, const struct rpc_conf *conf)
{
    *a = (struct rpc_args){0};
    put_int(a, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_BYTES);
    put_int(a, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1);
    if (conf->keepalive_ms > 0) put_int(a, GRPC_ARG_KEEPALIVE_TIME_MS, conf->keepalive_ms);
    if (conf->keepalive_timeout_ms > 0)
        put_int(a, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, conf->keepalive_timeout_ms);
    put_int(a, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    put_int(a, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0); /* as many as keepalive wants */
    put_int(a, GRPC_ARG_HTTP2_BDP_PROBE, 0); /* its pings cost more than a fixed window */
    put_int(a, GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 * RPC_PIECE_BYTES);
}

void rpc_args_server(struct rpc_args *a, const struct rpc_conf *conf)
{
    put_common(a, conf);
    put_int(a, GRPC_ARG_ALLOW_REUSEPORT, 0); /* else two servers share a port without a word */
    put_int(a, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 50);
    put_int(a, GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
    put_int(a, GRPC_ARG_MAX_CONCURRENT_STREAMS, 1);
    put_int(a, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, RPC_AUTH_US / 1000);
    put_int(a, GRPC_ARG_MAX_CONNECTION_IDLE_MS, RPC_AUTH_US / 1000); /* idle: without a session */
}

void rpc_args_client(struct rpc_args *a, const struct rpc_conf *conf)
{
    put_common(a, conf);
    /* one connection per client, even within one process */
    put_int(a, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    put_int(a, GRPC_ARG_ENABLE_HTTP_PROXY, 0); /* http_proxy is not meant for the worker plane */
    put_int(a, GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    put_int(a, GRPC_ARG_ENABLE_RETRIES, 0);
    put_int(a, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    /* in truth the time one attempt to connect may take */
    put_int(a, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
    put_int(a, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
}

/* ---- credentials ---- */

static enum err read_pem(const char *file, char **out)
{
    enum err rc = OK;
    struct buf b = {0};
    char piece[4096];
    size_t n;
    FILE *f = fopen(file, "re");
    if (!f) TRY(err_raise(ERR_BAD_CONFIG, "TLS file %s: %s", file, strerror(errno)));
    while ((n = fread(piece, 1, sizeof piece, f)) > 0 && b.len < 1 << 20) buf_put(&b, piece, n);
    if (ferror(f)) TRY(err_raise(ERR_BAD_CONFIG, "TLS file %s cannot be read", file));
    if (!strstr(buf_str(&b), "-----BEGIN "))
        TRY(err_raise(ERR_BAD_CONFIG, "TLS file %s is no PEM file (no \"-----BEGIN\")", file));
    *out = buf_take(&b);
out:
    if (f) fclose(f);
    buf_free(&b);
    return rc;
}

void rpc_pems_free(struct rpc_pems *p)
{
    free(p->ca);
    free(p->cert);
    free(p->key);
}

enum err rpc_pems_read(const struct rpc_conf *conf, struct rpc_pems *p)
{
    enum err rc = OK;
    if (!conf->tls_cert != !conf->tls_key)
        TRY(err_raise(ERR_BAD_CONFIG,
                      "a TLS certificate and its key are given together or not at all"));
    if (conf->tls_ca) TRY(read_pem(conf->tls_ca, &p->ca));
    if (conf->tls_cert) TRY(read_pem(conf->tls_cert, &p->cert));
    if (conf->tls_key) TRY(read_pem(conf->tls_key, &p->key));
out:
    return rc;
}

enum err rpc_creds_server(const struct rpc_conf *conf, struct rpc_reload *r, grpc_server_credentials **out)
{
    enum err rc = OK;
    struct rpc_pems p = {0};
    TRY(rpc_pems_read(conf, &p));
    if (p.ca && !p.cert)
        TRY(err_raise(ERR_BAD_CONFIG, "a TLS CA on the server needs a certificate and its key"));
    grpc_ssl_client_certificate_request_type ask =
        p.ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
             : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
    /* read above to say what is wrong with them; from here on gRPC asks for them at each handshake */
    *out = p.cert ? grpc_ssl_server_credentials_create_with_options(
                        grpc_ssl_server_credentials_create_options_using_config_fetcher(ask, rpc_reload_certificates, r))
                  : grpc_insecure_server_credentials_create();
    if (!*out)
        TRY(err_raise(ERR_BAD_CONFIG, "TLS certificate %s is refused by gRPC", conf->tls_cert));
out:
    rpc_pems_free(&p);
    return rc;
}

enum err rpc_creds_client(const struct rpc_conf *conf, grpc_channel_credentials **out)
{
    enum err rc = OK;
    struct rpc_pems p = {0};
    TRY(rpc_pems_read(conf, &p));
    grpc_ssl_pem_key_cert_pair pair = {p.key, p.cert};
    *out = p.ca || p.cert ? grpc_ssl_credentials_create(p.ca, p.cert ? &pair : NULL, NULL, NULL)
                          : grpc_insecure_credentials_create();
    if (!*out) TRY(err_raise(ERR_BAD_CONFIG, "TLS files are refused by gRPC"));
out:
    rpc_pems_free(&p);
    return rc;
}

/* ---- words ---- */

/* gRPC tells a server that a call was cancelled, not why: that a keepalive went unanswered it says only to its log, "ADDRESS: Keepalive watchdog
 * fired. ...", before it closes the connection. The last of those are kept here for whoever asks why a session ended. Another gRPC may word it
 * otherwise: then tests/transport/test_rpc.c fails. */
static struct {
    pthread_mutex_t lock;
    char at[64][RPC_ADDRESS_BYTES]; /* a ring; "": taken */
    size_t n;
} unanswered = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void to_our_log(gpr_log_func_args *a)
{
    static const char handshake[] = "Handshaking failed: "; /* only servers say this one */
    const char *end = strstr(a->message, ": Keepalive watchdog fired");
    log_debug(C, "gRPC: %s", a->message);
    if (!strncmp(a->message, handshake, sizeof handshake - 1)) rpc_tls_server_failed(a->message);
    if (!end) return;
    pthread_mutex_lock(&unanswered.lock);
    rpc_printable(unanswered.at[unanswered.n++ % COUNT_OF(unanswered.at)], RPC_ADDRESS_BYTES, a->message, (size_t)(end - a->message));
    pthread_mutex_unlock(&unanswered.lock);
}

bool rpc_keepalive_failed(const char *address)
{
    bool found = false;
    pthread_mutex_lock(&unanswered.lock);
    for (size_t i = 0; i < COUNT_OF(unanswered.at); i++) {
        if (strcmp(unanswered.at[i], address)) continue;
        found = true;
        unanswered.at[i][0] = 0;
    }
    pthread_mutex_unlock(&unanswered.lock);
    return found;
}

static void quiet(void)
{
    gpr_set_log_function(to_our_log);
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_INFO); /* what is said of keepalives is of this severity */
}

void rpc_quiet(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, quiet);
}

void rpc_hear_tls(void) { gpr_set_log_verbosity(GPR_LOG_SEVERITY_DEBUG); }

void rpc_printable(char *out, size_t cap, const char *text, size_t n)
{
    size_t i = 0;
    for (; i < n && i + 1 < cap; i++) out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    out[i] = 0;
}
