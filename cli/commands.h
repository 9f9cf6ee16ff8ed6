/* commands.h: one function per command: argv from the command's name on; returns the exit code. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

int cmd_serve(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_worker(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_render(int argc, char **argv);
int cmd_grammar(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_imatrix(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_status(int argc, char **argv);

/* Say the last error's sentence as this program does, and give its exit code (2 for configuration, 130 after Ctrl-C, else 1). */
#include "base/err.h"
int cmd_fail(enum err e);

/* What a model or a file says, to stdout: as it is, but to a terminal as base/plain.h has it. */
void cmd_text(const char *text, size_t n);

/* A MODEL argument: a path that is there stays as it is; ORG/NAME[:QUANT] becomes the path of what `tessera pull` brought, if it is here. Own: nobody
 * frees it. Err NOT_FOUND: it has that form, is no path, and was not pulled. */
enum err cmd_model(const char **arg);
/* What an order from elsewhere names: an absolute path stays as it is, ORG/NAME[:QUANT] becomes the path of what was pulled here. Own: as cmd_model.
 * Err BAD_REQUEST (neither), NOT_FOUND. */
enum err cmd_model_named(const char **arg);

#endif
