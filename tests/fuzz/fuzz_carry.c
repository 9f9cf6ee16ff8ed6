/* Any bytes as the headers of a model that another rank sent: refused with a sentence, or a model whose every key and tensor can be looked at.
 * Nothing may stay in the directory for passing files. Seeds: corpus/carry. */
#include "engine/file/model_carry.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char tmp[64];

static void set_up(void)
{
    snprintf(tmp, sizeof tmp, "/dev/shm/tessera-fuzz-carry-%d", (int)getpid());
    if (mkdir(tmp, 0700) || setenv("TMPDIR", tmp, 1)) abort();
}

static void check_empty(void)
{
    DIR *d = opendir(tmp);
    if (!d) abort();
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            fprintf(stderr, "left behind: %s\n", e->d_name);
            abort();
        }
    closedir(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct eng_model_file *f = NULL;
    if (!tmp[0]) set_up();
    err_set_text("%s", "");
    enum err e = eng_model_carry_open(&f, data, n, "/models/carried");
    if (e ? !*err_text() || f : !f) abort();
    if (!e) {
        if (strcmp(eng_model_file_path(f), "/models/carried")) abort();
        for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) {
            const struct model_tensor *t = eng_model_file_tensor(f, i);
            if (t->offset < 0 || t->bytes < 0 || t->offset + t->bytes > eng_model_file_bytes(f)) abort();
        }
    }
    eng_model_file_close(f);
    check_empty();
    return 0;
}
