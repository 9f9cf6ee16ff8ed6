/* admin_http: orders by HTTP: nobody's unless a file of admin keys says so, one at a time, and answered when they are done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/access.h"
#include "coordinator/api/admin_http.h"
#include "coordinator/api/api.h"
#include "tests/api/support.h"
#include "tests/gateway/client.h"
#include "tests/support/scratch.h"

#include <string.h>
#include <sys/stat.h>

#define KEY "Authorization: Bearer key-of-the-admin\r\n"
#define RELOAD "{\"model\":\"/models/other.gguf\"}"

static struct test_api t;
static struct gw *gw;
static struct crd_admin_door *door;

static void start(bool api_keys, bool admin_keys)
{
    struct gw_conf conf = {.host = "127.0.0.1", .max_body = 1 << 20, .header_timeout_s = 5, .idle_timeout_s = 30, .ping_ms = 100, .max_connections = 64};
    const char *path = scratch_path("admins"), *users = scratch_path("users");
    static const char lines[] = "root sha256:ad3e2e0ddcd04a8b1e18d3f4f6f2df8a0a4eeec9a17a3d1e2ed3b3e0f1a1a1a1\nops key-of-the-admin\n",
                      user[] = "anna key-of-anna\n";
    scratch_write(path, lines, strlen(lines));
    scratch_write(users, user, strlen(user));
    chmod(path, 0600);
    chmod(users, 0600);
    test_api_open(&t, 1);
    if (admin_keys) assert_int_equal(crd_admin_door_open(&door, path), OK);
    if (api_keys) assert_int_equal(crd_keys_open(&t.api.keys, &(struct crd_keys_conf){.path = users}, clock_us()), OK);
    t.api.admin = door;
    assert_int_equal(gw_open(&gw, &conf, crd_api_routes, crd_api_n_routes, crd_api_fallback, crd_access_gate, &t.api), OK);
}

static void stop(void)
{
    gw_close(gw);
    crd_admin_door_close(door);
    crd_keys_close(t.api.keys);
    test_api_close(&t);
    door = NULL;
    t.api.keys = NULL;
}

static void expect(const char *path, const char *headers, const char *body, int status, const char *words)
{
    struct client c;
    struct answer a;
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", path, headers, body);
    client_answer(&c, &a);
    if (a.status != status || !strstr(buf_str(&a.body), words)) fail_msg("%s: %d %s", path, a.status, buf_str(&a.body));
    answer_free(&a);
    client_close(&c);
}

static struct crd_admin_request take(void)
{
    struct crd_admin_request r = {.verb = ADMIN_NOTHING};
    for (int64_t end = clock_us() + 5000000; !crd_admin_door_take(door, &r) && clock_us() < end;) clock_sleep_us(200);
    return r;
}

static void without_admin_keys_nobody_gives_orders(void **state)
{
    (void)state;
    start(false, false);
    expect("/admin/drain", NULL, "", 404, "--admin-keys");
    expect("/admin/reload", KEY, RELOAD, 404, "--admin-keys");
    stop();
    start(true, false);
    expect("/admin/drain", KEY, "", 401, "key");
    expect("/admin/drain", "x-api-key: key-of-anna\r\n", "", 404, "--admin-keys");
    stop();
}

static void only_an_admin_key_opens_it_and_nothing_else(void **state)
{
    struct crd_admin_request r;
    (void)state;
    start(true, true);
    expect("/admin/drain", NULL, "", 401, "--admin-keys");
    expect("/admin/drain", "x-api-key: key-of-anna\r\n", "", 401, "--admin-keys");
    expect("/admin/reload", "Authorization: Bearer key-of-the-admi\r\n", RELOAD, 401, "--admin-keys");
    expect("/admin/anything", NULL, "", 401, "--admin-keys");
    expect("/admin/anything", KEY, "", 404, "nothing at");
    expect("/v1/completions", KEY, "{\"prompt\":\"a\"}", 401, "Incorrect API key");
    assert_false(crd_admin_door_take(door, &r));
    stop();
}

static void an_order_is_answered_when_it_is_done(void **state)
{
    struct client c;
    struct answer a;
    (void)state;
    start(false, true);
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/admin/reload", KEY, RELOAD);
    struct crd_admin_request r = take();
    assert_int_equal(r.verb, ADMIN_RELOAD);
    assert_string_equal(r.model, "/models/other.gguf");
    expect("/admin/drain", KEY, "", 409, "under way"); /* one at a time */
    crd_admin_door_done(door, OK);
    client_answer(&c, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(buf_str(&a.body), "{\"status\":\"serving\",\"model\":\"/models/other.gguf\"}");
    answer_free(&a);
    client_request(&c, "POST", "/admin/reload", KEY, RELOAD);
    take();
    crd_admin_door_done(door, err_raise(ERR_NO_FIT, "it needs 3 GB, there are 2"));
    client_answer(&c, &a);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(buf_str(&a.body), "it needs 3 GB, there are 2"));
    answer_free(&a);
    client_request(&c, "POST", "/admin/drain", KEY, "");
    assert_int_equal(take().verb, ADMIN_DRAIN);
    crd_admin_door_done(door, OK);
    client_answer(&c, &a);
    assert_string_equal(buf_str(&a.body), "{\"status\":\"draining\"}");
    answer_free(&a);
    client_close(&c);
    stop();
}

