/* model_text.c: see model_text.h. Keys: the GGUF specification, "tokenizer.*". */
#include "engine/model_text.h"

#include "engine/text/hf_tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_EOS = 64 }; /* ids that end a generation */

struct arrays {
    const struct model_kv *tokens, *scores, *types, *merges;
    struct text_span *token_spans, *merge_spans;
    float *score_values;
    int32_t *type_values, *eog;
    char *model, *pre;
};

static enum err find_array(const struct eng_model_file *f, const char *key, enum model_kv_kind kind, uint64_t n,
                           const struct model_kv **out)
{
    const struct model_kv *kv = eng_model_file_find(f, key);
    if (kv && (kv->kind != KV_ARRAY || (kv->a.kind != kind && kv->a.n)))
        return err_raise(ERR_BAD_FILE, "%s: key %s is not the array it should be", eng_model_file_path(f), key);
    if (kv && n && kv->a.n != n)
        return err_raise(ERR_BAD_FILE, "%s: key %s has %llu elements, the vocabulary %llu", eng_model_file_path(f), key,
                         (unsigned long long)kv->a.n, (unsigned long long)n);
    *out = kv;
    return OK;
}

static struct text_span *spans(const struct model_kv *kv)
{
    struct text_span *s = xcalloc(kv->a.n + 1, sizeof *s);
    for (uint64_t i = 0; i < kv->a.n; i++) {
        struct model_str m = eng_model_file_array_str(kv, i);
        s[i] = (struct text_span){m.p, m.n};
    }
    return s;
}

static enum err read_arrays(struct arrays *a, const struct eng_model_file *f)
{
    enum err rc;
    TRY(eng_model_file_string(f, "tokenizer.ggml.model", &a->model));
    TRY(eng_model_file_string(f, "tokenizer.ggml.pre", &a->pre));
    TRY(find_array(f, "tokenizer.ggml.tokens", KV_STRING, 0, &a->tokens));
    if (!a->tokens || !a->model || !a->tokens->a.n || a->tokens->a.n > 1 << 24)
        return err_raise(ERR_BAD_FILE, "%s: no vocabulary (tokenizer.ggml.model and tokenizer.ggml.tokens)", eng_model_file_path(f));
    uint64_t n = a->tokens->a.n;
    TRY(find_array(f, "tokenizer.ggml.scores", KV_FLOAT, n, &a->scores));
    TRY(find_array(f, "tokenizer.ggml.token_type", KV_INT, n, &a->types));
    TRY(find_array(f, "tokenizer.ggml.merges", KV_STRING, 0, &a->merges));
    a->token_spans = spans(a->tokens);
    if (a->merges) a->merge_spans = spans(a->merges);
    if (a->scores) {
        a->score_values = xcalloc(n, sizeof(float));
        for (uint64_t i = 0; i < n; i++) a->score_values[i] = (float)eng_model_file_array_float(a->scores, i);
    }
    if (a->types) {
        a->type_values = xcalloc(n, sizeof(int32_t));
        for (uint64_t i = 0; i < n; i++) a->type_values[i] = (int32_t)eng_model_file_array_int(a->types, i);
    }
out:
    return rc;
}

static enum err read_id(const struct eng_model_file *f, const char *key, int64_t n, int32_t *out)
{
    int64_t v;
    enum err e = eng_model_file_int(f, key, -1, -1, n - 1, &v);
    if (!e) *out = (int32_t)v;
    return e;
}

/* Ends beside eos and eot: eom, and those of a list that only files of ours have. */
static enum err read_ends(struct arrays *a, struct eng_vocab_src *s, const struct eng_model_file *f)
{
    enum err rc;
    int32_t eom;
    const struct model_kv *list;
    TRY(find_array(f, "tokenizer.ggml.eos_token_ids", KV_INT, 0, &list));
    TRY(read_id(f, "tokenizer.ggml.eom_token_id", s->n_tokens, &eom));
    uint64_t n = list ? list->a.n : 0;
    if (n > MOST_EOS)
        return err_raise(ERR_BAD_FILE, "%s: key tokenizer.ggml.eos_token_ids has %llu ids, at most %d are possible", eng_model_file_path(f),
                         (unsigned long long)n, MOST_EOS);
    a->eog = xcalloc(n + 1, sizeof *a->eog);
    for (uint64_t i = 0; i < n; i++) a->eog[s->n_eog++] = (int32_t)eng_model_file_array_int(list, i);
    if (eom >= 0) a->eog[s->n_eog++] = eom;
    s->eog = a->eog;
out:
    return rc;
}

