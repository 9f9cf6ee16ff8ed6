/* Any bytes as the body of a request: refused with an error the client can read, or understood
 * within every bound. The first byte chooses the endpoint. */
#include "coordinator/api/request.h"
#include "coordinator/api/chat_in.h"
#include "coordinator/api/completions_in.h"
#include "coordinator/api/embeddings_in.h"
#include "coordinator/api/sampling_in.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_VOCAB = 128 };

/* One token per ASCII character, the last one an end. */
static struct eng_tokenizer *open_tokenizer(void)
{
    static char texts[N_VOCAB];
    static struct text_span tokens[N_VOCAB];
    static int32_t types[N_VOCAB];
    struct eng_tokenizer *t = NULL;
    for (int i = 0; i < N_VOCAB; i++) {
        texts[i] = (char)(i ? i : 1);
        tokens[i] = (struct text_span){i == N_VOCAB - 1 ? "<|im_end|>" : &texts[i],
                                       i == N_VOCAB - 1 ? 10 : 1};
        types[i] = i == N_VOCAB - 1 ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    struct eng_vocab_src src = {.model = "gpt2",
                                .n_tokens = N_VOCAB,
                                .tokens = tokens,
                                .types = types,
                                .bos = -1,
                                .eos = N_VOCAB - 1,
                                .eot = -1,
                                .unk = -1};
    enum err rc = eng_tokenizer_open(&t, &src);
    ASSERT(!rc);
    return t;
}

static struct crd_api *open_api(void)
{
    static const char *const names[] = {"m", NULL};
    static struct crd_api api;
    struct eng_template *t = NULL;
    const char *source = eng_template_builtin("chatml");
    enum err rc = eng_template_compile(&t, source, strlen(source));
    ASSERT(!rc);
    api = (struct crd_api){.tokenizer = open_tokenizer(),
                           .style = crd_style_of(source),
                           .chat_template = t,
                           .model_names = names,
                           .max_context = 200,
                           .max_n = 8,
                           .model.d_model = 64,
                           .pooling = POOL_LAST};
    return &api;
}

static enum err understand(struct crd_request *r, const struct crd_api *api, enum crd_endpoint ep,
                           const uint8_t *data, size_t n, struct crd_api_error *e)
{
    enum err rc;
    int64_t longest = 0;
    TRY(crd_request_parse(r, api, ep, (const char *)data, n, e));
    if (r->chat) TRY(crd_chat_render(r, api, 0, e));
    TRY(crd_prompts_tokenize(r, api, e));
    if (r->pool) return crd_embeddings_fit(r, api, e);
    for (int32_t i = 0; i < r->n_prompts; i++)
        longest = MAX(longest, (int64_t)r->prompts[i].tokens.n);
    TRY(crd_sampling_fit(r, api, longest, e));
out:
    return rc;
}

static void check(const struct crd_request *r, const struct crd_api *api)
{
    const struct sampling *s = &r->sampling;
    ASSERT(s->temperature >= 0 && s->top_p > 0 && s->top_p <= 1 && s->min_p >= 0 && s->min_p <= 1 &&
           s->top_k >= 0);
    ASSERT(s->repetition_penalty > 0 && s->n_logprobs >= -1 && s->n_logprobs <= LIMIT_LOGPROBS);
    ASSERT(s->n_stop_ids <= LIMIT_STOP_IDS && s->n_bias <= LIMIT_LOGIT_BIAS &&
           r->n_stops <= REQUEST_MAX_STOPS);
    ASSERT(r->n >= 1 && r->n <= api->max_n && r->n_prompts >= 1);
    ASSERT(s->max_tokens >= 1 && s->min_tokens <= s->max_tokens);
    ASSERT(r->vector.dimensions >= 0 && r->vector.dimensions <= api->model.d_model);
    for (int32_t i = 0; i < r->n_prompts; i++) {
        const struct eng_tokens *t = &r->prompts[i].tokens;
        ASSERT(t->n >= 1 && (int64_t)t->n + (r->pool ? 0 : s->max_tokens) <= api->max_context);
        for (size_t k = 0; k < t->n; k++) ASSERT(t->ids[k] >= 0 && t->ids[k] < N_VOCAB);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct crd_api *api;
    struct crd_request r = {0};
    struct crd_api_error e = {0};
    struct buf out = {0};
    if (!api) api = open_api();
    if (!n) return 0;
    if (!understand(&r, api, (enum crd_endpoint)(data[0] % (ENDPOINT_OLLAMA_EMBEDDINGS + 1)),
                    data + 1, n - 1, &e)) {
        check(&r, api);
        ASSERT(!e.status);
    } else {
        ASSERT(e.status >= 400 && e.message);
        crd_api_error_json(&e, &out);
        json_t *j = json_loadb((const char *)out.data, out.len, JSON_ALLOW_NUL, NULL);
        ASSERT(j);
        json_decref(j);
    }
    crd_request_close(&r);
    crd_api_error_clear(&e);
    buf_free(&out);
    return 0;
}