static void who_asks_may_leave(void **state)
{
    struct client c;
    struct crd_admin_request r;
    (void)state;
    start(false, true);
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/admin/reload", KEY, RELOAD);
    assert_int_equal(take().verb, ADMIN_RELOAD);
    client_close(&c);
    for (int64_t end = clock_us() + 5000000; gw_active(gw) && clock_us() < end;) clock_sleep_us(200);
    expect("/admin/drain", KEY, "", 409, "under way"); /* it is done all the same */
    crd_admin_door_done(door, OK);
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/admin/reload", KEY, RELOAD);
    for (int64_t end = clock_us() + 5000000; !gw_active(gw) && clock_us() < end;) clock_sleep_us(200);
    client_close(&c); /* before anybody took it */
    for (int64_t end = clock_us() + 5000000; gw_active(gw) && clock_us() < end;) clock_sleep_us(200);
    assert_false(crd_admin_door_take(door, &r));
    stop();
}

static void a_server_that_ends_takes_no_orders(void **state)
{
    struct client c;
    struct answer a;
    (void)state;
    start(false, true);
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/admin/reload", KEY, RELOAD);
    for (int64_t end = clock_us() + 5000000; !gw_active(gw) && clock_us() < end;) clock_sleep_us(200);
    clock_sleep_us(20000); /* asked, or about to */
    crd_admin_door_shut(door);
    client_answer(&c, &a);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(buf_str(&a.body), "shutting down"));
    answer_free(&a);
    client_close(&c);
    expect("/admin/reload", KEY, RELOAD, 503, "shutting down");
    stop();
}

static void what_is_no_order_is_refused(void **state)
{
    static const char *const bodies[] = {"", "{", "[]", "{}", "{\"model\":1}", "{\"model\":\"\"}", "{\"model\":\"relative.gguf\"}", "null"};
    struct crd_admin_request r;
    char path[300];
    (void)state;
    start(false, true);
    for (size_t i = 0; i < COUNT_OF(bodies); i++) expect("/admin/reload", KEY, bodies[i], 400, "absolute path");
    assert_false(crd_admin_door_take(door, &r));
    stop();
    assert_int_equal(crd_admin_door_open(&door, "/nonexistent/admins"), ERR_IO);
    assert_non_null(strstr(err_text(), "--admin-keys"));
    snprintf(path, sizeof path, "%s", scratch_path("open"));
    scratch_write(path, "ops key-of-the-admin\n", 21);
    chmod(path, 0644);
    assert_int_equal(crd_admin_door_open(&door, path), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "chmod 600"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_admin_keys_nobody_gives_orders),
        cmocka_unit_test(only_an_admin_key_opens_it_and_nothing_else),
        cmocka_unit_test(an_order_is_answered_when_it_is_done),
        cmocka_unit_test(who_asks_may_leave),
        cmocka_unit_test(a_server_that_ends_takes_no_orders),
        cmocka_unit_test(what_is_no_order_is_refused),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
