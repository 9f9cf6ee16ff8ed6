/* rpc_tls.c: what gRPC says of a TLS handshake that failed, as a sentence that says whose file is wrong and what helps.
 *
 * gRPC hands OpenSSL's words on (a client in the status of its call, a server to its log alone): the few that files can cause are known here.
 * Another gRPC or OpenSSL may word them otherwise: then tests/transport/test_rpc_tls.c fails, and users see its words as they are. */
#include "transport/rpc_core.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdatomic.h>
#include <string.h>

#define C "rpc"

struct words { const char *theirs, *ours; };

/* The first that is found. */
static const char *find(const struct words w[], size_t n, const char *said)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(said, w[i].theirs)) return w[i].ours;
    return NULL;
}

const char *rpc_tls_client_why(const char *said, bool tls)
{
    static const struct words by_tls[] = {
        {"certificate verify failed", "the coordinator's certificate does not come from this side's --tls-ca, or is out of date: give the CA "
         "that signed its --tls-cert"},
        {"is not in peer certificate", "the coordinator's certificate does not name the address that it was dialled at: add that to the subjectAltName of its "
                                       "--tls-cert, or dial a name that stands there"},
        {"wrong version number", "the coordinator speaks no TLS: give it --tls-cert and --tls-key, or leave the --tls options away here"},
        {"packet length too long", "the coordinator speaks no TLS: give it --tls-cert and --tls-key, or leave the --tls options away here"},
        {"Socket closed", "the coordinator ended the TLS handshake: give this side --tls-cert and --tls-key from the CA of the coordinator's "
         "--tls-ca (its log says more)"},
        {"onnection reset", "the coordinator ended the TLS handshake: give this side --tls-cert and --tls-key from the CA of the "
         "coordinator's --tls-ca (its log says more)"},
    };
    static const struct words by_plain[] = {
        {"Socket closed", "the coordinator ended the connection: if it has a --tls-cert, give this side its CA as --tls-ca"},
        {"onnection reset", "the coordinator ended the connection: if it has a --tls-cert, give this side its CA as --tls-ca"},
    };
    return tls ? find(by_tls, COUNT_OF(by_tls), said) : find(by_plain, COUNT_OF(by_plain), said);
}

/* ---- a server's ---- */

static const struct words by_client[] = {
    {"certificate verify failed", "its certificate does not come from --tls-ca here, or is out of date: give the worker a --tls-cert of that CA"},
    {"did not return a certificate", "it showed no certificate, which --tls-ca here asks for: give the worker --tls-cert and --tls-key"},
    {"wrong version number", "it speaks no TLS: give the worker --tls-ca (and --tls-cert, --tls-key where --tls-ca is given here)"},
    {"http request", "it speaks no TLS: give the worker --tls-ca (and --tls-cert, --tls-key where --tls-ca is given here)"},
    {"unknown ca", "it does not trust the certificate here: give the worker the CA that signed --tls-cert as its --tls-ca"},
    {"Handshake read failed", "it left in the middle: a worker that does not trust --tls-cert here says so in its own log; give it the CA "
     "that signed that as --tls-ca"},
};

void rpc_tls_server_failed(const char *said)
{
    enum { AGAIN_US = 60000000 };
    static _Atomic int64_t last[COUNT_OF(by_client)]; /* relaxed: at worst one line too many */
    const char *ours = find(by_client, COUNT_OF(by_client), said);
    if (!ours) return; /* log_debug has it */
    for (size_t i = 0; i < COUNT_OF(by_client); i++) {
        int64_t now = clock_us(), before = atomic_load(&last[i]);
        if (by_client[i].ours != ours || (before && now - before < AGAIN_US)) continue;
        atomic_store(&last[i], now);
        log_warn(C, "a TLS handshake with somebody who dialled the worker plane failed: %s", ours);
        return;
    }
}
