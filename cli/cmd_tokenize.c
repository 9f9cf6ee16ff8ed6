/* cmd_tokenize.c: `tessera tokenize`: text, given or on stdin -> ids as JSON; --decode back. Any GGUF or checkpoint's directory with a vocabulary, whatever
 * its architecture. */
#include "cli/commands.h"

#include "base/conf.h"
#include "engine/model_text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct options { bool decode, special, parse_special, pieces; };

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"decode", CONF_FLAG, O(decode), NULL, 0, 0, "on|off", "a JSON array of ids on stdin -> text"},
    {"add-special-tokens", CONF_FLAG, O(special), "on", 0, 0, "on|off", "begin (and end) as the model asks: BOS, EOS"},
    {"parse-special", CONF_FLAG, O(parse_special), "on", 0, 0, "on|off", "'<|im_start|>' in the text is its control token"},
    {"pieces", CONF_FLAG, O(pieces), NULL, 0, 0, "on|off", "one line per token: id, then its bytes, \\xNN where they are not ASCII"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "tokenize", "tokenize MODEL [TEXT] [options]", "Text, here or on stdin, to token ids as a JSON array on stdout.", groups, 1, 2};

static void read_all(struct buf *out)
{
    char chunk[65536];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, stdin)) > 0;) buf_put(out, chunk, n);
}

static void print_pieces(const struct eng_tokenizer *t, const struct eng_tokens *ids)
{
    for (size_t i = 0; i < ids->n; i++) {
        struct buf piece = {0};
        eng_tokenizer_piece(t, ids->ids[i], true, &piece);
        printf("%7d  \"", ids->ids[i]);
        for (size_t k = 0; k < piece.len; k++) {
            unsigned char c = piece.data[k];
            if (c == '"' || c == '\\') printf("\\%c", c);
            else if (c < 0x20 || c >= 0x7f) printf("\\x%02x", c); /* bytes, not characters: a token may hold half a character */
            else putchar(c);
        }
        printf("\"\n");
        buf_free(&piece);
    }
}

static enum err decode(const struct eng_tokenizer *t, struct buf *in)
{
    json_error_t je;
    json_t *ids = json_loadb(buf_str(in), in->len, 0, &je), *id;
    struct buf text = {0};
    struct eng_tokens list = {0};
    size_t i;
    if (!json_is_array(ids)) {
        json_decref(ids);
        return err_raise(ERR_BAD_REQUEST, "what is given is not a JSON array of ids: %s", je.text);
    }
    enum err rc = OK;
    json_array_foreach(ids, i, id) {
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 || v >= eng_tokenizer_size(t)) {
            rc = err_raise(ERR_BAD_REQUEST, "element %zu of the array is no id of this vocabulary (0..%d)", i, eng_tokenizer_size(t) - 1);
            break;
        }
        eng_tokens_push(&list, (int32_t)v);
    }
    if (!rc) eng_tokenizer_decode(t, list.ids, list.n, true, &text);
    cmd_text(buf_str(&text), text.len);
    eng_tokens_free(&list);
    buf_free(&text);
    json_decref(ids);
    return rc;
}

static void encode(const struct eng_tokenizer *t, const struct options *o, const struct buf *in)
{
    struct eng_tokens ids = {0};
    unsigned flags = (o->special ? TOKENIZE_ADD_SPECIAL : 0) | (o->parse_special ? TOKENIZE_PARSE_SPECIAL : 0);
    eng_tokenizer_encode(t, (const char *)in->data, in->len, flags, &ids);
    if (o->pieces) print_pieces(t, &ids);
    else {
        putchar('[');
        for (size_t i = 0; i < ids.n; i++) printf("%s%d", i ? ", " : "", ids.ids[i]);
        printf("]\n");
    }
    eng_tokens_free(&ids);
}

int cmd_tokenize(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[2];
    int n_args;
    bool help;
    struct eng_model_file *f = NULL;
    struct eng_tokenizer *t = NULL;
    struct buf in = {0};
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    TRY(cmd_model(&args[0]));
    TRY(eng_model_file_open(&f, args[0]));
    TRY(eng_model_tokenizer(&t, f));
    if (n_args > 1) buf_puts(&in, args[1]);
    else read_all(&in);
    if (o.decode) TRY(decode(t, &in));
    else encode(t, &o, &in);
out:
    buf_free(&in);
    eng_tokenizer_close(t);
    eng_model_file_close(f);
    return rc ? cmd_fail(rc) : 0;
}
