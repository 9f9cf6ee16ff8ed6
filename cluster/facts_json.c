/* facts_json.c: see facts.h. One table says the members of the line in both directions. */
#include "cluster/facts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { TEXT, INT, REAL, BOOL, HASH };
struct member {
    const char *key;
    enum kind kind;
    size_t at, size;
};

#define F(kind, f) {#f, kind, offsetof(struct clu_facts, f), sizeof((struct clu_facts *)0)->f}
static const struct member members[] = {
    F(TEXT, host), F(TEXT, resolves), F(TEXT, version), F(TEXT, mpi), F(TEXT, kernel),
    F(TEXT, driver), F(INT, n_cards), F(TEXT, cards), F(TEXT, cards_error), F(INT, card_pairs),
    F(INT, card_pairs_apart), F(TEXT, card_apart), F(TEXT, nccl), F(TEXT, thp), F(INT, packages), F(INT, cores), F(REAL, cpu_limit), F(REAL, load),
    F(INT, mem_total), F(INT, mem_available), F(INT, mem_limit), F(INT, nofile_soft),
    F(INT, nofile_hard), F(INT, memlock), F(INT, shm_total), F(INT, shm_free), F(BOOL, rdma),
    F(INT, unix_us), F(TEXT, model), F(INT, model_bytes), F(INT, model_files),
    F(TEXT, model_error), F(HASH, model_head), F(HASH, model_places), F(HASH, model_tail)};

#define N(kind, f) \
    {#f, kind, offsetof(struct clu_facts_nic, f), sizeof((struct clu_facts_nic *)0)->f}
static const struct member nic_members[] = {N(TEXT, name), N(TEXT, address), N(INT, prefix),
                                            N(INT, mtu), N(INT, speed_mbit)};

static json_t *value(const struct member *m, const void *from)
{
    const void *p = (const char *)from + m->at;
    char hash[20];
    json_t *text;
    switch (m->kind) {
    case INT: return json_integer(*(const int64_t *)p);
    case REAL: return json_real(*(const double *)p);
    case BOOL: return json_boolean(*(const bool *)p);
    case HASH:
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)*(const uint64_t *)p);
        return json_string(hash);
    case TEXT: break;
    }
    text = json_string(p);
    return text ? text : json_string("?"); /* a name that is no UTF-8 */
}

static json_t *object(const struct member *m, size_t n, const void *from)
{
    json_t *o = json_object();
    for (size_t i = 0; i < n; i++) json_object_set_new(o, m[i].key, value(&m[i], from));
    return o;
}

void clu_facts_write(const struct clu_facts *f, struct buf *out)
{
    json_t *o = object(members, COUNT_OF(members), f), *nics = json_array();
    char *line = NULL;
    for (int64_t i = 0; i < f->n_nics; i++)
        json_array_append_new(nics, object(nic_members, COUNT_OF(nic_members), &f->nics[i]));
    json_object_set_new(o, "nics", nics);
    while (free(line), line = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6)),
           line && strlen(line) >= CLU_FACTS_LINE && json_array_size(nics))
        json_array_remove(nics, json_array_size(nics) - 1);
    buf_puts(out, line ? line : "{}");
    free(line);
    json_decref(o);
}

static bool take(const struct member *m, const json_t *v, void *to)
{
    void *p = (char *)to + m->at;
    switch (m->kind) {
    case INT: *(int64_t *)p = json_integer_value(v); return json_is_integer(v);
    case REAL: *(double *)p = json_number_value(v); return json_is_number(v);
    case BOOL: *(bool *)p = json_is_true(v); return json_is_boolean(v);
    case HASH:
        if (json_is_string(v)) *(uint64_t *)p = strtoull(json_string_value(v), NULL, 16);
        return json_is_string(v);
    case TEXT: break;
    }
    if (json_is_string(v)) snprintf(p, m->size, "%s", json_string_value(v));
    return json_is_string(v);
}

/* A member that is absent keeps its default: another version may know less, and is named by its
 * version then. */
static enum err take_all(const struct member *m, size_t n, const json_t *o, void *to)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_object_get(o, m[i].key);
        if (v && !take(&m[i], v, to))
            return err_raise(ERR_BAD_FILE, "the facts have no proper '%s'", m[i].key);
    }
    return OK;
}

enum err clu_facts_parse(struct clu_facts *out, const char *line)
{
    enum err rc;
    struct clu_facts f = {.model_bytes = CLU_FACTS_UNKNOWN};
    json_error_t e;
    json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, &e), *nics;
    if (!json_is_object(o)) {
        rc = err_raise(ERR_BAD_FILE, "not a line of facts: '%.60s'", line);
        goto out;
    }
    TRY(take_all(members, COUNT_OF(members), o, &f));
    if (!f.host[0] || !f.version[0])
        TRY(err_raise(ERR_BAD_FILE, "the facts name no host or no version: '%.60s'", line));
    nics = json_object_get(o, "nics");
    if (json_array_size(nics) > CLU_FACTS_NICS)
        TRY(err_raise(ERR_BAD_FILE, "the facts list %zu addresses: at most %d are possible",
                      json_array_size(nics), CLU_FACTS_NICS));
    for (f.n_nics = 0; f.n_nics < (int64_t)json_array_size(nics); f.n_nics++)
        TRY(take_all(nic_members, COUNT_OF(nic_members), json_array_get(nics, (size_t)f.n_nics),
                     &f.nics[f.n_nics]));
    *out = f;
out:
    json_decref(o);
    return rc;
}
