/* access.c: see access.h. */
#include "coordinator/api/access.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/admin_http.h"
#include "coordinator/api/http.h"
#include "coordinator/api/ledger.h"

#include <string.h>
#include <strings.h>

static bool is_public(const struct crd_keys *keys, const char *path)
{
    return !strcmp(path, "/health") || (!strcmp(path, "/metrics") && crd_keys_public_metrics(keys));
}

const char *crd_access_secret(struct gw_exchange *x)
{
    static const char bearer[] = "Bearer ";
    const char *a = gw_header(x, "Authorization");
    if (a && !strncasecmp(a, bearer, sizeof bearer - 1)) {
        a += sizeof bearer - 1;
        return a + strspn(a, " ");
    }
    return gw_header(x, "x-api-key");
}

static void note_refused(const struct crd_api *api, const struct gw_request *r, const char *key, int32_t status)
{
    crd_ledger_add(api->ledger, &(struct crd_ledger_entry){.id = r->request_id, .key = key, .path = r->path, .status = status});
}

bool crd_access_gate(void *user, struct gw_exchange *x, struct gw_request *r)
{
    struct crd_api *api = user;
    struct crd_api_error e = {0};
    if (api->admin && crd_admin_is_path(r->path)) return crd_admin_gate(api->admin, x, r);
    if (!api->keys) return true;
    crd_keys_refresh(api->keys, clock_us());
    const char *secret = crd_access_secret(x);
    r->caller = crd_keys_find(api->keys, secret);
    if (r->caller || is_public(api->keys, r->path)) return true;
    crd_api_refuse(&e, 401, NULL, "%s",
                   secret
                       ? "Incorrect API key provided."
                   : !strcmp(r->path, "/metrics")
                       ? "/metrics needs an API key: `Authorization: Bearer KEY`, or start the server with --public-metrics."
                       : "You didn't provide an API key. Send it as `Authorization: Bearer KEY`.");
    note_refused(api, r, NULL, 401);
    crd_http_refuse(x, r->path, &e, "WWW-Authenticate: Bearer\n");
    return false;
}

bool crd_access_begin(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r)
{
    struct crd_key *key = r->caller;
    struct crd_api_error e = {0};
    struct buf headers = {0};
    int32_t retry_s;
    if (!key) return true;
    const char *too_much = crd_quota_begin(&key->quota, clock_us(), &retry_s);
    key->n_requests++;
    if (!too_much) return true;
    key->n_refused++;
    crd_api_refuse(&e, 429, NULL, "Rate limit reached for API key '%s': %s. Try again in %d s.",
                   key->name, too_much, retry_s);
    crd_quota_headers(&key->quota, clock_us(), &headers);
    buf_printf(&headers, "Retry-After: %d\n", retry_s);
    log_debug("api", "%s: %s", r->request_id, e.message);
    note_refused(api, r, key->name, 429);
    crd_http_refuse(x, r->path, &e, buf_str(&headers));
    buf_free(&headers);
    return false;
}

void crd_access_charge(struct crd_key *key, int64_t n_prompt, int64_t n_completion)
{
    if (!key || (!n_prompt && !n_completion)) return;
    key->n_prompt += (uint64_t)n_prompt;
    key->n_completion += (uint64_t)n_completion;
    crd_quota_charge(&key->quota, n_prompt + n_completion, clock_us());
}

void crd_access_end(struct crd_key *key)
{
    if (key) crd_quota_end(&key->quota);
}
