/* tls.c: the certificate and its key: looked at again at each handshake.
 *
 * What is in the files then holds for that connection and those after it. A pair that cannot be
 * used changes nothing and is logged once: files are often replaced one after the other. I1  the
 * library keeps pointing to a pair until its handshake is over, so a pair that was replaced stays
 * until no handshake can be that old. Thr: net, but for open and close. */
#include "coordinator/gateway/net.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_PEM = 1 << 20, MAX_CHAIN = 16, KEY_ID = 64 };

struct pair {
    gnutls_pcert_st certs[MAX_CHAIN];
    unsigned n;
    gnutls_privkey_t key;
    int64_t until_us; /* replaced; not needed after */
    struct pair *older;
};

/* A file as it was when last looked at; zeroed: it was not there. */
struct seen {
    int64_t ino, size, s, ns;
};

struct crd_tls {
    char *cert, *key;  /* paths */
    int64_t linger_us; /* a handshake takes no longer */
    struct seen seen[2];
    struct pair *now; /* and those it replaced */
};

/* Whose certificates the library asks for: its callback has no argument of ours. */
static _Thread_local struct crd_tls *asked;

/* ---- one pair ---- */

static void pair_free(struct pair *p)
{
    if (!p) return;
    for (unsigned i = 0; i < p->n; i++) gnutls_pcert_deinit(&p->certs[i]);
    if (p->key) gnutls_privkey_deinit(p->key);
    free(p);
}

/* *out: Own: forget(). */
static enum err read_pem(const char *path, gnutls_datum_t *out)
{
    enum err rc = OK;
    char *text = xcalloc(1, MAX_PEM + 1);
    FILE *f = fopen(path, "r");
    if (!f || (!fread(text, 1, MAX_PEM, f) && ferror(f)))
        rc = err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    else if (!strstr(text, "-----BEGIN"))
        rc = err_raise(ERR_BAD_CONFIG, "%s is no PEM file: there is no -----BEGIN in it", path);
    if (f) fclose(f);
    *out = (gnutls_datum_t){(unsigned char *)text, (unsigned)strlen(text)};
    return rc;
}

static void forget(gnutls_datum_t *pem)
{
    if (pem->data) explicit_bzero(pem->data, pem->size);
    free(pem->data);
}

static bool belong_together(const struct pair *p)
{
    unsigned char ids[2][KEY_ID];
    size_t n[2] = {KEY_ID, KEY_ID};
    gnutls_pubkey_t of_key = NULL;
    bool same = !gnutls_pubkey_init(&of_key) && !gnutls_pubkey_import_privkey(of_key, p->key, 0, 0) &&
                !gnutls_pubkey_get_key_id(of_key, 0, ids[0], &n[0]) &&
                !gnutls_pubkey_get_key_id(p->certs[0].pubkey, 0, ids[1], &n[1]) && n[0] == n[1] &&
                !memcmp(ids[0], ids[1], n[0]);
    if (of_key) gnutls_pubkey_deinit(of_key);
    return same;
}

static bool parse(struct pair *p, const gnutls_datum_t *cert, const gnutls_datum_t *key)
{
    unsigned n = MAX_CHAIN;
    if (gnutls_pcert_list_import_x509_raw(p->certs, &n, cert, GNUTLS_X509_FMT_PEM,
                                          GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED) < 0)
        return false;
    p->n = n;
    return n && !gnutls_privkey_init(&p->key) &&
           !gnutls_privkey_import_x509_raw(p->key, key, GNUTLS_X509_FMT_PEM, NULL, 0) &&
           belong_together(p);
}

static enum err pair_read(const struct crd_tls *t, struct pair **out)
{
    enum err rc;
    gnutls_datum_t cert = {0}, key = {0};
    struct pair *p = xcalloc(1, sizeof *p);
    TRY(read_pem(t->cert, &cert));
    TRY(read_pem(t->key, &key));
    if (!parse(p, &cert, &key))
        TRY(err_raise(ERR_BAD_CONFIG,
                      "the gateway cannot use the certificate in %s with the key in %s: are both "
                      "PEM, and do they belong together?",
                      t->cert, t->key));
    *out = p;
    p = NULL;
out:
    forget(&cert);
    forget(&key);
    pair_free(p);
    return rc;
}

/* ---- the files ---- */

static struct seen look(const char *path)
{
    struct stat st;
    if (stat(path, &st)) return (struct seen){0};
    return (struct seen){(int64_t)st.st_ino, (int64_t)st.st_size, (int64_t)st.st_mtim.tv_sec,
                         (int64_t)st.st_mtim.tv_nsec};
}

static bool changed(struct crd_tls *t)
{
    struct seen now[2] = {look(t->cert), look(t->key)};
    bool any = memcmp(now, t->seen, sizeof now) != 0;
    memcpy(t->seen, now, sizeof now);
    return any;
}

static void replace(struct crd_tls *t, struct pair *fresh)
{
    int64_t now = clock_us();
    t->now->until_us = now + t->linger_us;
    fresh->older = t->now;
    t->now = fresh;
    for (struct pair **at = &fresh->older->older, *p; (p = *at);) {
        if (p->until_us > now) {
            at = &p->older;
            continue;
        }
        *at = p->older;
        pair_free(p);
    }
}

static void refresh(struct crd_tls *t)
{
    struct pair *fresh = NULL;
    if (!changed(t)) return;
    if (pair_read(t, &fresh)) {
        log_warn("gateway", "the certificate of HTTPS stays as it was: %s", err_text());
        return;
    }
    replace(t, fresh);
    log_info("gateway", "the certificate in %s has changed: connections that begin from now on see it",
             t->cert);
}

int crd_tls_pair(gnutls_session_t session, const gnutls_datum_t *issuers, int n_issuers,
                 const gnutls_pk_algorithm_t *algorithms, int n_algorithms, gnutls_pcert_st **certs,
                 unsigned *n_certs, gnutls_privkey_t *key)
{
    (void)session, (void)issuers, (void)n_issuers, (void)algorithms, (void)n_algorithms;
    ASSERT(asked);
    refresh(asked);
    *certs = asked->now->certs;
    *n_certs = asked->now->n;
    *key = asked->now->key;
    return 0;
}

void crd_tls_enter(struct gw *g)
{
    asked = g->tls;
}

enum err crd_tls_open(struct gw *g)
{
    const struct gw_conf *c = &g->conf;
    enum err rc;
    if (!c->tls_cert && !c->tls_key) return OK;
    if (!c->tls_cert || !c->tls_key)
        return err_raise(ERR_BAD_CONFIG,
                         "HTTPS needs both a certificate and its key: only %s was given",
                         c->tls_cert ? c->tls_cert : c->tls_key);
    struct crd_tls *t = xcalloc(1, sizeof *t);
    t->cert = xstrdup(c->tls_cert);
    t->key = xstrdup(c->tls_key);
    t->linger_us = 2 * c->header_timeout_s * INT64_C(1000000);
    (void)changed(t);
    g->tls = t;
    TRY(pair_read(t, &t->now));
out:
    return rc;
}

void crd_tls_close(struct gw *g)
{
    struct crd_tls *t = g->tls;
    if (!t) return;
    for (struct pair *p = t->now, *older; p; p = older) {
        older = p->older;
        pair_free(p);
    }
    free(t->cert);
    free(t->key);
    free(t);
}
