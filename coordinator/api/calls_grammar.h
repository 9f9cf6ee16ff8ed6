/* calls_grammar.h: what an answer's whole text keeps to: calls that must be made, in the template's
 * own syntax and by the schemas of the tools offered; and what was asked for of the answer, behind
 * thoughts where the model writes them. */
#ifndef COORDINATOR_API_CALLS_GRAMMAR_H
#define COORDINATOR_API_CALLS_GRAMMAR_H

#include "coordinator/api/request.h"

/* After rendering (r->reply is settled): r->grammar becomes that of the whole text. Err
 * BAD_REQUEST: a tool's schema cannot be honoured; *e names keyword and place. */
MUST_USE enum err crd_calls_grammar(struct crd_request *r, const struct crd_api *api,
                                    struct crd_api_error *e);

/* Tokens that suffice for the shortest text of r->grammar and its end; 0: there is none. */
int32_t crd_calls_need(const struct crd_request *r, const struct crd_api *api);

/* The vocabulary as grammars see it, made when it is first asked for. Thr: any. */
struct crd_grammar_vocab;
struct crd_grammar_vocab *crd_grammar_vocab_open(const struct eng_tokenizer *t); /* t borrowed */
void crd_grammar_vocab_close(struct crd_grammar_vocab *v);

#endif
