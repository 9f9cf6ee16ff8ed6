/* keys, quota: who may ask, and how much; time is an argument. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/api/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { S = 1000000 };

static void a_minutes_worth_and_no_more(void **state)
{
    struct crd_quota q;
    struct crd_limits l = {.rpm = 6};
    int32_t retry;
    (void)state;
    crd_quota_open(&q, &l, 0);
    for (int i = 0; i < 6; i++) assert_null(crd_quota_begin(&q, 0, &retry));
    assert_string_equal(crd_quota_begin(&q, 0, &retry), "requests per minute");
    assert_int_equal(retry, 10);
    assert_non_null(crd_quota_begin(&q, 9 * S, &retry));
    assert_int_equal(retry, 1);
    assert_null(crd_quota_begin(&q, 10 * S, &retry));
    for (int i = 0; i < 6; i++) assert_null(crd_quota_begin(&q, 1000L * S, &retry));
    assert_non_null(crd_quota_begin(&q, 1000L * S, &retry)); /* silence does not add up */
}

static void tokens_are_owed(void **state)
{
    struct crd_quota q;
    struct crd_limits l = {.tpm = 600};
    struct buf h = {0};
    int32_t retry;
    (void)state;
    crd_quota_open(&q, &l, 0);
    assert_null(crd_quota_begin(&q, 0, &retry));
    crd_quota_charge(&q, 900, 0); /* more than there was: 300 owed, 10 a second */
    assert_string_equal(crd_quota_begin(&q, 0, &retry), "tokens per minute");
    assert_int_equal(retry, 31);
    crd_quota_headers(&q, 0, &h);
    assert_string_equal(buf_str(&h), "x-ratelimit-limit-tokens: 600\nx-ratelimit-remaining-tokens: "
                                     "0\nx-ratelimit-reset-tokens: 90.000s\n");
    assert_null(crd_quota_begin(&q, 31 * S, &retry));
    buf_free(&h);
}

static void so_many_at_once(void **state)
{
    struct crd_quota q;
    struct crd_limits l = {.concurrency = 2}, more = {.concurrency = 3};
    int32_t retry;
    (void)state;
    crd_quota_open(&q, &l, 0);
    assert_null(crd_quota_begin(&q, 0, &retry));
    assert_null(crd_quota_begin(&q, 0, &retry));
    assert_string_equal(crd_quota_begin(&q, 0, &retry), "requests at once");
    crd_quota_end(&q);
    assert_null(crd_quota_begin(&q, 0, &retry));
    crd_quota_change(&q, &more, 0);
    assert_null(crd_quota_begin(&q, 0, &retry));
    assert_non_null(crd_quota_begin(&q, 0, &retry));
}

static char path[] = "/tmp/tessera-keys-XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(path, 0600);
}

static int make_path(void **state)
{
    (void)state;
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int drop_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void keys_are_found_by_their_secret(void **state)
{
    struct crd_keys *k;
    struct crd_keys_conf c = {.path = path, .secret = "from-the-env", .limits = {.rpm = 5}};
    (void)state;
    write_file("# people\nanna  secret-of-anna weight=2.5 rpm=7 # her\n\n"
               /* sha256 of "secret-of-ben" */
               "ben sha256:61341aaf1a5fa7ea48f8ea9423c8e28fb44fab17288631b61e22c1d2d58b5254 "
               "concurrency=3\n");
    assert_int_equal(crd_keys_open(&k, &c, 0), OK);
    struct crd_key *anna = crd_keys_find(k, "secret-of-anna"), *env = crd_keys_find(k, c.secret);
    assert_string_equal(anna->name, "anna");
    assert_true(anna->weight == 2.5f);
    assert_int_equal(anna->quota.limits.rpm, 7);
    assert_int_equal(env->quota.limits.rpm, 5);
    assert_true(anna->tenant && anna->tenant != env->tenant);
    assert_int_equal(crd_keys_find(k, "secret-of-ben")->quota.limits.concurrency, 3);
    assert_null(crd_keys_find(k, "secret-of-ann"));
    assert_null(crd_keys_find(k, ""));
    assert_null(crd_keys_find(k, NULL));
    crd_keys_close(k);
}

static void a_changed_file_is_read_again(void **state)
{
    struct crd_keys *k;
    struct crd_keys_conf c = {.path = path};
    int32_t retry;
    (void)state;
    write_file("anna secret-of-anna\nben secret-of-ben rpm=1\n");
    assert_int_equal(crd_keys_open(&k, &c, 0), OK);
    struct crd_key *ben = crd_keys_find(k, "secret-of-ben"),
                   *anna = crd_keys_find(k, "secret-of-anna");
    assert_null(crd_quota_begin(&ben->quota, 0, &retry));
    assert_null(crd_quota_begin(&anna->quota, 0, &retry));
    write_file("ben another-secret rpm=1\n");
    crd_keys_refresh(k, S / 2); /* too early to look */
    assert_non_null(crd_keys_find(k, "secret-of-anna"));
    crd_keys_refresh(k, 2 * S);
    assert_null(crd_keys_find(k, "secret-of-anna"));
    assert_int_equal(anna->quota.n_active, 1); /* still there for who uses it */
    assert_null(crd_keys_find(k, "secret-of-ben"));
    assert_ptr_equal(crd_keys_find(k, "another-secret"), ben);
    assert_non_null(crd_quota_begin(&ben->quota, 2 * S, &retry)); /* what was used stays used */
    crd_quota_end(&anna->quota);
    write_file("ben\n");
    crd_keys_refresh(k, 4 * S); /* no key file: nothing changes */
    assert_ptr_equal(crd_keys_find(k, "another-secret"), ben);
    crd_keys_close(k);
}

static void what_is_wrong_with_a_file_is_said(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"anna\n", "line 1: there is a name and no secret"},
        {"a b@d-key-long-enough\na another-one\n", "line 2: the name stands there twice"},
        {"a one-secret\nb other-secret\nc one-secret\n", "line 3: the secret is that of a line before"},
        {"anna short\n", "fewer than 8"},
        {"anna sha256:abc\n", "64 hex digits"},
        {"anna long-enough rpm\n", "not NAME=NUMBER"},
        {"anna long-enough rpm=x\n", "not NAME=NUMBER"},
        {"anna long-enough rpms=5\n", "none of weight"},
        {"anna long-enough weight=0\n", "greater than zero"},
        {"an\"na long-enough\n", "letters"},
    };
    struct crd_keys *k;
    struct crd_keys_conf c = {.path = path};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        write_file(rows[i].text);
        assert_int_equal(crd_keys_open(&k, &c, 0), ERR_BAD_CONFIG);
        if (!strstr(err_text(), rows[i].says)) printf("%s\n", err_text());
        assert_non_null(strstr(err_text(), rows[i].says));
    }
    write_file("anna long-enough\n");
    chmod(path, 0644);
    assert_int_equal(crd_keys_open(&k, &c, 0), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "chmod 600"));
    c.path = "/nonexistent/keys";
    assert_int_equal(crd_keys_open(&k, &c, 0), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_minutes_worth_and_no_more),
        cmocka_unit_test(tokens_are_owed),
        cmocka_unit_test(so_many_at_once),
        cmocka_unit_test_setup_teardown(keys_are_found_by_their_secret, make_path, drop_path),
        cmocka_unit_test_setup_teardown(a_changed_file_is_read_again, make_path, drop_path),
        cmocka_unit_test_setup_teardown(what_is_wrong_with_a_file_is_said, make_path, drop_path),
    };
    return cmocka_run_group_tests_name("keys", tests, NULL, NULL);
}
