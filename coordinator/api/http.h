/* http.h: the handlers of the endpoints. Private to api; api.h has the table. */
#ifndef COORDINATOR_API_HTTP_H
#define COORDINATOR_API_HTTP_H

#include "coordinator/api/api.h"
#include "coordinator/api/api_error.h"

/* Answer with this error; clears it. */
void crd_http_error(struct gw_exchange *x, struct crd_api_error *e, const char *extra_headers);
/* The same in the dialect of this path. */
void crd_http_refuse(struct gw_exchange *x, const char *path, struct crd_api_error *e,
                     const char *extra_headers);
/* Answer with out as JSON; frees it. */
void crd_http_json(struct gw_exchange *x, int32_t status, struct buf *out);

/* http_text.c */
void crd_http_tokenize(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_detokenize(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_apply_template(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_count_tokens(void *api, struct gw_exchange *x, const struct gw_request *r);
/* http_status.c */
void crd_http_health(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_metrics(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_version(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_cluster(void *api, struct gw_exchange *x, const struct gw_request *r);
/* http_ollama.c */
void crd_http_ollama_tags(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_ollama_ps(void *api, struct gw_exchange *x, const struct gw_request *r);
/* A client of Ollama's that wants the model loaded: no prompt, or no messages. True: it has been
 * answered. */
bool crd_http_ollama_load(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r,
                          const char *field);
/* GET /, by which clients see that somebody is there. */
void crd_http_root(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_ollama_show(void *api, struct gw_exchange *x, const struct gw_request *r);
/* models.c */
void crd_http_models(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_model(struct crd_api *api, struct gw_exchange *x, const char *id);

#endif
