/* huge.h: what is mapped from a file ends on memory of its own, at the same addresses, and who reads meanwhile never sees anything else. */
#include "engine/model/huge.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

enum { PAGE = 4096, BLOCK = 48 << 20, FILE_AT = 3 * PAGE, FILE_BYTES = (37 << 20) + PAGE };

static uint64_t word_at(int64_t i) { return (uint64_t)i * 0x9e3779b97f4a7c15u ^ (uint64_t)i >> 7; }

/* A file of words, and a block: words before, the file, words after it. */
static uint8_t *block_with_file(const char *path)
{
    uint64_t *b = eng_huge_alloc(BLOCK);
    assert_non_null(b);
    for (int64_t i = 0; i < BLOCK / 8; i++) b[i] = word_at(i);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (int64_t at = 0; at < FILE_BYTES;) {
        ssize_t k = write(fd, (uint8_t *)b + FILE_AT + at, (size_t)(FILE_BYTES - at));
        assert_true(k > 0);
        at += k;
    }
    assert_ptr_equal(mmap((uint8_t *)b + FILE_AT, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0), (uint8_t *)b + FILE_AT);
    close(fd);
    return (uint8_t *)b;
}

/* Bytes of [p, p + n) that are some file's. */
static int64_t file_bytes(const uint8_t *p, int64_t n)
{
    char line[4400];
    int64_t sum = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        unsigned long long a, b, inode;
        if (sscanf(line, "%llx-%llx %*s %*s %*s %llu", &a, &b, &inode) != 3 || !inode) continue;
        uint64_t lo = MAX(a, (uint64_t)(uintptr_t)p), hi = MIN(b, (uint64_t)(uintptr_t)p + (uint64_t)n);
        if (hi > lo) sum += (int64_t)(hi - lo);
    }
    fclose(f);
    return sum;
}

static bool gives_huge(void)
{
    char text[64] = "[never]";
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (f && !fgets(text, sizeof text, f)) return false;
    if (f) fclose(f);
    return !strstr(text, "[never]");
}

struct reader { const uint64_t *p; _Atomic bool stop; _Atomic int64_t wrong, passes; };

static void *read_main(void *arg)
{
    struct reader *r = arg;
    while (!atomic_load(&r->stop)) {
        for (int64_t i = 0; i < BLOCK / 8; i += 61) atomic_fetch_add(&r->wrong, *(volatile const uint64_t *)(r->p + i) != word_at(i));
        atomic_fetch_add(&r->passes, 1);
    }
    return NULL;
}

static void a_mapped_file_becomes_memory_under_its_readers(void **state)
{
    (void)state;
    const char *path = scratch_path("words");
    uint8_t *b = block_with_file(path);
    struct eng_span spans[] = {{b + FILE_AT + (20 << 20), FILE_BYTES - (20 << 20)}, {b + FILE_AT, 20 << 20}}; /* as two tensors, in no order */
    struct reader r = {.p = (uint64_t *)b};
    struct eng_team *team;
    struct eng_huge *h;
    pthread_t t;
    assert_int_equal(eng_team_open(&team, 1, NULL), OK);
    assert_int_equal(file_bytes(b, BLOCK), FILE_BYTES);
    assert_int_equal(pthread_create(&t, NULL, read_main, &r), 0);
    while (!atomic_load(&r.passes)) usleep(100);
    assert_int_equal(eng_huge_open(&h, spans, 2, team), OK);
    eng_huge_settle(h);
    for (int64_t seen = atomic_load(&r.passes); atomic_load(&r.passes) < seen + 2;) usleep(100);
    atomic_store(&r.stop, true);
    pthread_join(t, NULL);
    assert_int_equal(atomic_load(&r.wrong), 0);
    if (gives_huge()) {
        assert_int_equal(file_bytes(b, BLOCK), 0);
        assert_int_equal(truncate(path, 0), 0); /* the file no longer matters */
    } else {
        print_message("no huge pages here: it stays mapped\n");
    }
    for (int64_t i = 0; i < BLOCK / 8; i++) assert_int_equal(((uint64_t *)b)[i], word_at(i));
    eng_huge_close(h);
    eng_huge_free(b, BLOCK);
    eng_team_close(team);
}

static void it_can_be_ended_before_it_has_begun(void **state)
{
    (void)state;
    uint8_t *b = block_with_file(scratch_path("words2"));
    struct eng_span s = {b + FILE_AT, FILE_BYTES};
    struct eng_team *team;
    struct eng_huge *h;
    assert_int_equal(eng_team_open(&team, 1, NULL), OK);
    assert_int_equal(eng_huge_open(&h, &s, 1, team), OK);
    eng_huge_close(h);
    eng_huge_close(NULL);
    for (int64_t i = 0; i < BLOCK / 8; i += 13) assert_int_equal(((uint64_t *)b)[i], word_at(i));
    eng_huge_free(b, BLOCK);
    eng_team_close(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mapped_file_becomes_memory_under_its_readers),
        cmocka_unit_test(it_can_be_ended_before_it_has_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
