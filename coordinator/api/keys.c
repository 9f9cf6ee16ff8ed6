/* keys.c: see keys.h. */
#include "coordinator/api/keys.h"
#include "coordinator/api/keys_file.h"

#include "base/log.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LOOK_EVERY_US = 1000000 };

struct crd_keys {
    struct crd_keys_conf conf;
    char *path;
    struct crd_key **at; /* [n], each Own */
    int32_t n;
    struct crd_key everybody;
    struct stat seen;
    int64_t looked_us;
};

static void digest(const char *secret, uint8_t hash[KEY_HASH])
{
    crypto_hash_sha256(hash, (const unsigned char *)secret, strlen(secret));
}

static uint64_t tenant_of(const char *name)
{
    uint8_t h[KEY_HASH];
    uint64_t id;
    digest(name, h);
    memcpy(&id, h, sizeof id);
    return id | 1; /* 0 is nobody */
}

static struct crd_key *by_name(struct crd_keys *k, const char *name)
{
    for (int32_t i = 0; i < k->n; i++)
        if (!strcmp(k->at[i]->name, name)) return k->at[i];
    return NULL;
}

static void take(struct crd_keys *k, const struct crd_key_line *line, int64_t now_us)
{
    struct crd_key *key = by_name(k, line->name);
    if (!key) {
        key = xcalloc(1, sizeof *key);
        k->at = xrealloc(k->at, (size_t)(k->n + 1) * sizeof *k->at);
        k->at[k->n++] = key;
        memcpy(key->name, line->name, sizeof key->name);
        key->tenant = tenant_of(line->name);
        crd_quota_open(&key->quota, &line->limits, now_us);
    }
    crd_quota_change(&key->quota, &line->limits, now_us);
    memcpy(key->hash, line->hash, sizeof key->hash);
    key->weight = line->weight;
    key->listed = true;
}

static enum err read_all(struct crd_keys *k, int64_t now_us)
{
    enum err rc = OK;
    struct crd_key_line *lines = NULL;
    int32_t n = 0;
    if (k->path) TRY(crd_keys_file_read(k->path, &k->conf.limits, &lines, &n));
    for (int32_t i = 0; i < k->n; i++) k->at[i]->listed = false;
    for (int32_t i = 0; i < n; i++) take(k, &lines[i], now_us);
    if (k->conf.secret) {
        struct crd_key_line env = {.name = "env", .weight = 1, .limits = k->conf.limits};
        digest(k->conf.secret, env.hash);
        take(k, &env, now_us);
    }
out:
    free(lines);
    return rc;
}

enum err crd_keys_open(struct crd_keys **out, const struct crd_keys_conf *conf, int64_t now_us)
{
    enum err rc = OK;
    struct crd_keys *k = xcalloc(1, sizeof *k);
    k->conf = *conf;
    k->path = conf->path ? xstrdup(conf->path) : NULL;
    k->conf.secret = conf->secret ? xstrdup(conf->secret) : NULL;
    k->everybody = (struct crd_key){.name = "everybody", .weight = 1};
    crd_quota_open(&k->everybody.quota, &conf->limits, now_us);
    if (k->path && stat(k->path, &k->seen))
        rc = err_raise(ERR_IO, "cannot read the keys in %s: %s", k->path, strerror(errno));
    if (rc) goto out;
    TRY(read_all(k, now_us));
    if (k->path && !k->n) log_warn("api", "%s holds no key: nobody may ask until one stands there", k->path);
    k->looked_us = now_us;
    *out = k;
    k = NULL;
out:
    crd_keys_close(k);
    return rc;
}

void crd_keys_close(struct crd_keys *k)
{
    if (!k) return;
    for (int32_t i = 0; i < k->n; i++) free(k->at[i]);
    free(k->at);
    free(k->path);
    free((void *)(uintptr_t)k->conf.secret);
    free(k);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Keys that are neither listed nor in use. */
static void forget(struct crd_keys *k)
{
    int32_t n = 0;
    for (int32_t i = 0; i < k->n; i++) {
        if (k->at[i]->listed || k->at[i]->quota.n_active)
            k->at[n++] = k->at[i];
        else
            free(k->at[i]);
    }
    k->n = n;
}

void crd_keys_refresh(struct crd_keys *k, int64_t now_us)
{
    struct stat now;
    if (!k->path || now_us - k->looked_us < LOOK_EVERY_US) return;
    k->looked_us = now_us;
    if (stat(k->path, &now) || same_file(&now, &k->seen)) return;
    k->seen = now;
    if (read_all(k, now_us)) {
        log_warn("api", "the API keys stay as they were: %s", err_text());
        return;
    }
    forget(k);
    log_info("api", "%s has changed: %d API key(s)", k->path, k->n);
}

struct crd_key *crd_keys_find(struct crd_keys *k, const char *secret)
{
    uint8_t hash[KEY_HASH];
    struct crd_key *found = NULL;
    if (!k->path && !k->conf.secret) return &k->everybody;
    if (!secret) return NULL;
    digest(secret, hash);
    /* all of them, each in constant time: how long it takes says nothing */
    for (int32_t i = 0; i < k->n; i++)
        if (!sodium_memcmp(k->at[i]->hash, hash, sizeof hash) && k->at[i]->listed) found = k->at[i];
    return found;
}

struct crd_key *crd_keys_resume(struct crd_keys *k, uint64_t tenant)
{
    struct crd_key *found = !k->path && !k->conf.secret && !tenant ? &k->everybody : NULL;
    for (int32_t i = 0; i < k->n; i++)
        if (k->at[i]->tenant == tenant && k->at[i]->listed) found = k->at[i];
    if (found) found->quota.n_active++;
    return found;
}

bool crd_keys_public_metrics(const struct crd_keys *k)
{
    return k->conf.public_metrics;
}

void crd_keys_metrics(const struct crd_keys *k, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t at;
    } rows[] = {
        {"key_requests_total", "Requests of an API key.", offsetof(struct crd_key, n_requests)},
        {"key_refused_total", "Requests of an API key over its limits.",
         offsetof(struct crd_key, n_refused)},
        {"key_prompt_tokens_total", "Prompt tokens of an API key.",
         offsetof(struct crd_key, n_prompt)},
        {"key_generation_tokens_total", "Generated tokens of an API key.",
         offsetof(struct crd_key, n_completion)},
    };
    for (size_t r = 0; r < COUNT_OF(rows) && k->n; r++) {
        buf_printf(out, "# HELP tessera:%s %s\n# TYPE tessera:%s counter\n", rows[r].name,
                   rows[r].help, rows[r].name);
        for (int32_t i = 0; i < k->n; i++) {
            uint64_t v;
            memcpy(&v, (const char *)k->at[i] + rows[r].at, sizeof v);
            buf_printf(out, "tessera:%s{key=\"%s\"} %llu\n", rows[r].name, k->at[i]->name,
                       (unsigned long long)v);
        }
    }
}
