/* Loading: each byte of the file is read once however many ranks share it; a rank without the file gets it from the others;
 * what was packed once is found again, by any cut; damage and a full cache cost nothing but the saving. Results are the same
 * bits always. */
#include "engine/model/deal.h"
#include "engine/model/shard_file.h"
#include "tests/support/hf_write.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static const struct random_model plain = {.arch = "llama", .n_layer = 3, .d_model = 256, .n_head = 8, .n_kv_head = 2, .d_ffn = 768, .vocab = 700,
                                          .type = DTYPE_Q4_K, .embd_type = DTYPE_Q6_K, .seed = 3};

static const char *model(const char *name, const struct random_model *m)
{
    const char *path = scratch_path(name);
    if (access(path, F_OK) && random_model_write(m, path)) fail_msg("%s", err_text());
    return path;
}

static struct local_replica *opened(const struct local_replica_conf *c)
{
    struct local_replica *r = NULL;
    if (local_replica_open(&r, c)) fail_msg("%s", err_text());
    return r;
}

static int64_t tensor_bytes(const char *path)
{
    struct eng_model_file *f;
    int64_t sum = 0;
    if (eng_model_file_open(&f, path)) fail_msg("%s", err_text());
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) sum += eng_model_file_tensor(f, i)->bytes;
    eng_model_file_close(f);
    return sum;
}

static struct eng_load_stats sum_of(struct local_replica *r, int32_t n)
{
    struct eng_load_stats s = {0};
    for (int32_t i = 0; i < n; i++) {
        struct eng_engine_info x;
        local_replica_info(r, i, &x);
        s.read += x.loaded.read;
        s.received += x.loaded.received;
        s.sent += x.loaded.sent;
        s.cached += x.loaded.cached;
        s.mapped += x.loaded.mapped;
    }
    return s;
}

/* Logits of a short prompt; n of them. Own: free(). */
static float *logits_of(struct local_replica *r, size_t *n)
{
    static const int32_t prompt[] = {5, 42, 79, 116, 153, 190, 227};
    struct step_bounds b;
    struct sequence s = {.prompt = prompt, .n_prompt = COUNT_OF(prompt), .n_gen = 3, .sampling = sampling_default()};
    s.sampling.max_tokens = 3;
    s.sampling.temperature = 0;
    local_replica_bounds(r, &b);
    if (sequence_run(r, &s, 1, true)) fail_msg("%s", err_text());
    *n = (COUNT_OF(prompt) + 2) * (size_t)b.n_vocab;
    float *out = malloc(*n * sizeof *out);
    memcpy(out, s.logits, *n * sizeof *out);
    sequence_free(&s);
    return out;
}

/* Opens, compares with one rank's logits, and gives the sum of the ranks' counts. */
static struct eng_load_stats same_bits(const struct local_replica_conf *c, int32_t n)
{
    size_t a, b;
    struct local_replica_conf one = {.path = c->path};
    struct local_replica *r = opened(&one), *q = opened(c);
    float *want = logits_of(r, &a), *got = logits_of(q, &b);
    struct eng_load_stats s = sum_of(q, n);
    assert_int_equal(a, b);
    assert_memory_equal(want, got, a * sizeof *want);
    free(want);
    free(got);
    local_replica_close(r);
    local_replica_close(q);
    return s;
}

/* ---- reading once ---- */

static void each_byte_is_read_once_whatever_the_cut(void **state)
{
    (void)state;
    struct random_model tied = plain, biased = plain;
    tied.tied = true;
    biased.arch = "qwen2";
    biased.type = DTYPE_Q8_0;
    const char *paths[] = {model("plain.gguf", &plain), model("tied.gguf", &tied), model("biased.gguf", &biased)};
    static const int32_t cuts[][2] = {{1, 1}, {2, 1}, {3, 1}, {4, 1}, {1, 2}, {2, 2}, {1, 3}, {8, 1}};
    for (size_t m = 0; m < COUNT_OF(paths); m++)
        for (size_t i = 0; i < COUNT_OF(cuts); i++) {
            struct local_replica_conf c = {.path = paths[m], .tp = cuts[i][0], .pp = cuts[i][1]};
            struct eng_load_stats s = same_bits(&c, c.tp * c.pp);
            assert_int_equal(s.read, tensor_bytes(paths[m]));
            assert_int_equal(s.sent, s.received);
        }
}

