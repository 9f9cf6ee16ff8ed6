/* conf.h: one table of options per command feeds the parser, --help and the environment (TESSERA_<NAME>).
 *
 * Precedence: argv, then environment, then the table's default. Unknown options, missing values and values
 * outside [min,max] are errors that name the option, or the one that was probably meant. `--name value` and `--name=value`; a FLAG alone means on;
 * `on` or `off` may follow. */
#ifndef BASE_CONF_H
#define BASE_CONF_H

#include "base/err.h"

#include <stdbool.h>

enum conf_type { CONF_FLAG, CONF_INT, CONF_SIZE, CONF_FLOAT, CONF_STR, CONF_ENUM, CONF_LIST, CONF_TITLE };

/* CONF_FLAG bool, CONF_INT int64_t, CONF_SIZE int64_t bytes ("512M", "8G", KiB-based), CONF_FLOAT double,
 * CONF_STR const char*, CONF_LIST const char* (may be given again: values with commas between them), CONF_ENUM int32_t (index into the '|'-separated
 * `arg`; '=' before a choice's other name).
 * CONF_TITLE is no option but a line of --help above those that follow: its text is `help`, its name "". */
struct conf_opt {
    const char *name;    /* without "--" */
    enum conf_type type;
    size_t offset;       /* into the command's struct */
    const char *def;     /* default as text; NULL: zero */
    double min, max;     /* for numbers; both 0: unchecked */
    const char *arg;     /* shown in --help: "N", "FILE", or "on|off|auto" for an enum */
    const char *help;
    const char *elsewhere; /* what other servers call it, words parted by spaces: for whoever types that; or NULL */
};

struct conf_table {
    const char *command;             /* "serve" */
    const char *synopsis;            /* "serve MODEL [options]" */
    const char *about;               /* a paragraph */
    const struct conf_opt *const *groups; /* NULL-terminated list of tables, each ending with name NULL */
    int min_args, max_args;          /* positional arguments */
};

/* Parse argv[1..] (argv[0] is the command) into *out. Positionals go to args[max_args].
 * Err BAD_CONFIG with one sentence. *want_help is set when --help was seen (then nothing is checked). */
MUST_USE enum err conf_parse(const struct conf_table *t, int argc, char **argv, void *out,
                             const char *args[], int *n_args, bool *want_help);
void conf_help(const struct conf_table *t); /* to stdout, folded to the terminal's width (elsewhere 120 columns) */

/* "512M" -> bytes. Err BAD_CONFIG. */
MUST_USE enum err conf_size(const char *s, int64_t *bytes);

#endif
