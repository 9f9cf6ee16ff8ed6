/* replay.c: a fuzz target without a fuzzer: every file named, or every file of a folder named, is given to it once. So what was
 * found once is tested in every build, with any compiler. */
#include "base/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat s;
    if (!f || fstat(fileno(f), &s)) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    /* exactly as large as the input: reading past its end is seen by a sanitizer */
    size_t n = (size_t)s.st_size;
    uint8_t *data = xmalloc(n ? n : 1);
    n = fread(data, 1, n, f);
    fclose(f);
    fprintf(stderr, "%s\n", path); /* the last line names what failed */
    LLVMFuzzerTestOneInput(data, n);
    free(data);
    return 1;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++) {
        char path[4096];
        DIR *d = opendir(argv[i]);
        if (!d) {
            n += replay(argv[i]);
            continue;
        }
        for (struct dirent *e; (e = readdir(d));) {
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            n += replay(path);
        }
        closedir(d);
    }
    fprintf(stderr, "%d inputs\n", n);
    return n ? 0 : 77;
}