static void a_rank_without_the_file_is_served(void **state)
{
    (void)state;
    const char *path = model("plain.gguf", &plain);
    for (uint64_t without = 1; without < 7; without++) { /* every set of three ranks but none and all */
        struct local_replica_conf c = {.path = path, .tp = 3, .without_file = without};
        struct eng_load_stats s = same_bits(&c, 3);
        assert_int_equal(s.read, tensor_bytes(path));
        assert_true(s.received > 0);
    }
    struct local_replica_conf all = {.path = path, .tp = 2, .without_file = 3};
    struct local_replica *r = NULL;
    assert_int_equal(local_replica_open(&r, &all), ERR_IO);
    assert_non_null(strstr(err_text(), "cannot open the model file"));
}

static void a_checkpoint_directory_travels_too(void **state)
{
    (void)state;
    struct local_replica_conf c = {.path = "tests/model/golden/qwen3", .pp = 2, .without_file = 2};
    struct eng_load_stats s = same_bits(&c, 2);
    assert_int_equal(s.read, tensor_bytes(c.path));
}

/* ---- dealing, with needs at random ---- */

static int by_row(const void *a, const void *b)
{
    const struct eng_need *x = a, *y = b;
    return x->tensor != y->tensor ? x->tensor - y->tensor : x->row0 - y->row0;
}

static void every_need_is_met_and_nothing_is_read_twice(void **state)
{
    (void)state;
    struct eng_model_file *f;
    if (eng_model_file_open(&f, model("plain.gguf", &plain))) fail_msg("%s", err_text());
    srand(11);
    for (int32_t round = 0; round < 300; round++) {
        enum { N = 5, MOST = 40 };
        struct eng_need needs[N][MOST];
        struct eng_deal_rank ranks[N];
        for (int32_t r = 0; r < N; r++) {
            ranks[r] = (struct eng_deal_rank){.has_file = r == 0 || rand() % 3, .group = rand() % 4 ? 0 : r, .needs = needs[r]};
            if (ranks[r].group) ranks[r].has_file = true;
            for (int32_t i = 0; i < (int32_t)eng_model_file_n_tensors(f) && ranks[r].n_needs < MOST; i++) {
                const struct model_tensor *t = eng_model_file_tensor(f, i);
                if (rand() % 4 == 0) continue;
                int32_t rows = (int32_t)t->dims[1], k = (int32_t)t->dims[0], a = rand() % rows, u = k / 32;
                struct eng_need x = {i, a, a + 1 + rand() % (rows - a), 0, k};
                if (rows > 1 && rand() % 2) {
                    x.k0 = rand() % u * 32;
                    x.k1 = x.k0 + (1 + rand() % (u - x.k0 / 32)) * 32;
                }
                needs[r][ranks[r].n_needs++] = x;
            }
            qsort(needs[r], (size_t)ranks[r].n_needs, sizeof needs[r][0], by_row);
        }
        struct eng_deal_item *items;
        int32_t cursor[N] = {0}, met_rows[N] = {0}, want_rows[N] = {0}, n = eng_deal(f, ranks, N, 0, 4096, &items);
        for (int32_t i = 0; i < n; i++) {
            const struct eng_deal_item *x = &items[i];
            if (i) assert_true(x[-1].tensor <= x->tensor);
            if (i && x[-1].tensor == x->tensor) assert_true(x[-1].row1 <= x->row0); /* no row twice */
            for (int32_t r = 0; r < N; r++) {
                if (ranks[r].group) continue;
                if (x->reader == ENG_DEAL_OWN) {
                    for (int32_t k = 0; k < ranks[r].n_needs; k++)
                        if (needs[r][k].tensor == x->tensor) met_rows[r] += needs[r][k].row1 - needs[r][k].row0, assert_true(ranks[r].has_file);
                    continue;
                }
                const struct eng_need *y = eng_deal_need(&ranks[r], x, &cursor[r]);
                if (!y) continue;
                int32_t per = dtype_block(eng_model_file_tensor(f, x->tensor)->type);
                met_rows[r] += x->row1 - x->row0;
                assert_true(x->b0 <= y->k0 / per && x->b1 >= DIV_UP(y->k1, per));
            }
            if (x->reader != ENG_DEAL_OWN) assert_true(ranks[x->reader].has_file && ranks[x->reader].group == 0);
        }
        for (int32_t r = 0; r < N; r++) {
            for (int32_t k = 0; k < ranks[r].n_needs && !ranks[r].group; k++) want_rows[r] += needs[r][k].row1 - needs[r][k].row0;
            assert_int_equal(met_rows[r], want_rows[r]);
        }
        free(items);
    }
    eng_model_file_close(f);
}

