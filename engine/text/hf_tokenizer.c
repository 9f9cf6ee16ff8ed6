/* hf_tokenizer.c: picks the file to read and puts the parts together. */
#include "engine/text/hf_tokenizer.h"
#include "engine/text/hf_build.h"
#include "engine/text/pretoken.h"

#include <stdlib.h>
#include <string.h>

static enum err from_tokenizer_json(struct hf_build *b)
{
    enum err rc;
    size_t i;
    json_t *token;
    TRY(hf_json_parse(&b->json, b->files->tokenizer_json, b->files, "tokenizer.json"));
    const json_t *model = json_object_get(b->json, "model"),
                 *added = json_object_get(b->json, "added_tokens");
    TRY(hf_rules_read(b, b->json));
    if (!strcmp(b->src.model, "unigram")) {
        TRY(hf_vocab_unigram(b, model));
    } else {
        TRY(hf_vocab_json(b, json_object_get(model, "vocab"), "tokenizer.json"));
        if (strncmp(b->src.model, "word", 4)) TRY(hf_merges_json(b, json_object_get(model, "merges")));
    }
    TRY(hf_vocab_room(b, json_array_size(added), "tokenizer.json"));
    json_array_foreach(added, i, token)
    {
        const json_t *id = json_object_get(token, "id");
        TRY(hf_vocab_added(b, json_is_integer(id) ? json_integer_value(id) : -1, token,
                           "tokenizer.json"));
    }
    TRY(hf_special_read(b, b->json));
    b->src.rules = &b->rules;
out:
    return rc;
}

static enum err from_sentencepiece(struct hf_build *b)
{
    enum err rc;
    TRY(sp_model_read(b));
    TRY(hf_special_added(b));
    sp_model_cut(b);
    TRY(hf_special_read(b, NULL));
    b->src.scores = b->scores;
out:
    return rc;
}

/* vocab.json and merges.txt say nothing of how a text is cut: the class does. */
static enum err class_rules(struct hf_build *b)
{
    static const struct {
        const char *class, *model_type, *rule;
        bool nfc;
    } classes[] = {{"GPT2Tokenizer", "gpt2", "gpt-2", false},
                   {"Qwen2Tokenizer", "qwen2", "qwen2", true},
                   {"Qwen2Tokenizer", "qwen3", "qwen2", true}};
    const char *class = json_string_value(json_object_get(b->config, "tokenizer_class"));
    const char *type = b->files->model_type;
    for (size_t i = 0; i < COUNT_OF(classes); i++) {
        size_t n = strlen(classes[i].class);
        bool is = class ? !strncmp(class, classes[i].class, n) &&
                              (!class[n] || !strcmp(class + n, "Fast"))
                        : type && !strcmp(type, classes[i].model_type);
        if (!is) continue;
        enum err rc = OK;
        if (classes[i].nfc) rc = hf_rules_step(b, (struct text_step){.kind = TEXT_NFC});
        return rc ? rc
                  : hf_rules_split(b, pretoken_rule_find(classes[i].rule)->stages[0],
                                   SPLIT_ISOLATED, false);
    }
    return err_raise(
        ERR_UNSUPPORTED,
        "%s: vocab.json of tokenizer class '%.60s' is not supported (known: GPT2Tokenizer, "
        "Qwen2Tokenizer); save its tokenizer.json",
        b->files->where, class ? class : "(not named)");
}

static enum err from_vocab_json(struct hf_build *b)
{
    enum err rc;
    b->src.model = "gpt2";
    TRY(class_rules(b));
    TRY(hf_json_parse(&b->json, b->files->vocab, b->files, "vocab.json"));
    TRY(hf_vocab_json(b, b->json, "vocab.json"));
    if (!b->files->merges.p)
        return err_raise(ERR_BAD_FILE, "%s: vocab.json is there, merges.txt is not",
                         b->files->where);
    hf_merges_text(b, b->files->merges);
    TRY(hf_special_added(b));
    TRY(hf_special_read(b, NULL));
    b->src.rules = &b->rules;
out:
    return rc;
}

enum err eng_hf_tokenizer_source(const struct eng_hf_files *f, enum err (*take)(void *user, const struct eng_vocab_src *src), void *user)
{
    enum err rc = OK;
    struct hf_build b = {.files = f, .src = {.bos = -1, .eos = -1, .eot = -1, .unk = -1}};
    if (f->tokenizer_config.p)
        TRY(hf_json_parse(&b.config, f->tokenizer_config, f, "tokenizer_config.json"));
    if (f->tokenizer_json.p)
        TRY(from_tokenizer_json(&b));
    else if (f->model.p)
        TRY(from_sentencepiece(&b));
    else if (f->vocab.p)
        TRY(from_vocab_json(&b));
    else
        TRY(err_raise(
            ERR_BAD_FILE,
            "%s: no tokenizer: none of tokenizer.json, tokenizer.model and vocab.json is there",
            f->where));
    b.src.n_tokens = b.n;
    b.src.tokens = b.tokens;
    b.src.types = b.types;
    b.rules.steps = b.steps;
    b.rules.splits = b.splits;
    b.rules.added = b.added;
    TRY(take(user, &b.src));
out:
    json_decref(b.json);
    json_decref(b.config);
    free(b.tokens);
    free(b.types);
    free(b.scores);
    free(b.added);
    arena_free(&b.a);
    return rc ? err_prefix(rc, "tokenizer") : OK;
}

static enum err open_it(void *user, const struct eng_vocab_src *src) { return eng_tokenizer_open(user, src); }

enum err eng_hf_tokenizer_open(struct eng_tokenizer **out, const struct eng_hf_files *f) { return eng_hf_tokenizer_source(f, open_it, out); }

/* Of several templates: the one named "default", else the first. */
static const char *pick(const json_t *list)
{
    size_t i;
    json_t *e;
    const char *first = NULL;
    json_array_foreach(list, i, e)
    {
        const char *name = json_string_value(json_object_get(e, "name")),
                   *text = json_string_value(json_object_get(e, "template"));
        if (name && text && !strcmp(name, "default")) return text;
        if (!first) first = text;
    }
    return first;
}

enum err eng_hf_template(char **out, const struct eng_hf_files *f)
{
    json_t *config = NULL;
    *out = NULL;
    if (f->chat_template.p) {
        *out = xstrndup(f->chat_template.p, f->chat_template.n);
        return OK;
    }
    if (!f->tokenizer_config.p) return OK;
    enum err rc = hf_json_parse(&config, f->tokenizer_config, f, "tokenizer_config.json");
    if (rc) return rc;
    const json_t *t = json_object_get(config, "chat_template");
    const char *text = json_is_array(t) ? pick(t) : json_string_value(t);
    if (text) *out = xstrdup(text);
    json_decref(config);
    return OK;
}
