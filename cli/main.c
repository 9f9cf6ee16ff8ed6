/* main.c: the one binary. */
#include "cli/commands.h"

#include "base/log.h"
#include "base/near.h"
#include "base/plain.h"
#include "proto/version.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct command {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", "the cluster and its gateway", cmd_serve},
    {"generate", "one-shot and offline batches, no HTTP", cmd_generate},
    {"perplexity", "how well a model foretells a text", cmd_perplexity},
    {"status", "what the running server does: ranks, requests, KV cache, speed", cmd_status},
    {"chat", "talk with the model of a running server", cmd_chat},
    {"drain", "ask a running server to finish and end", cmd_drain},
    {"reload", "ask a running server to serve another model, without a pause if memory allows", cmd_reload},
    {"pull", "fetch a model from the Hugging Face hub or a mirror", cmd_pull},
    {"list", "the models that were pulled", cmd_list},
    {"rm", "remove one of them", cmd_rm},
    {"worker", "what mpirun starts", cmd_worker},
    {"tokenize", "text to token ids and back", cmd_tokenize},
    {"render", "a conversation to the prompt the model sees", cmd_render},
    {"grammar", "is a text of a JSON Schema, regex, GBNF, choice or structural tag, and where not", cmd_grammar},
    {"plan", "what goes where, what fits, how fast; reads headers only", cmd_plan},
    {"doctor", "is this host or cluster healthy, and if not, what exactly", cmd_doctor},
    {"inspect", "header, tensors and sizes of a model file", cmd_inspect},
    {"imatrix", "which columns matter, measured over a text, for quantize", cmd_imatrix},
    {"quantize", "a model as a GGUF file of a smaller type", cmd_quantize},
    {"bench", "the engine's speed beside the machine's limits; the cost of a step; what more ranks bring; a server under load", cmd_bench},
};

int cmd_fail(enum err e)
{
    const char *text = err_text()[0] ? err_text() : err_short(e);
    fputs("tessera: ", stderr);
    plain_write(stderr, text, strlen(text));
    fputc('\n', stderr);
    return e == ERR_BAD_CONFIG ? 2 : e == ERR_CANCELLED ? 130 : 1;
}

void cmd_text(const char *text, size_t n)
{
    if (isatty(STDOUT_FILENO)) plain_write(stdout, text, n);
    else fwrite(text, 1, n, stdout);
}

static int usage(FILE *f)
{
    fprintf(f, "tessera %s: one large language model served from several unequal machines\n\nusage: tessera COMMAND [arguments]\n\n", TESSERA_VERSION);
    for (size_t i = 0; i < COUNT_OF(commands); i++) fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].what);
    fprintf(f, "  %-10s %s\n\ntessera COMMAND --help lists a command's options.\n", "version", "print the version");
    return f == stdout ? 0 : 2;
}

static const struct command *named(const char *word)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (!strcmp(commands[i].name, word)) return &commands[i];
    return NULL;
}

/* What other programs call it. */
static const struct {
    const char *word, *here;
} elsewhere[] = {
    {"run", "tessera serve MODEL, then tessera chat; without a server tessera generate MODEL --chat --prompt TEXT"},
    {"start", "tessera serve"},
    {"stop", "tessera drain"},
    {"show", "tessera inspect"},
    {"download", "tessera pull"},
    {"convert", "tessera quantize IN OUT F16 (or BF16, or a smaller type)"},
    {"ps", "tessera status"},
    {"ls", "tessera list"},
    {"remove", "tessera rm"},
    {"delete", "tessera rm"},
};

static int unknown(const char *word)
{
    for (size_t i = 0; i < COUNT_OF(elsewhere); i++)
        if (!strcmp(word, elsewhere[i].word)) {
            fprintf(stderr, "tessera: '%s' is no command; here it is: %s\n", word, elsewhere[i].here);
            return 2;
        }
    struct near s = {.word = word, .n = strlen(word)};
    for (size_t i = 0; i < COUNT_OF(commands); i++) near_see(&s, commands[i].name);
    if (near_best(&s)) fprintf(stderr, "tessera: '%s' is no command: is %s meant? (tessera --help lists them)\n", word, near_best(&s));
    else fprintf(stderr, "tessera: '%s' is no command (tessera --help lists them)\n", word);
    return 2;
}

/* A standard stream that is closed would be the next file that is opened, and what we print would go into it. */
static void open_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd ? O_WRONLY : O_RDONLY) < 0) return;
}

/* What could not be printed is no success, unless whoever read it has gone (`| head`). */
static int end(int status)
{
    struct pollfd reader = {.fd = STDOUT_FILENO};
    bool whole = !fflush(stdout) && !ferror(stdout);
    if (whole || (poll(&reader, 1, 0) == 1 && reader.revents & POLLERR)) return status;
    fputs("tessera: not all could be written to the standard output: is the disk full?\n", stderr);
    return status ? status : 1;
}

static int run(int argc, char **argv)
{
    if (argc < 2) return usage(stderr);
    const char *c = argv[1];
    if (!strcmp(c, "help") && argc > 2) { /* tessera help COMMAND */
        char help[] = "--help", *page[] = {argv[2], help, NULL};
        return named(argv[2]) ? named(argv[2])->run(2, page) : unknown(argv[2]);
    }
    if (!strcmp(c, "--help") || !strcmp(c, "-h") || !strcmp(c, "help")) return usage(stdout);
    if (!strcmp(c, "version") || !strcmp(c, "--version")) {
        printf("tessera %s\n", TESSERA_VERSION);
        return 0;
    }
    return named(c) ? named(c)->run(argc - 1, argv + 1) : unknown(c);
}

int main(int argc, char **argv)
{
    open_standard_streams();
    return end(run(argc, argv));
}