/* ---- the cache ---- */

static int32_t files_in(const char *dir, int64_t *bytes, char last[4096])
{
    int32_t n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    *bytes = 0;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        char path[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        assert_int_equal(stat(path, &st), 0);
        *bytes += st.st_size;
        memcpy(last, path, sizeof path);
        n++;
    }
    closedir(d);
    return n;
}

/* What one start read and found, once the cache, which is written behind the back of the replica, is whole. */
static struct eng_load_stats start(const char *path, const char *dir, int32_t tp, int64_t bound)
{
    struct local_replica_conf c = {.path = path, .tp = tp, .cache_dir = dir, .cache_bytes = bound};
    struct local_replica *r = opened(&c);
    size_t n;
    float *x = logits_of(r, &n);
    struct eng_load_stats s = sum_of(r, tp);
    local_replica_settle(r);
    local_replica_close(r);
    free(x);
    struct local_replica_conf again = c;
    (void)same_bits(&again, tp);
    return s;
}

static void what_was_packed_is_found_again(void **state)
{
    (void)state;
    const char *path = model("plain.gguf", &plain), *dir = scratch_path("cache-a");
    int64_t all = tensor_bytes(path);
    struct eng_load_stats first = start(path, dir, 2, 0), second = start(path, dir, 2, 0);
    assert_int_equal(first.read, all);
    assert_int_equal(first.cached, 0);
    assert_true(second.read < all / 50); /* norms only */
    assert_true(second.cached > all * 9 / 10);
    /* another cut takes the rows that it finds: all of q, k, v, gate, up, embedding and head, none of the column-cut o and down */
    struct eng_load_stats third = start(path, dir, 3, 0);
    assert_true(third.cached > all / 2);
    assert_true(third.read < all / 2);
}

/* Matrices large enough for pages of their own: the same cut maps its files, whatever of it is tied, merged or odd; another one reads. */
static const struct random_model large = {.arch = "llama", .n_layer = 2, .d_model = 768, .n_head = 12, .n_kv_head = 4, .d_ffn = 2048, .vocab = 1500,
                                          .type = DTYPE_Q8_0, .embd_type = DTYPE_Q6_K, .seed = 4};

static bool may_map(void)
{
    char text[64] = "0";
    FILE *f = fopen("/sys/devices/system/node/online", "r");
    if (f && !fgets(text, sizeof text, f)) text[0] = 0;
    if (f) fclose(f);
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool can = !madvise(p, 4096, 22 /* MADV_POPULATE_READ */);
    munmap(p, 4096);
    return can && sysconf(_SC_PAGESIZE) == 4096 && !strpbrk(text, ",-");
}

static void the_same_cut_maps_what_was_packed(void **state)
{
    (void)state;
    const char *path = model("large.gguf", &large);
    for (int32_t tp = 1; tp <= 3; tp++) {
        char name[32];
        snprintf(name, sizeof name, "cache-m%d", tp);
        const char *dir = scratch_path(name);
        struct eng_load_stats first = start(path, dir, tp, 0), second = start(path, dir, tp, 0), other = start(path, dir, tp == 3 ? 2 : tp + 1, 0);
        assert_int_equal(first.mapped, 0);
        if (may_map()) assert_true(second.mapped > second.cached / 2); /* the rest are matrices of less than 256 KiB */
        assert_true(other.cached > other.mapped);
    }
    if (!may_map()) print_message("this system maps nothing: the kernel is older than 5.14, or there are several memories, or pages are not of 4 KiB\n");
}

