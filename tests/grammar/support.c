/* support.c: see support.h. */
#include "tests/grammar/support.h"

#include "base/rng.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct grammar_source source_of(enum grammar_kind kind, uint32_t flags, const char *text)
{
    return (struct grammar_source){
        .kind = kind, .flags = flags, .text = text, .n = text ? (int32_t)strlen(text) : 0};
}

struct eng_grammar *compile(enum grammar_kind kind, uint32_t flags, const char *text,
                            const struct eng_grammar_vocab *v)
{
    struct eng_grammar *g = NULL;
    struct grammar_source src = source_of(kind, flags, text);
    return eng_grammar_compile(&g, &src, v) ? NULL : g;
}

bool holds(struct eng_grammar *g, const char *text, size_t n)
{
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    bool yes = eng_grammar_advance(s, text, n) == n && eng_grammar_accepts(s);
    eng_grammar_state_close(s);
    return yes;
}

bool matches(enum grammar_kind kind, uint32_t flags, const char *grammar, const char *text)
{
    struct eng_grammar *g = compile(kind, flags, grammar, NULL);
    if (!g) fail_msg("%s: %s", grammar, err_text());
    bool yes = holds(g, text, strlen(text));
    eng_grammar_close(g);
    return yes;
}

const char *shared(const char *path)
{
    static char full[1024];
    const char *root = getenv("TESSERA_SHARED");
    snprintf(full, sizeof full, "%s/%s", root ? root : "../shared", path);
    return full;
}

char *read_file(const char *path, size_t *n)
{
    struct buf b = {0};
    char chunk[65536];
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    for (size_t k; (k = fread(chunk, 1, sizeof chunk, f)) > 0;) buf_put(&b, chunk, k);
    fclose(f);
    *n = b.len;
    return buf_take(&b);
}

/* ---- vocabularies ---- */

static void small_token(void *user, int32_t id, struct buf *out)
{
    static const char *const words[] = {
        "{\"",   "\":",  "\", \"", "\":\"",  "\"}",      "},{",          "[[",      "]]",    "true",
        "false", "null", "name",   "00",     "12",       "-1",           ".5",      "e+",    "  ",
        "\n",    "\n  ", "hello",  " world", "\xC3\xA9", "\xE2\x82\xAC", "\\n",     "\\u00", "abc",
        "ab",    "2024", "-01-",   ": ",     ", ",       "\"a\"",        "\"a\":1", "[]",    "{}"};
    (void)user;
    if (id < 256)
        buf_putc(out, (char)id);
    else if ((size_t)(id - 256) < COUNT_OF(words))
        buf_puts(out, words[id - 256]);
}

struct eng_grammar_vocab *small_vocab(void)
{
    struct eng_grammar_vocab *v;
    const int32_t eog = 299;
    eng_grammar_vocab_open(&v, 300, small_token, NULL, &eog, 1);
    return v;
}

struct tokens {
    char **p;
    size_t *n;
    int32_t count, cap;
};

static void push_token(struct tokens *t, const char *p, size_t n)
{
    if (t->count == t->cap) {
        t->cap = MAX(1024, 2 * t->cap);
        t->p = xrealloc(t->p, (size_t)t->cap * sizeof *t->p);
        t->n = xrealloc(t->n, (size_t)t->cap * sizeof *t->n);
    }
    t->p[t->count] = xmalloc(n + 1);
    memcpy(t->p[t->count], p, n);
    t->n[t->count++] = n;
}

/* Lines of "base64 rank". */
static bool read_ranks(struct tokens *t)
{
    size_t n;
    char *text = read_file(shared("data/tokenizers/llama3/tokenizer.model"), &n);
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (!text || !isalnum((unsigned char)text[0])) return free(text), false;
    for (char *p = text; p < text + n;) {
        char out[1024];
        size_t len = 0;
        uint32_t bits = 0, n_bits = 0;
        for (const char *d; *p && (d = strchr(digits, *p)) && len < sizeof out; p++) {
            bits = bits << 6 | (uint32_t)(d - digits);
            n_bits += 6;
            if (n_bits >= 8) n_bits -= 8, out[len++] = (char)(bits >> n_bits & 0xFF);
        }
        push_token(t, out, len);
        p = memchr(p, '\n', (size_t)(text + n - p));
        if (!p) break;
        p++;
    }
    free(text);
    return t->count > 1000;
}

