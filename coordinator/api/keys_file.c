/* keys_file.c: see keys_file.h. */
#include "coordinator/api/keys_file.h"

#include <ctype.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LINE = 1024, MIN_SECRET = 8 };

struct reader {
    const char *path;
    int32_t line;
    bool secret; /* a key stands there as it is */
};

static enum err wrong(const struct reader *r, const char *what)
{
    return err_raise(ERR_BAD_CONFIG,
                     "%s line %d: %s; a line is NAME SECRET [weight=W] [rpm=N] [tpm=N] "
                     "[concurrency=N], SECRET a key or sha256:HEX",
                     r->path, r->line, what);
}

static enum err take_secret(struct reader *r, const char *text, uint8_t hash[KEY_HASH])
{
    size_t n;
    if (!strncmp(text, "sha256:", 7)) {
        bool good = strlen(text) == 7 + 2 * KEY_HASH &&
                    !sodium_hex2bin(hash, KEY_HASH, text + 7, 2 * KEY_HASH, NULL, &n, NULL) &&
                    n == KEY_HASH;
        return good ? OK : wrong(r, "sha256: is not followed by 64 hex digits");
    }
    if (strlen(text) < MIN_SECRET) return wrong(r, "the secret has fewer than 8 characters");
    crypto_hash_sha256(hash, (const unsigned char *)text, strlen(text));
    r->secret = true;
    return OK;
}

static enum err take_option(struct reader *r, struct crd_key_line *k, const char *text)
{
    static const struct {
        const char *name;
        size_t at;
    } numbers[] = {{"rpm=", offsetof(struct crd_key_line, limits.rpm)},
                   {"tpm=", offsetof(struct crd_key_line, limits.tpm)},
                   {"concurrency=", offsetof(struct crd_key_line, limits.concurrency)}};
    const char *eq = strchr(text, '=');
    char *end = NULL;
    double v = eq ? strtod(eq + 1, &end) : 0;
    if (!eq || !isdigit((unsigned char)eq[1]) || *end || v > 1e9)
        return wrong(r, "an option is not NAME=NUMBER");
    if (!strncmp(text, "weight=", 7)) {
        if (v <= 0) return wrong(r, "a weight must be greater than zero");
        k->weight = (float)v;
        return OK;
    }
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        if (strncmp(text, numbers[i].name, strlen(numbers[i].name))) continue;
        int32_t whole = (int32_t)v;
        memcpy((char *)k + numbers[i].at, &whole, sizeof whole);
        return OK;
    }
    return wrong(r, "an option is none of weight, rpm, tpm, concurrency");
}

static enum err take_line(struct reader *r, char *text, struct crd_key_line *k)
{
    static const char space[] = " \t\r\n";
    enum err rc = OK;
    char *rest = NULL, *name = strtok_r(text, space, &rest), *secret = strtok_r(NULL, space, &rest);
    if (!secret) return wrong(r, "there is a name and no secret");
    if (strlen(name) >= KEY_NAME) return wrong(r, "the name is longer than 63 characters");
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("_-.@", *p))
            return wrong(r, "the name is not made of letters, digits, '_', '-', '.' and '@'");
    snprintf(k->name, sizeof k->name, "%s", name);
    TRY(take_secret(r, secret, k->hash));
    for (char *o; (o = strtok_r(NULL, space, &rest));) TRY(take_option(r, k, o));
out:
    return rc;
}

static enum err check_mode(const struct reader *r, FILE *f)
{
    struct stat st;
    if (r->secret && !fstat(fileno(f), &st) && (st.st_mode & (S_IRWXG | S_IRWXO)))
        return err_raise(ERR_BAD_CONFIG,
                         "%s has keys in it and others can read it (mode %o): chmod 600 %s, or "
                         "write sha256:HEX instead of the keys",
                         r->path, st.st_mode & 07777, r->path);
    return OK;
}

enum err crd_keys_file_read(const char *path, const struct crd_limits *defaults,
                            struct crd_key_line **out, int32_t *n_out)
{
    enum err rc = OK;
    struct reader r = {.path = path};
    struct crd_key_line *at = NULL;
    int32_t n = 0;
    char line[MAX_LINE];
    FILE *f = fopen(path, "r");
    if (!f) return err_raise(ERR_IO, "cannot read the keys in %s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, f)) {
        r.line++;
        if (strlen(line) == sizeof line - 1) TRY(wrong(&r, "it is too long"));
        line[strcspn(line, "#")] = 0;
        if (!line[strspn(line, " \t\r\n")]) continue;
        at = xrealloc(at, (size_t)(n + 1) * sizeof *at);
        at[n] = (struct crd_key_line){.weight = 1, .limits = *defaults};
        TRY(take_line(&r, line, &at[n]));
        for (int32_t i = 0; i < n; i++)
            if (!strcmp(at[i].name, at[n].name)) TRY(wrong(&r, "the name stands there twice"));
            else if (!memcmp(at[i].hash, at[n].hash, KEY_HASH)) TRY(wrong(&r, "the secret is that of a line before, whose limits and account would be used"));
        n++;
    }
    if (ferror(f)) TRY(err_raise(ERR_IO, "cannot read the keys in %s: %s", path, strerror(errno)));
    TRY(check_mode(&r, f));
    *out = at;
    *n_out = n;
    at = NULL;
out:
    sodium_memzero(line, sizeof line);
    free(at);
    fclose(f);
    return rc;
}