static void damage_is_found_and_repaired_in(const char *path, const char *dir)
{
    char name[4096];
    int64_t bytes;
    (void)start(path, dir, 1, 0);
    int32_t n = files_in(dir, &bytes, name);
    assert_true(n > 10);
    static const long at[] = {20, 100, 5000, -1};
    for (size_t i = 0; i < COUNT_OF(at); i++) { /* in the header, in a checksum, in a tile, cut short */
        struct stat st;
        (void)files_in(dir, &bytes, name);
        assert_int_equal(stat(name, &st), 0);
        FILE *f = fopen(name, "r+b");
        assert_non_null(f);
        if (at[i] >= 0) {
            fseek(f, MIN(at[i], (long)st.st_size - 1), SEEK_SET);
            int c = fgetc(f);
            fseek(f, -1, SEEK_CUR);
            fputc(c ^ 0x10, f);
        }
        fclose(f);
        if (at[i] < 0) assert_int_equal(truncate(name, st.st_size / 2), 0);
        struct eng_load_stats s = start(path, dir, 1, 0); /* compares the bits */
        assert_true(s.read > 0 && s.cached > 0);
        assert_int_equal(files_in(dir, &bytes, name), n);
    }
}

static void damage_is_found_and_repaired(void **state)
{
    (void)state;
    damage_is_found_and_repaired_in(model("plain.gguf", &plain), scratch_path("cache-b"));
    damage_is_found_and_repaired_in(model("large.gguf", &large), scratch_path("cache-n"));
}

static void a_bound_is_kept(void **state)
{
    (void)state;
    const char *path = model("plain.gguf", &plain), *dir = scratch_path("cache-c");
    struct random_model other = plain;
    char name[4096];
    int64_t bytes, bound = 600000;
    other.seed = 9;
    (void)start(path, dir, 1, bound);
    int32_t n = files_in(dir, &bytes, name);
    assert_true(n > 0 && bytes <= bound);
    (void)start(model("other.gguf", &other), dir, 1, bound); /* takes the room of the model that is used no more */
    (void)files_in(dir, &bytes, name);
    assert_true(bytes <= bound);
}

/* A name says how large its header must be: memory is taken for what the file itself has room for. */
static void a_name_that_lies_about_its_size_is_passed_over(void **state)
{
    (void)state;
    const char *path = model("plain.gguf", &plain), *dir = scratch_path("cache-d");
    char name[4096], liar[4200];
    int64_t bytes;
    (void)start(path, dir, 1, 0);
    int32_t n = files_in(dir, &bytes, name);
    for (int32_t i = 0; i < n; i++) { /* each of them claims rows without end */
        (void)files_in(dir, &bytes, name);
        char *p = strrchr(name, '/') + 1 + 34, *rows = strchr(p, '-');
        assert_non_null(rows);
        int32_t at = (int32_t)(rows + 1 - name);
        snprintf(liar, sizeof liar, "%.*s9223372036854775800%s", at, name, strchr(rows + 1, '-'));
        if (strstr(name, "9223372036854775800")) break;
        assert_int_equal(rename(name, liar), 0);
    }
    struct eng_load_stats s = start(path, dir, 1, 0); /* compares the bits */
    assert_true(s.read > 0);
}

/* ---- a disk that is full, a process that is killed ---- */

/* Files of the cache that are not whole: none may ever be found under a name that is read. */
static int32_t unfinished(const char *dir)
{
    int32_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) n += strstr(e->d_name, ".tiles.new") != NULL;
    if (d) closedir(d);
    return n;
}

/* In a child: the limit, the signal, the mount are its own. Its exit code; -1: it could not be asked. */
static int in_child(void (*what)(const char *path, const char *dir), const char *path, const char *dir)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        what(path, dir);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Writing ends in the middle of every file of more than 100,000 bytes, as on a disk that has no more room. */
static void write_little(const char *path, const char *dir)
{
    struct rlimit little = {100000, 100000};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &little)) _exit(1);
    struct eng_load_stats s = start(path, dir, 1, 0);
    _exit(s.read > 0 && !unfinished(dir) ? 0 : 2);
}

static void fill_a_small_disk(const char *path, const char *dir)
{
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("none", dir, "tmpfs", 0, "size=400k")) _exit(77);
    struct eng_load_stats first = start(path, dir, 1, 1 << 30), second = start(path, dir, 1, 1 << 30);
    int64_t bytes;
    char last[4096];
    (void)files_in(dir, &bytes, last);
    _exit(first.read > 0 && second.cached > 0 && second.read > 0 && bytes <= 400 << 10 && !unfinished(dir) ? 0 : 2);
}