static enum err gguf_tokenizer(struct eng_tokenizer **out, const struct eng_model_file *f)
{
    enum err rc;
    struct arrays a = {0};
    struct eng_vocab_src s = {0};
    TRY(read_arrays(&a, f));
    int64_t n = (int64_t)a.tokens->a.n;
    bool spm = !strcmp(a.model, "llama");
    s.model = a.model;
    s.pre = a.pre;
    s.n_tokens = (int32_t)n;
    s.tokens = a.token_spans;
    s.scores = a.score_values;
    s.types = a.type_values;
    s.n_merges = a.merges ? (int64_t)a.merges->a.n : 0;
    s.merges = a.merge_spans;
    TRY(read_id(f, "tokenizer.ggml.bos_token_id", n, &s.bos));
    TRY(read_id(f, "tokenizer.ggml.eos_token_id", n, &s.eos));
    TRY(read_id(f, "tokenizer.ggml.eot_token_id", n, &s.eot));
    TRY(read_id(f, "tokenizer.ggml.unknown_token_id", n, &s.unk));
    TRY(read_ends(&a, &s, f));
    /* what the file leaves out: SentencePiece's customary ids and habits */
    if (spm && s.bos < 0 && n > 2) s.bos = 1;
    if (spm && s.eos < 0 && n > 2) s.eos = 2;
    if (spm && s.unk < 0) s.unk = 0;
    TRY(eng_model_file_bool(f, "tokenizer.ggml.add_bos_token", s.bos >= 0 && (spm || (a.pre && !strncmp(a.pre, "llama", 5))), &s.add_bos));
    TRY(eng_model_file_bool(f, "tokenizer.ggml.add_eos_token", false, &s.add_eos));
    TRY(eng_model_file_bool(f, "tokenizer.ggml.add_space_prefix", spm, &s.add_space_prefix));
    TRY(eng_tokenizer_open(out, &s));
out:
    free(a.token_spans);
    free(a.merge_spans);
    free(a.score_values);
    free(a.type_values);
    free(a.eog);
    free(a.model);
    free(a.pre);
    return rc;
}

/* ---- a checkpoint's directory: its tokenizer's files ---- */

enum { LARGEST_FILE = 1 << 28, N_FILES = 8 };

struct beside {
    struct buf text[N_FILES];
    int32_t eos[MOST_EOS];
    char *arch;
    struct eng_hf_files files;
};

static enum err read_beside(struct beside *b, const struct eng_model_file *f)
{
    enum err rc = OK;
    struct {
        const char *name;
        struct text_span *to;
    } list[N_FILES] = {
        {"tokenizer.json", &b->files.tokenizer_json}, {"tokenizer_config.json", &b->files.tokenizer_config},
        {"special_tokens_map.json", &b->files.special_tokens_map}, {"added_tokens.json", &b->files.added_tokens},
        {"vocab.json", &b->files.vocab}, {"merges.txt", &b->files.merges}, {"tokenizer.model", &b->files.model},
        {"chat_template.jinja", &b->files.chat_template},
    };
    bool there;
    b->files.where = eng_model_file_path(f);
    for (size_t i = 0; i < N_FILES; i++) {
        TRY(eng_model_file_beside(f, list[i].name, LARGEST_FILE, &b->text[i], &there));
        if (there) *list[i].to = (struct text_span){buf_str(&b->text[i]), b->text[i].len};
    }
    TRY(eng_model_file_string(f, "general.architecture", &b->arch));
    TRY(read_id(f, "tokenizer.ggml.bos_token_id", 1 << 24, &b->files.bos));
    const struct model_kv *eos = eng_model_file_find(f, "tokenizer.ggml.eos_token_ids");
    for (uint64_t i = 0; eos && i < eos->a.n && i < MOST_EOS; i++)
        b->eos[b->files.n_eos++] = (int32_t)eng_model_file_array_int(eos, i);
    b->files.eos = b->eos;
    const struct model_tensor *embd = eng_model_file_tensor_find(f, "token_embd.weight");
    if (embd) b->files.n_rows = embd->dims[1];
    b->files.model_type = b->arch;
out:
    return rc;
}

static void beside_free(struct beside *b)
{
    for (size_t i = 0; i < N_FILES; i++) buf_free(&b->text[i]);
    free(b->arch);
}

enum err eng_model_tokenizer(struct eng_tokenizer **out, const struct eng_model_file *f)
{
    struct beside b = {0};
    if (!eng_model_file_is_dir(f)) return gguf_tokenizer(out, f);
    enum err rc = read_beside(&b, f);
    if (!rc) rc = eng_hf_tokenizer_open(out, &b.files);
    beside_free(&b);
    return rc;
}

enum err eng_model_vocab(const struct eng_model_file *f, bool sentencepiece, enum err (*take)(void *user, const struct eng_vocab_src *src), void *user)
{
    struct beside b = {0};
    ASSERT(eng_model_file_is_dir(f));
    enum err rc = read_beside(&b, f);
    if (!rc && sentencepiece && b.files.model.p) b.files.tokenizer_json = (struct text_span){0};
    if (!rc) rc = eng_hf_tokenizer_source(&b.files, take, user);
    beside_free(&b);
    return rc;
}

enum err eng_model_template(char **out, const struct eng_model_file *f)
{
    struct beside b = {0};
    if (!eng_model_file_is_dir(f)) return eng_model_file_string(f, "tokenizer.chat_template", out);
    enum err rc = read_beside(&b, f);
    if (!rc) rc = eng_hf_template(out, &b.files);
    beside_free(&b);
    return rc;
}
