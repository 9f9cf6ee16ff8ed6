/* test_rpc_tls.c: the same session under TLS with certificates of both sides. Makes its
 * certificates with the openssl command; skipped where there is none. */
#include "tests/transport/rpc_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/tessera-tls-XXXXXX";
static char ca[64], cert[64], cert_key[64], other_ca[64];
static struct auth_key key;

static const char make[] = "cd %s && exec >log 2>&1 && new='openssl req -newkey ec -pkeyopt "
                           "ec_paramgen_curve:P-256 -nodes' && "
                           "$new -x509 -days 2 -keyout ca.key -out ca.pem -subj /CN=ca && "
                           "$new -x509 -days 2 -keyout other.key -out other.pem -subj /CN=other && "
                           "$new -keyout own.key -out own.csr -subj /CN=node && "
                           "printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' >ext && "
                           "openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
                           "-days 2 -extfile ext -out own.pem && "
                           "$new -keyout own2.key -out own2.csr -subj /CN=node && "
                           "openssl x509 -req -in own2.csr -CA other.pem -CAkey other.key -CAcreateserial "
                           "-days 2 -extfile ext -out theirs.pem";

static int make_certificates(void **state)
{
    (void)state;
    char command[1024];
    if (!mkdtemp(dir)) return -1;
    snprintf(command, sizeof command, make, dir);
    if (system(command)) return -1;
    snprintf(ca, sizeof ca, "%s/ca.pem", dir);
    snprintf(other_ca, sizeof other_ca, "%s/other.pem", dir);
    snprintf(cert, sizeof cert, "%s/own.pem", dir);
    snprintf(cert_key, sizeof cert_key, "%s/own.key", dir);
    return 0;
}

