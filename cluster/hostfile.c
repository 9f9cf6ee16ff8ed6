/* hostfile.c: see hostfile.h. */
#include "cluster/hostfile.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum err slots_of(const char *word, int32_t line, int32_t *out)
{
    char *end;
    long v = strtol(word, &end, 10);
    if (*word < '0' || *word > '9' || *end || v < 1 || v > LIMIT_RANKS)
        return err_raise(ERR_BAD_CONFIG, "line %d: slots=%.20s, needed 1 to %d", line, word,
                         LIMIT_RANKS);
    *out = (int32_t)v;
    return OK;
}

static enum err add(struct clu_hostfile *f, const char *name, int32_t slots, int32_t line)
{
    if (f->n_slots + slots > LIMIT_RANKS)
        return err_raise(ERR_BAD_CONFIG, "line %d: more than %d slots in all; slots are ranks: 1 for the processors of a box, or 1 for each of its cards", line,
                         LIMIT_RANKS);
    f->n_slots += slots;
    for (int32_t i = 0; i < f->n; i++) {
        if (strcmp(f->hosts[i].name, name)) continue;
        f->hosts[i].slots += slots;
        f->hosts[i].again = line;
        return OK;
    }
    snprintf(f->hosts[f->n].name, sizeof f->hosts[0].name, "%s", name);
    f->hosts[f->n].slots = slots;
    f->hosts[f->n].again = 0;
    f->hosts[f->n++].line = line;
    return OK;
}

/* "box:4", as mpirun's --host has it: Open MPI reads a name in it, and would start one rank. (An IPv6 address has more colons.) */
static enum err check_colon(const char *name, int32_t line)
{
    const char *colon = strchr(name, ':');
    if (!colon || !colon[1] || colon[1 + strspn(colon + 1, "0123456789")]) return OK;
    return err_raise(ERR_BAD_CONFIG, "line %d: '%.40s': in a hostfile slots are written '%.*s slots=%.5s'", line, name,
                     (int)MIN(colon - name, 40), name, colon + 1);
}

static enum err read_line(struct clu_hostfile *f, char *text, int32_t line)
{
    enum err rc = OK;
    char *save = NULL, *name = strtok_r(text, " \t\r", &save);
    int32_t slots = 1, max;
    if (!name) return OK;
    for (const char *c = name; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:@%[]", *c))
            return err_raise(ERR_BAD_CONFIG, "line %d: '%.40s' is no host name", line, name);
    if (strlen(name) > 63 || *name == '-')
        return err_raise(ERR_BAD_CONFIG, "line %d: '%.40s' is no host name", line, name);
    TRY(check_colon(name, line));
    for (char *w; (w = strtok_r(NULL, " \t\r", &save));) {
        if (!strncmp(w, "slots=", 6))
            TRY(slots_of(w + 6, line, &slots));
        else if (!strncmp(w, "max_slots=", 10))
            TRY(slots_of(w + 10, line, &max));
        else if (!strncmp(w, "max-slots=", 10))
            TRY(slots_of(w + 10, line, &max));
        else
            return err_raise(ERR_BAD_CONFIG, "line %d: '%.40s' is neither slots=N nor max_slots=N",
                             line, w);
    }
    rc = add(f, name, slots, line);
out:
    return rc;
}

enum err clu_hostfile_parse(struct clu_hostfile *out, const char *text, size_t n)
{
    enum err rc = OK;
    struct clu_hostfile f = {.n = 0};
    char line[512];
    int32_t number = 0;
    if (n > CLU_HOSTFILE_BYTES) return err_raise(ERR_BAD_CONFIG, "%zu bytes are no hostfile", n);
    for (const char *p = text, *end = text + n; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *stop = nl ? nl : end,
                   *hash = memchr(p, '#', (size_t)(stop - p));
        size_t len = (size_t)((hash ? hash : stop) - p);
        number++;
        if (len >= sizeof line || memchr(p, 0, len))
            return err_raise(ERR_BAD_CONFIG, "line %d is no line of a hostfile", number);
        memcpy(line, p, len);
        line[len] = 0;
        TRY(read_line(&f, line, number));
        p = nl ? nl + 1 : end;
    }
    if (!f.n) return err_raise(ERR_BAD_CONFIG, "it names no host");
    *out = f;
out:
    return rc;
}

enum err clu_hostfile_read(struct clu_hostfile *out, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_raise(ERR_IO, "cannot read the hostfile %s: %s", path, strerror(errno));
    char *text = xmalloc(CLU_HOSTFILE_BYTES + 1);
    size_t n = fread(text, 1, CLU_HOSTFILE_BYTES + 1, f);
    enum err e = ferror(f)
                     ? err_raise(ERR_IO, "cannot read the hostfile %s: %s", path, strerror(errno))
                     : clu_hostfile_parse(out, text, n);
    if (e == ERR_BAD_CONFIG) e = err_prefix(e, "the hostfile %s", path);
    fclose(f);
    free(text);
    return e;
}

void clu_hostfile_warn(const struct clu_hostfile *f)
{
    for (int32_t i = 0; i < f->n; i++)
        if (f->hosts[i].again)
            log_warn("plan", "the hostfile names %s on line %d and again on line %d: taken as one host with %d slots", f->hosts[i].name, f->hosts[i].line,
                     f->hosts[i].again, f->hosts[i].slots);
}
