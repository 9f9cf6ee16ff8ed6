/* vocab_special.c: tokens that are cut out of a text before anything else, and those that end a
 * generation.
 *
 * A trie walked from every position that can begin one: leftmost, then longest. */
#include "engine/text/vocab.h"

#include <stdlib.h>
#include <string.h>

/* Tokens that end an answer in one family or another, whatever the file says of their type: a text
 * that merely spells one of them must not be able to end or begin a turn. */
static const char *const ends[] = {
    "<|eot_id|>",      "<|im_end|>",
    "<|end|>",         "<|endoftext|>",
    "<|eom_id|>",      "<|end_of_text|>",
    "<|eot|>",         "<end_of_turn>",
    "<EOT>",           "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>", "<|endofturn|>",
    "<|return|>",      "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
    "<|call|>",
};

bool eng_tokenizer_known_end(struct text_span s)
{
    for (size_t i = 0; i < COUNT_OF(ends); i++)
        if (s.n == strlen(ends[i]) && !memcmp(s.p, ends[i], s.n)) return true;
    return false;
}

/* SentencePiece's user-defined tokens spell a space as U+2581, the text does not. */
static size_t unescape(char out[TRIE_MAX_LEN], struct text_span s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; n++) {
        bool space = i + 3 <= s.n && !memcmp(s.p + i, "\xE2\x96\x81", 3);
        out[n] = space ? ' ' : s.p[i];
        i += space ? 3 : 1;
    }
    return n;
}

static void add_eog(struct vocab *v, int32_t id)
{
    if (id < 0) return;
    int32_t i = 0;
    while (i < v->n_eog && v->eog[i] < id) i++;
    if (i < v->n_eog && v->eog[i] == id) return;
    memmove(v->eog + i + 1, v->eog + i, sizeof *v->eog * (size_t)(v->n_eog - i));
    v->eog[i] = id;
    v->n_eog++;
}

/* gpt-oss ends an answer by the two others, and by <|end|> each of its messages. */
static bool ends_a_message(const struct vocab *v, const char *text)
{
    return !strcmp(text, "<|end|>") && vocab_find(v, "<|return|>", 10) >= 0 && vocab_find(v, "<|call|>", 8) >= 0;
}

static void find_ends(struct vocab *v, const struct eng_vocab_src *src)
{
    v->eog = xmalloc(sizeof *v->eog * (COUNT_OF(ends) + 2 + (size_t)src->n_eog));
    for (int32_t i = 0; i < src->n_eog; i++) add_eog(v, src->eog[i]);
    add_eog(v, v->eos);
    add_eog(v, v->eot);
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        int32_t id = vocab_find(v, ends[i], strlen(ends[i]));
        if (id < 0) continue;
        if (!ends_a_message(v, ends[i])) add_eog(v, id);
        v->type[id] = TOKEN_CONTROL;
    }
}

void vocab_special_open(struct vocab *v, const struct eng_vocab_src *src, bool spm)
{
    char text[TRIE_MAX_LEN];
    find_ends(v, src);
    for (int32_t id = 0; id < v->n; id++) {
        struct text_span s = vocab_text(v, id);
        uint8_t type = v->type[id];
        if (s.n > TRIE_MAX_LEN) continue;
        if (spm && type == TOKEN_USER)
            trie_add(&v->trie, text, unescape(text, s), id);
        else if (type == TOKEN_USER || type == TOKEN_CONTROL || type == TOKEN_UNKNOWN)
            trie_add(&v->trie, s.p, s.n, id);
    }
}

int32_t vocab_special_at(const struct vocab *v, const char *p, size_t n, bool control, size_t *len)
{
    int32_t best = -1, at = 0;
    for (size_t i = 0; i < n; i++) {
        at = trie_step(&v->trie, at, (uint8_t)p[i]);
        if (!at) break;
        int32_t id = v->trie.at[at].value;
        if (id < 0 || (!control && v->type[id] != TOKEN_USER)) continue;
        best = id;
        *len = i + 1;
    }
    return best;
}
