/* tls.c: the certificate and its key, read once at start. */
#include "coordinator/gateway/net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PEM = 1 << 20 };

static enum err read_pem(const char *path, char **out)
{
    enum err rc = OK;
    char *text = xcalloc(1, MAX_PEM + 1);
    FILE *f = fopen(path, "r");
    if (!f || (!fread(text, 1, MAX_PEM, f) && ferror(f)))
        rc = err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    else if (!strstr(text, "-----BEGIN"))
        rc = err_raise(ERR_BAD_CONFIG, "%s is no PEM file: there is no -----BEGIN in it", path);
    if (f) fclose(f);
    if (!rc) {
        *out = text;
        text = NULL;
    }
    free(text);
    return rc;
}

enum err crd_tls_read(struct gw *g)
{
    const struct gw_conf *c = &g->conf;
    enum err rc = OK;
    if (!c->tls_cert && !c->tls_key) return OK;
    if (!c->tls_cert || !c->tls_key)
        return err_raise(ERR_BAD_CONFIG,
                         "HTTPS needs both a certificate and its key: only %s was given",
                         c->tls_cert ? c->tls_cert : c->tls_key);
    TRY(read_pem(c->tls_cert, &g->cert));
    TRY(read_pem(c->tls_key, &g->cert_key));
out:
    return rc;
}

void crd_tls_forget(struct gw *g)
{
    if (g->cert_key) explicit_bzero(g->cert_key, strlen(g->cert_key));
    free(g->cert);
    free(g->cert_key);
}
