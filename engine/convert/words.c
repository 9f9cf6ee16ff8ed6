/* words.c: see words.h. tokenizer.json says in steps and expressions what GGUF says by a name, so the name is looked for: the
 * first whose tokenizer makes the same ids of a text with everything in it that such rules tell apart. */
#include "engine/convert/words.h"

#include "base/base.h"
#include "engine/model_text.h"
#include "engine/text/hf_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_FILE = 1 << 28 };

/* Letters, numbers, spaces, lines, contractions, other scripts, signs, emoji. */
static const char probe[] =
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, "
    "'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL HELLO World camelCaseWord snake_case x=1;y[2]{z}<a>|b|~^ naïve façade "
    "Ünïcödé ﬁ ½ ² Ⅷ\r\n\r\n  indented\n\ttabbed $3,000.50 50% #tag @user https://a.b/c?d=e&f=g "
    " 1 12 123 1234 12345 123456 1234567 12,345.67 1a2b3c 2024-01-31 v1.2.3 0x1F4A the10th  the  two   three    of the  12 to 345  67 and\t12\t\t345\r\n 12345 "
    "the a in is of and to was for on it be as at by this had not are but from or have an they which one you were all her she there would their we him been has "
    "don't WE'LL I'm he'd they've DON'T ''s 's 't 're x'ly  two  spaces Once upon a time there was a little girl named Lily. Привет мир 你好世界 한국어 日本語 العربية   trailing   ";

static const char *const names[] = {"llama-bpe", "qwen2", "gpt-2", "smollm", "falcon", "deepseek-llm", "deepseek-coder", "deepseek-v3", "gpt-4o", "tekken",
                                    "bloom", "viking", "bailingmoe", "seed-coder", "chameleon", "qwen35", "command-r", "glm4", "dbrx", "default"};

struct words {
    struct eng_gguf_out *out;
    const struct eng_model_file *in;
    const struct eng_tokenizer *own; /* as the checkpoint says */
};

static bool same_of(const struct eng_tokenizer *a, const struct eng_tokenizer *b, const char *text)
{
    struct eng_tokens x = {0}, y = {0};
    eng_tokenizer_encode(a, text, strlen(text), TOKENIZE_ADD_SPECIAL, &x);
    eng_tokenizer_encode(b, text, strlen(text), TOKENIZE_ADD_SPECIAL, &y);
    bool same = x.n == y.n && !memcmp(x.ids, y.ids, x.n * sizeof *x.ids);
    eng_tokens_free(&x);
    eng_tokens_free(&y);
    return same;
}

/* Also of texts that begin with a letter, with one space, with several. */
static bool same_ids(const struct eng_tokenizer *a, const struct eng_tokenizer *b)
{
    static const char *const from[] = {"", "I've been", " 1 12 123", "   trailing", "  two", "the a in"};
    for (size_t i = 0; i < COUNT_OF(from); i++) {
        const char *text = strstr(probe, from[i]);
        ASSERT(text);
        if (!same_of(a, b, text)) return false;
    }
    return true;
}

/* Does GGUF's way with this vocabulary give the checkpoint's ids? */
static bool fits(const struct words *w, struct eng_vocab_src src, const char *model, const char *pre)
{
    struct eng_tokenizer *t = NULL;
    src.model = model;
    src.pre = pre;
    src.rules = NULL;
    src.n_behind_bos = src.n_before_eos = 0; /* GGUF has no keys for them */
    bool ok = !eng_tokenizer_open(&t, &src) && same_ids(w->own, t);
    eng_tokenizer_close(t);
    return ok;
}

/* Merges as "left right". Own: free() of the list and its first text's room. */
static struct model_str *join_merges(const struct eng_vocab_src *src, char **room)
{
    struct model_str *out = xcalloc((size_t)src->n_merges + 1, sizeof *out);
    size_t bytes = 1;
    for (int64_t i = 0; i < src->n_merges; i++) bytes += src->merges[i].n + (src->merge_rights ? src->merge_rights[i].n + 1 : 0);
    char *p = *room = xmalloc(bytes);
    for (int64_t i = 0; i < src->n_merges; i++) {
        out[i].p = p;
        memcpy(p, src->merges[i].p, src->merges[i].n);
        p += src->merges[i].n;
        if (src->merge_rights) {
            *p++ = ' ';
            memcpy(p, src->merge_rights[i].p, src->merge_rights[i].n);
            p += src->merge_rights[i].n;
        }
        out[i].n = (uint64_t)(p - out[i].p);
    }
    return out;
}