static int remove_certificates(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static struct rpc_conf tls_conf(const char *address, const char *identity, const char *authority,
                                bool own)
{
    struct rpc_conf c = conf_of(address, identity, &key);
    c.tls_ca = authority;
    if (own) {
        c.tls_cert = cert;
        c.tls_key = cert_key;
    }
    return c;
}

static struct served serve_tls(void)
{
    struct served s = {.events = mailbox_open()};
    struct rpc_conf c = tls_conf("127.0.0.1:0", "coordinator", ca, true);
    if (rpc_server_open(&s.server, &c, s.events)) fail_msg("%s", err_text());
    snprintf(s.address, sizeof s.address, "127.0.0.1:%d", rpc_server_port(s.server));
    return s;
}

static void both_certificates_make_a_session(void **state)
{
    (void)state;
    struct served s = serve_tls();
    struct mailbox *events = mailbox_open();
    struct rpc_client *client;
    struct rpc_conf c = tls_conf(s.address, "rank 0@host", ca, true);
    assert_int_equal(rpc_client_open(&client, &c, 10000, events), OK);
    struct rpc_event *e = expect_event(events, RPC_CONNECTED);
    send_numbered(e->peer, MSG_STEP_RESULT, 7, 100000);
    rpc_event_free(e);
    rpc_event_free(expect_event(s.events, RPC_CONNECTED));
    control_msg_free(expect_message(s.events, MSG_STEP_RESULT));
    rpc_client_close(client);
    drop_events(events);
    serve_end(&s);
}

/* stderr into a file, to read what the log said of it. */
static int divert(const char *path)
{
    int was = dup(STDERR_FILENO);
    assert_non_null(freopen(path, "w", stderr));
    return was;
}

static char *restore(int was, const char *path)
{
    static char said[8192];
    fflush(stderr);
    assert_int_equal(dup2(was, STDERR_FILENO), STDERR_FILENO);
    close(was);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    fclose(f);
    return said;
}

/* why: in the client's own words; log: what a log line says, the server's where it is the server that refuses. */
static void refused_client(struct served *s, struct rpc_conf c, const char *why, const char *log)
{
    struct mailbox *events = mailbox_open();
    struct rpc_client *client;
    char path[80];
    snprintf(path, sizeof path, "%s/said", dir);
    int was = divert(path);
    assert_int_equal(rpc_client_open(&client, &c, 1500, events), OK);
    struct rpc_event *e = mailbox_get(events, 10000000);
    const char *said = restore(was, path);
    assert_non_null(e);
    assert_int_equal(e->kind, RPC_CLOSED);
    assert_int_equal(e->err, ERR_LINK_CLOSED);
    if (!strstr(e->text, why)) fail_msg("'%s' does not say '%s'", e->text, why);
    if (!strstr(said, log)) fail_msg("the log does not say '%s': %s", log, said);
    rpc_event_free(e);
    assert_null(mailbox_get(s->events, 0));
    rpc_client_close(client);
    drop_events(events);
}

static void both_sides_are_told_why_tls_refuses(void **state)
{
    (void)state;
    struct served s = serve_tls();
    refused_client(&s, tls_conf(s.address, "rank 0@host", ca, false), "give this side --tls-cert and --tls-key",
                   "it showed no certificate, which --tls-ca here asks for: give the worker --tls-cert and --tls-key");
    refused_client(&s, tls_conf(s.address, "rank 0@host", other_ca, true), "does not come from this side's --tls-ca",
                   "a TLS handshake with somebody who dialled the worker plane failed: it left in the middle");
    refused_client(&s, conf_of(s.address, "rank 0@host", &key), "if it has a --tls-cert, give this side its CA as --tls-ca",
                   "it speaks no TLS: give the worker --tls-ca");
    char other_cert[80], other_key[80];
    snprintf(other_cert, sizeof other_cert, "%s/theirs.pem", dir);
    snprintf(other_key, sizeof other_key, "%s/own2.key", dir);
    struct rpc_conf c = tls_conf(s.address, "rank 0@host", ca, false);
    c.tls_cert = other_cert;
    c.tls_key = other_key;
    refused_client(&s, c, "from the CA of the coordinator's --tls-ca", "its certificate does not come from --tls-ca here");
    serve_end(&s);
}

static void a_name_that_the_certificate_has_not_and_a_plain_server_are_told_of(void **state)
{
    (void)state;
    struct served s = {.events = mailbox_open()};
    struct rpc_conf c = tls_conf("127.0.0.2:0", "coordinator", ca, true);
    if (rpc_server_open(&s.server, &c, s.events)) fail_msg("%s", err_text());
    snprintf(s.address, sizeof s.address, "127.0.0.2:%d", rpc_server_port(s.server));
    refused_client(&s, tls_conf(s.address, "rank 0@host", ca, true), "does not name the address that it was dialled at", "no session with 127.0.0.2:");
    serve_end(&s);
    s = (struct served){.events = mailbox_open()};
    c = conf_of("127.0.0.1:0", "coordinator", &key);
    if (rpc_server_open(&s.server, &c, s.events)) fail_msg("%s", err_text());
    snprintf(s.address, sizeof s.address, "127.0.0.1:%d", rpc_server_port(s.server));
    refused_client(&s, tls_conf(s.address, "rank 0@host", ca, true), "the coordinator speaks no TLS", "yet: the coordinator speaks no TLS");
    serve_end(&s);
}

static void copy(const char *from, const char *to)
{
    char command[512];
    snprintf(command, sizeof command, "cp %s %s.new && mv %s.new %s", from, to, to, to);
    assert_int_equal(system(command), 0);
}

static bool joins(struct served *s, struct rpc_conf c)
{
    struct mailbox *events = mailbox_open();
    struct rpc_client *client;
    assert_int_equal(rpc_client_open(&client, &c, 1200, events), OK);
    struct rpc_event *e = mailbox_get(events, 10000000);
    assert_non_null(e);
    bool joined = e->kind == RPC_CONNECTED;
    rpc_event_free(e);
    if (joined) rpc_event_free(expect_event(s->events, RPC_CONNECTED));
    rpc_client_close(client);
    drop_events(events);
    if (joined) rpc_event_free(expect_event(s->events, RPC_CLOSED));
    return joined;
}

/* The server's certificate is replaced by one of another authority while it runs, and by one that is damaged. */
static void certificates_are_read_again(void **state)
{
    (void)state;
    char live_cert[80], live_key[80], other_cert[80], other_key[80];
    snprintf(live_cert, sizeof live_cert, "%s/live.pem", dir);
    snprintf(live_key, sizeof live_key, "%s/live.key", dir);
    snprintf(other_cert, sizeof other_cert, "%s/theirs.pem", dir);
    snprintf(other_key, sizeof other_key, "%s/own2.key", dir);
    copy(cert, live_cert);
    copy(cert_key, live_key);
    struct served s = {.events = mailbox_open()};
    struct rpc_conf c = conf_of("127.0.0.1:0", "coordinator", &key);
    c.tls_cert = live_cert;
    c.tls_key = live_key;
    if (rpc_server_open(&s.server, &c, s.events)) fail_msg("%s", err_text());
    snprintf(s.address, sizeof s.address, "127.0.0.1:%d", rpc_server_port(s.server));
    struct rpc_conf trusts_ca = tls_conf(s.address, "rank 0@host", ca, false), trusts_other = tls_conf(s.address, "rank 1@host", other_ca, false);
    assert_true(joins(&s, trusts_ca));
    assert_false(joins(&s, trusts_other));
    copy(other_key, live_key);
    copy(other_cert, live_cert);
    assert_true(joins(&s, trusts_other));
    assert_false(joins(&s, trusts_ca));
    copy("/dev/null", live_cert); /* damaged: the last good one stays */
    assert_true(joins(&s, trusts_other));
    copy(cert_key, live_key);
    copy(cert, live_cert);
    assert_true(joins(&s, trusts_ca));
    serve_end(&s);
}

static void bad_files_are_named(void **state)
{
    (void)state;
    struct rpc_server *server = NULL;
    struct rpc_client *client = NULL;
    struct mailbox *events = mailbox_open();
    struct rpc_conf c = tls_conf("127.0.0.1:0", "coordinator", "/nonexistent/ca.pem", true);
    assert_int_equal(rpc_server_open(&server, &c, events), ERR_BAD_CONFIG);
    assert_string_equal(err_text(), "TLS file /nonexistent/ca.pem: No such file or directory");
    c = tls_conf("127.0.0.1:1", "rank 0", "/dev/null", false);
    assert_int_equal(rpc_client_open(&client, &c, 100, events), ERR_BAD_CONFIG);
    assert_string_equal(err_text(), "TLS file /dev/null is no PEM file (no \"-----BEGIN\")");
    c = tls_conf("127.0.0.1:0", "coordinator", ca, true);
    c.tls_key = NULL;
    assert_int_equal(rpc_server_open(&server, &c, events), ERR_BAD_CONFIG);
    assert_null(server);
    assert_null(client);
    mailbox_close(events);
}

int main(void)
{
    if (system("openssl version >/dev/null 2>&1")) {
        puts("skipped: no openssl command to make certificates with");
        return 77;
    }
    key = test_key("the cluster key of this test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_certificates_make_a_session),
        cmocka_unit_test(both_sides_are_told_why_tls_refuses),
        cmocka_unit_test(a_name_that_the_certificate_has_not_and_a_plain_server_are_told_of),
        cmocka_unit_test(certificates_are_read_again),
        cmocka_unit_test(bad_files_are_named),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
