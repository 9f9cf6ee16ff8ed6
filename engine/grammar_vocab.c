/* grammar_vocab.c: see grammar_vocab.h. */
#include "engine/grammar_vocab.h"

static void piece(void *user, int32_t id, struct buf *out)
{
    const struct eng_tokenizer *t = user;
    bool control = id < eng_tokenizer_size(t) && eng_tokenizer_type(t, id) == TOKEN_CONTROL;
    if (control) buf_putc(out, (char)GRAMMAR_CONTROL);
    eng_tokenizer_piece(t, id, control, out);
}

struct eng_grammar_vocab *eng_grammar_vocab_of(const struct eng_tokenizer *t, int32_t n)
{
    struct eng_grammar_vocab *v;
    int32_t eog[GRAMMAR_VOCAB_EOG], n_eog = eng_tokenizer_eog(t, eog, GRAMMAR_VOCAB_EOG);
    eng_grammar_vocab_open(&v, n, piece, (void *)(uintptr_t)t, eog, n_eog);
    return v;
}