/* SentencePiece's scores that merge in the order of the list: the earlier, the higher. */
static float *scores_of_merges(const struct eng_vocab_src *src, const struct model_str *merges)
{
    float *s = xcalloc((size_t)src->n_tokens + 1, sizeof *s);
    struct eng_vocab_src plain = *src;
    struct eng_tokenizer *t = NULL;
    for (int32_t i = 0; i < src->n_tokens; i++) s[i] = -1e9f;
    if (!eng_tokenizer_open(&t, &plain)) /* finds tokens by their text */
        for (int64_t i = 0; i < src->n_merges; i++) {
            char text[512];
            size_t n = 0;
            for (uint64_t k = 0, cut = 0; k < merges[i].n && n < sizeof text - 1; k++) {
                if (merges[i].p[k] == ' ' && !cut++) continue;
                text[n++] = merges[i].p[k];
            }
            text[n] = 0;
            int32_t id = eng_tokenizer_find(t, text);
            if (id >= 0 && s[id] < -1e8f) s[id] = -(float)i;
        }
    eng_tokenizer_close(t);
    return s;
}

/* Ends beside eos that no program finds by their text get the two further keys that GGUF has (GLM-4: <|user|>, <|observation|>), and all of them one
 * of ours, as the checkpoint's own list is longer than that. */
static void put_ends(struct eng_gguf_out *o, const struct eng_vocab_src *s)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    size_t used = s->eot >= 0;
    for (int32_t i = 0; i < s->n_eog && used < COUNT_OF(keys); i++)
        if (s->eog[i] != s->eos && s->eog[i] != s->eot && !eng_tokenizer_known_end(s->tokens[s->eog[i]]))
            eng_gguf_out_u32(o, keys[used++], (uint32_t)s->eog[i]);
    if (s->n_eog) eng_gguf_out_i32s(o, "tokenizer.ggml.eos_token_ids", s->eog, (uint64_t)s->n_eog);
}

static void put_ids(struct eng_gguf_out *o, const struct eng_vocab_src *s)
{
    const struct { const char *key; int32_t id; } ids[] = {{"tokenizer.ggml.bos_token_id", s->bos}, {"tokenizer.ggml.eos_token_id", s->eos},
                                                          {"tokenizer.ggml.eot_token_id", s->eot}, {"tokenizer.ggml.unknown_token_id", s->unk}};
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        if (ids[i].id >= 0) eng_gguf_out_u32(o, ids[i].key, (uint32_t)ids[i].id);
    put_ends(o, s);
    eng_gguf_out_bool(o, "tokenizer.ggml.add_bos_token", s->add_bos);
    eng_gguf_out_bool(o, "tokenizer.ggml.add_eos_token", s->add_eos);
    eng_gguf_out_bool(o, "tokenizer.ggml.add_space_prefix", s->add_space_prefix);
}

static void put_vocab(struct eng_gguf_out *o, const struct eng_vocab_src *s, const char *model, const char *pre, int32_t n_rows)
{
    int32_t n = MAX(n_rows, s->n_tokens);
    struct model_str *tokens = xcalloc((size_t)n + 1, sizeof *tokens);
    int32_t *types = xcalloc((size_t)n + 1, sizeof *types);
    char *fill = xmalloc((size_t)n * 16 + 1);
    for (int32_t i = 0; i < n; i++) { /* rows without a token get a name that no text has */
        bool there = i < s->n_tokens && s->tokens[i].n;
        int len = there ? 0 : snprintf(fill + (size_t)i * 16, 16, "[PAD%d]", i);
        tokens[i] = there ? (struct model_str){s->tokens[i].p, s->tokens[i].n} : (struct model_str){fill + (size_t)i * 16, (uint64_t)len};
        types[i] = !there ? TOKEN_UNUSED : s->types ? s->types[i] : TOKEN_NORMAL;
    }
    eng_gguf_out_str(o, "tokenizer.ggml.model", model, strlen(model));
    eng_gguf_out_str(o, "tokenizer.ggml.pre", pre, strlen(pre));
    eng_gguf_out_strs(o, "tokenizer.ggml.tokens", tokens, (uint64_t)n);
    eng_gguf_out_i32s(o, "tokenizer.ggml.token_type", types, (uint64_t)n);
    if (s->scores) {
        float *scores = xcalloc((size_t)n + 1, sizeof *scores);
        for (int32_t i = 0; i < n; i++) scores[i] = i < s->n_tokens ? s->scores[i] : -1e9f;
        eng_gguf_out_f32s(o, "tokenizer.ggml.scores", scores, (uint64_t)n);
        free(scores);
    }
    put_ids(o, s);
    free(tokens);
    free(types);
    free(fill);
}