static void a_full_disk_costs_nothing_but_the_saving(void **state)
{
    (void)state;
    const char *path = model("plain.gguf", &plain), *dir = scratch_path("cache-e");
    char last[4096];
    int64_t bytes;
    assert_int_equal(in_child(write_little, path, dir), 0);
    (void)files_in(dir, &bytes, last);
    struct local_replica_conf c = {.path = path, .cache_dir = dir};
    (void)same_bits(&c, 1);
    const char *disk = scratch_path("cache-f");
    assert_int_equal(mkdir(disk, 0700), 0);
    int code = in_child(fill_a_small_disk, path, disk);
    if (code == 77) print_message("no mount of a small disk here: that half is skipped\n");
    else assert_int_equal(code, 0);
}

static void write_until_killed(const char *path, const char *dir)
{
    struct local_replica_conf c = {.path = path, .cache_dir = dir};
    struct local_replica *r = opened(&c);
    struct timespec t = {5, 0};
    nanosleep(&t, NULL);
    local_replica_close(r);
}

static void a_writer_that_is_killed_leaves_nothing_that_is_believed(void **state)
{
    (void)state;
    const char *path = model("plain.gguf", &plain);
    int32_t cut_short = 0;
    for (int32_t round = 0; round < 6; round++) {
        char name[32];
        int64_t bytes = 0;
        snprintf(name, sizeof name, "cache-g%d", round);
        const char *dir = scratch_path(name);
        fflush(NULL);
        pid_t pid = fork();
        if (!pid) {
            write_until_killed(path, dir);
            _exit(0);
        }
        for (int32_t k = 0; k < 4000 && !bytes; k++) { /* until something lies there */
            DIR *d = opendir(dir);
            for (struct dirent *e; d && (e = readdir(d));) bytes += e->d_name[0] != '.';
            if (d) closedir(d);
            usleep(500);
        }
        usleep((useconds_t)(round * 600));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        cut_short += unfinished(dir) > 0;
        struct local_replica_conf c = {.path = path, .cache_dir = dir};
        (void)same_bits(&c, 1); /* what lies there is whole, or not read */
        /* what the dead writer left is cleared away when it is old */
        DIR *d = opendir(dir);
        char whole[256] = "";
        for (struct dirent *e; d && (e = readdir(d));) {
            struct timespec old[2] = {{1000000, 0}, {1000000, 0}};
            if (strstr(e->d_name, ".tiles.new")) assert_int_equal(utimensat(dirfd(d), e->d_name, old, 0), 0);
            else if (strstr(e->d_name, ".tiles")) snprintf(whole, sizeof whole, "%s", e->d_name);
        }
        if (unfinished(dir)) {
            if (*whole) assert_int_equal(unlinkat(dirfd(d), whole, 0), 0); /* so that something is written */
            (void)start(path, dir, 1, 0);
            assert_int_equal(unfinished(dir), 0);
        }
        if (d) closedir(d);
    }
    printf("%d of 6 writers were killed in the middle of a file\n", cut_short);
}

static void a_cache_that_cannot_be_used_is_done_without(void **state)
{
    (void)state;
    struct local_replica_conf c = {.path = model("plain.gguf", &plain), .cache_dir = "/proc/no/such"};
    assert_int_equal(same_bits(&c, 1).read, tensor_bytes(c.path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_byte_is_read_once_whatever_the_cut), cmocka_unit_test(a_rank_without_the_file_is_served),
        cmocka_unit_test(a_checkpoint_directory_travels_too),      cmocka_unit_test(every_need_is_met_and_nothing_is_read_twice),
        cmocka_unit_test(the_same_cut_maps_what_was_packed),       cmocka_unit_test(what_was_packed_is_found_again),
        cmocka_unit_test(damage_is_found_and_repaired),
        cmocka_unit_test(a_name_that_lies_about_its_size_is_passed_over), cmocka_unit_test(a_full_disk_costs_nothing_but_the_saving),
        cmocka_unit_test(a_writer_that_is_killed_leaves_nothing_that_is_believed),
        cmocka_unit_test(a_bound_is_kept),                         cmocka_unit_test(a_cache_that_cannot_be_used_is_done_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