static void synthesise(struct tokens *t)
{
    static const char *const ends[] = {"", "\"", "\",", "\":", "\"}", ",", " ", "."};
    uint64_t at = 1;
    for (int i = 0; i < 256; i++) push_token(t, (char[]){(char)i}, 1);
    while (t->count < 128000) {
        char w[32];
        size_t n = 0, len = 1 + rng_mix(at++) % 9;
        if (rng_mix(at++) % 2) w[n++] = ' ';
        for (size_t i = 0; i < len; i++) w[n++] = (char)('a' + rng_mix(at++) % 26);
        const char *end = rng_mix(at) % 16 < COUNT_OF(ends) ? ends[rng_mix(at) % 16] : "";
        memcpy(w + n, end, strlen(end));
        push_token(t, w, n + strlen(end));
        at++;
    }
}

static void large_token(void *user, int32_t id, struct buf *out)
{
    const struct tokens *t = user;
    if (id < t->count) buf_put(out, t->p[id], t->n[id]);
}

struct eng_grammar_vocab *large_vocab(int32_t *n, bool *real)
{
    struct tokens t = {0};
    struct eng_grammar_vocab *v;
    *real = read_ranks(&t);
    if (!*real) synthesise(&t);
    *n = t.count + 256;
    int32_t eog = t.count;
    eng_grammar_vocab_open(&v, *n, large_token, &t, &eog, 1);
    for (int32_t i = 0; i < t.count; i++) free(t.p[i]);
    free(t.p);
    free(t.n);
    return v;
}

/* ---- instances ---- */

static void add_name(json_t *order, const char *key)
{
    if (!json_object_get(order, key))
        json_object_set_new(order, key, json_integer((json_int_t)json_object_size(order)));
}

static void add_keys(json_t *order, const json_t *object)
{
    const char *key;
    json_t *v, *name;
    size_t i;
    json_object_foreach((json_t *)object, key, v)
    {
        add_name(order, key);
        json_array_foreach(v, i, name) if (json_is_string(name))
            add_name(order, json_string_value(name));
    }
    json_array_foreach((json_t *)object, i, name) if (json_is_string(name))
        add_name(order, json_string_value(name));
}

/* Every key the schema names, where it first does; what a schema says itself comes before its
 * parts. */
static void collect(const json_t *schema, json_t *order)
{
    static const char *const naming[] = {"properties", "required", "const", "dependentRequired",
                                         "dependentSchemas"};
    const char *key;
    json_t *v;
    size_t i;
    for (i = 0; i < COUNT_OF(naming); i++) add_keys(order, json_object_get(schema, naming[i]));
    json_array_foreach((json_t *)schema, i, v) collect(v, order);
    json_object_foreach((json_t *)schema, key, v) collect(v, order);
}

static void put_number(struct buf *out, const json_t *j)
{
    char text[64];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, json_real_value(j));
        if (strtod(text, NULL) == json_real_value(j)) break;
    }
    buf_puts(out, text);
    if (!strpbrk(text, ".e")) buf_puts(out, ".0");
}

static void put(struct buf *out, const json_t *j, const json_t *order);

static void put_member(struct buf *out, const char *key, const json_t *v, const json_t *order,
                       bool *first)
{
    if (!*first) buf_putc(out, ',');
    *first = false;
    json_t *k = json_string(key);
    put(out, k, order);
    json_decref(k);
    buf_putc(out, ':');
    put(out, v, order);
}

static void put(struct buf *out, const json_t *j, const json_t *order)
{
    const char *key;
    json_t *v, *at;
    size_t i;
    bool first = true;
    if (json_is_array(j)) {
        buf_putc(out, '[');
        json_array_foreach((json_t *)j, i, v)
        {
            if (i) buf_putc(out, ',');
            put(out, v, order);
        }
        buf_putc(out, ']');
    } else if (json_is_object(j)) {
        buf_putc(out, '{');
        json_object_foreach((json_t *)order, key, at) if ((v = json_object_get(j, key)))
            put_member(out, key, v, order, &first);
        json_object_foreach((json_t *)j, key, v) if (!json_object_get(order, key))
            put_member(out, key, v, order, &first);
        buf_putc(out, '}');
    } else if (json_is_real(j)) {
        put_number(out, j);
    } else {
        char *text = json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT);
        buf_puts(out, text);
        free(text);
    }
}

char *dump_in_order(const json_t *instance, const json_t *schema, size_t *n)
{
    struct buf out = {0};
    json_t *order = json_object();
    collect(schema, order);
    put(&out, instance, order);
    json_decref(order);
    *n = out.len;
    return buf_take(&out);
}