static enum err put_bytes_bpe(struct words *w, struct eng_vocab_src *s, int32_t n_rows)
{
    const char *found = NULL;
    for (size_t i = 0; i < COUNT_OF(names) && !found; i++)
        if (fits(w, *s, "gpt2", names[i])) found = names[i];
    if (!found)
        return err_raise(ERR_UNSUPPORTED, "%s: the steps of tokenizer.json are none that a GGUF file has a name for: the file would make other ids of a text",
                         eng_model_file_path(w->in));
    char *room;
    struct model_str *merges = join_merges(s, &room);
    put_vocab(w->out, s, "gpt2", found, n_rows);
    eng_gguf_out_strs(w->out, "tokenizer.ggml.merges", merges, (uint64_t)s->n_merges);
    free(merges);
    free(room);
    return OK;
}

static enum err put_sentencepiece(struct words *w, struct eng_vocab_src *s, int32_t n_rows)
{
    enum err rc = OK;
    char *room = NULL;
    struct model_str *merges = NULL;
    float *scores = NULL;
    if (!s->scores) {
        merges = join_merges(s, &room);
        s->scores = scores = scores_of_merges(s, merges);
        s->add_space_prefix = eng_tokenizer_space_prefix(w->own);
    }
    if (!strcmp(s->model, "unigram"))
        rc = err_raise(ERR_UNSUPPORTED, "%s: a tokenizer of type Unigram with bytes for what it lacks is none that a GGUF file has a name for: serve the checkpoint itself",
                       eng_model_file_path(w->in));
    else if (fits(w, *s, "llama", "default")) put_vocab(w->out, s, "llama", "default", n_rows);
    else rc = err_raise(ERR_UNSUPPORTED, "%s: this tokenizer.json cannot be said as a GGUF file's SentencePiece model: %s", eng_model_file_path(w->in),
                        eng_tokenizer_find(w->own, "\xE2\x96\x81") >= 0 ? "put its tokenizer.model beside it" : "serve the checkpoint itself");
    free(merges);
    free(room);
    free(scores);
    return rc;
}

static enum err take(void *user, const struct eng_vocab_src *src)
{
    struct words *w = user;
    struct eng_vocab_src s = *src;
    const struct model_tensor *embd = eng_model_file_tensor_find(w->in, "token_embd.weight");
    int32_t n_rows = embd ? (int32_t)MIN(embd->dims[1], 1 << 24) : 0;
    static const struct { const char *model, *type; } nameless[] = {{"wordpiece", "WordPiece"}, {"wordlevel", "WordLevel"}};
    for (size_t i = 0; i < COUNT_OF(nameless); i++)
        if (!strcmp(s.model, nameless[i].model))
            return err_raise(ERR_UNSUPPORTED, "%s: a tokenizer of type %s is none that a GGUF file is written with here: serve the checkpoint itself",
                             eng_model_file_path(w->in), nameless[i].type);
    return !strcmp(s.model, "gpt2") ? put_bytes_bpe(w, &s, n_rows) : put_sentencepiece(w, &s, n_rows);
}

enum err conv_words(struct eng_gguf_out *out, const struct eng_model_file *in, bool *there)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    enum err rc = OK;
    struct eng_tokenizer *own = NULL;
    struct buf text = {0};
    char *template = NULL;
    *there = false;
    for (size_t i = 0; i < COUNT_OF(files) && !*there; i++) TRY(eng_model_file_beside(in, files[i], LARGEST_FILE, &text, there));
    if (!*there) { /* llama.cpp's word for it */
        eng_gguf_out_str(out, "tokenizer.ggml.model", "no_vocab", 8);
        goto out;
    }
    TRY(eng_model_tokenizer(&own, in));
    struct words w = {.out = out, .in = in, .own = own};
    /* tokenizer.model has the scores that GGUF wants; tokenizer.json's rules decide whether they say the same */
    rc = eng_model_vocab(in, true, take, &w);
    if (rc == ERR_UNSUPPORTED) rc = eng_model_vocab(in, false, take, &w);
    if (rc) goto out;
    TRY(eng_model_template(&template, in));
    if (template) eng_gguf_out_str(out, "tokenizer.chat_template", template, strlen(template));
out:
    buf_free(&text);
    eng_tokenizer_close(own);
    free(template);
    return rc;
}
