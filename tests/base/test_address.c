/* test_address.c: HOST:PORT and [IPV6]:PORT are read; what is neither is refused with a sentence. */
#include "base/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void it_is_read_and_written(void **state)
{
    (void)state;
    static const struct { const char *text, *host; int32_t port; } good[] = {
        {"127.0.0.1:7000", "127.0.0.1", 7000}, {"box:0", "box", 0},         {"box", "box", -1},
        {"[::1]:7000", "::1", 7000},           {"[fd00::2]", "fd00::2", -1}, {"[fe80::1%eth0]:65535", "fe80::1%eth0", 65535},
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct address a;
        char text[ADDRESS_TEXT];
        if (address_parse(&a, "--listen", good[i].text)) fail_msg("%s: %s", good[i].text, err_text());
        assert_string_equal(a.host, good[i].host);
        assert_int_equal(a.port, good[i].port);
        if (a.port >= 0) assert_string_equal(address_text(text, a.host, a.port), good[i].text);
    }
}

static void what_is_none_is_refused(void **state)
{
    (void)state;
    static const struct { const char *text, *why; } bad[] = {
        {"", "needed HOST:PORT"},           {":7000", "needed HOST:PORT"},       {"box:", "'' is no port"},
        {"box:abc", "'abc' is no port"},    {"box:65536", "'65536' is no port"}, {"box:4294967296", "is no port"},
        {"box:-1", "'-1' is no port"},      {"::1", "stands in brackets"},       {"fd00::2:7000", "stands in brackets"},
        {"[::1", "the bracket is not closed"}, {"[::1]7000", "needed [IPV6]:PORT"}, {"[]:7", "needed HOST:PORT"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct address a;
        assert_int_equal(address_parse(&a, "--listen", bad[i].text), ERR_BAD_CONFIG);
        if (!strstr(err_text(), bad[i].why)) fail_msg("%s: %s", bad[i].text, err_text());
    }
}

static void a_host_alone(void **state)
{
    (void)state;
    static const struct { const char *text, *host; } good[] = {{"0.0.0.0", "0.0.0.0"}, {"box", "box"}, {"::1", "::1"}, {"[::1]", "::1"}, {"::", "::"}};
    char host[ADDRESS_HOST];
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        if (address_host(host, "--host", good[i].text)) fail_msg("%s: %s", good[i].text, err_text());
        assert_string_equal(host, good[i].host);
    }
    assert_int_equal(address_host(host, "--host", "box:8000"), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "without a port"));
    assert_int_equal(address_host(host, "--host", "[::1]:8000"), ERR_BAD_CONFIG);
    assert_int_equal(address_host(host, "--host", ""), ERR_BAD_CONFIG);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_read_and_written),
        cmocka_unit_test(what_is_none_is_refused),
        cmocka_unit_test(a_host_alone),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
