/* test_doctor_paths.c: which interface the doctor chooses for a pair, what it notes without alarm,
 * and how it prints. */
#include "doctor_case.h"

#include "cluster/survey.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static void a_useless_interface_is_named_once_per_host_with_the_network_to_use(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    second_nic("172.17.0.", REACH_TIMEOUT, 0);
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(f.v[i].severity, SEV_WARN);
        assert_non_null(strstr(f.v[i].seen, "eth1 172.17.0."));
        assert_non_null(strstr(f.v[i].cure, "btl_tcp_if_include 10.0.0.0/24"));
    }
    clu_findings_free(&f);
    SET(s.include, "192.168.0.0/16,10.0.0.0/24"); /* the cure cures */
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 0);
    clu_findings_free(&f);
    SET(s.include, "192.168.0.0/16"); /* and a wrong one is no cure */
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), PATHS);
    assert_non_null(strstr(f.v[0].seen, "none within 192.168.0.0/16"));
    clu_findings_free(&f);
}

static void the_fastest_interface_is_chosen_and_of_equals_the_first(void **state)
{
    (void)state;
    char why[128];
    healthy();
    second_nic("10.1.0.", REACH_OK, 5e9);
    assert_int_equal(clu_doctor_path(&s, 0, 1, why)->nic, 1);
    assert_string_equal(why, "the fastest");
    healthy();
    second_nic("10.1.0.", REACH_OK, 1.2e9);
    assert_int_equal(clu_doctor_path(&s, 0, 1, why)->nic, 0);
    assert_string_equal(why, "as fast as any, and first");
    SET(s.include, "eth1");
    assert_int_equal(clu_doctor_path(&s, 0, 1, why)->nic, 1);
    assert_string_equal(why, "the only one");
}

static void networks_match_by_bits_and_by_name(void **state)
{
    (void)state;
    struct clu_facts_nic four = {"eth0", "10.0.9.1", 24, 1500, 0},
                         six = {"ib0", "fd00:1::1", 64, 1500, 0};
    assert_true(clu_doctor_uses("", &four));
    assert_true(clu_doctor_uses("10.0.0.0/20", &four));
    assert_false(clu_doctor_uses("10.0.0.0/21", &four));
    assert_true(clu_doctor_uses("0.0.0.0/0", &four));
    assert_true(clu_doctor_uses("lo,eth0", &four));
    assert_false(clu_doctor_uses("eth", &four));
    assert_false(clu_doctor_uses("nonsense/8", &four));
    assert_true(clu_doctor_uses("fd00::/16", &six));
    assert_false(clu_doctor_uses("fd01::/16", &six));
}

static void busy_hosts_and_small_pages_are_notes_only(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    F(1).load = 20;
    SET(F(1).thp, "never");
    SET(F(0).driver, "550.54");
    SET(F(1).driver, "535.1");
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(f.v[i].severity, SEV_NOTE);
    assert_int_equal(f.v[3].severity, SEV_OK);
    clu_findings_free(&f);
    s.n = 1; /* alone, a name that means loopback harms nobody */
    s.n_paths = 0;
    s.hosts[0].listed[0] = s.listen[0] = 0;
    SET(F(0).resolves, "127.0.1.1");
    clu_doctor_judge(&s, &f);
    assert_int_equal(clu_doctor_exit(&f), 0);
    clu_findings_free(&f);
}

static void an_address_that_serve_would_not_choose_is_a_failure(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    s.listen[0] = 0;
    SET(s.listen_why, "this host reaches b from its address 10.0.0.1, and c from 10.9.0.1");
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 1);
    assert_string_equal(f.v[0].check, "worker plane");
    assert_non_null(strstr(f.v[0].seen, "10.9.0.1"));
    assert_non_null(strstr(f.v[0].cure, "--listen"));
    clu_findings_free(&f);
}

static void a_host_without_the_model_is_a_note_where_another_has_it(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    F(1).model_bytes = CLU_FACTS_UNKNOWN;
    SET(F(1).model_error, "x.gguf: No such file or directory");
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 0);
    assert_int_equal(f.v[0].severity, SEV_NOTE);
    assert_string_equal(f.v[0].check, "model");
    clu_findings_free(&f);
    SET(F(1).model_error, "x.gguf: Permission denied");
    clu_doctor_judge(&s, &f);
    assert_int_equal(clu_doctor_exit(&f), 2);
    clu_findings_free(&f);
}

static void a_slot_for_each_core_is_named(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    for (int i = 0; i < N; i++) F(i).packages = 1, s.hosts[i].slots = 2;
    F(2).n_cards = 4;
    SET(F(2).nccl, "2.28.9");
    s.hosts[2].slots = 4;
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 0);
    clu_findings_free(&f);
    s.hosts[1].slots = 32;
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 1);
    assert_string_equal(f.v[0].check, "slots");
    assert_string_equal(f.v[0].cure, "in the hostfile: b slots=1");
    clu_findings_free(&f);
}

static void machines_are_named_as_the_hostfile_does_and_linked_by_the_slower_way(void **state)
{
    (void)state;
    static struct clu_topo one, all;
    int32_t n = 0;
    healthy();
    assert_int_equal(clu_survey_topo(&s, &all, &n), ERR_BAD_CONFIG);
    clu_topo_init(&one);
    one.n_hosts = one.n_devices = 1;
    SET(one.hosts[0].name, "itself");
    for (int i = 0; i < N; i++) s.hosts[i].topo = i == 1 ? NULL : &one; /* b could not be asked */
    path(0, 2)->seen.latency_us = 50;
    path(2, 0)->seen.bytes_s = 1e8;
    if (clu_survey_topo(&s, &all, &n)) fail_msg("%s", err_text());
    assert_int_equal(n, N - 1);
    assert_int_equal(all.n_hosts, N - 1);
    assert_string_equal(all.hosts[1].name, "c");
    assert_int_equal(all.n_links, (N - 1) * (N - 2) / 2);
    assert_float_equal(clu_topo_wire(&all, 0, 1).latency_s, 50e-6, 1e-9);
    assert_float_equal(clu_topo_wire(&all, 0, 1).bytes_s, 1e8, 1);
}

static void the_same_survey_gives_the_same_text_and_whole_json(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    struct buf a = {0}, b = {0}, j = {0};
    healthy();
    silence(ASKED_SSH_FAILS, "Permission denied");
    hosts[2].skew_us = 60000000;
    SET(F(2).model_error, "\xff not UTF-8");
    clu_doctor_judge(&s, &f);
    clu_doctor_text(&s, &f, &a);
    clu_doctor_text(&s, &f, &b);
    clu_doctor_json(&s, &f, &j);
    assert_string_equal(buf_str(&a), buf_str(&b));
    assert_non_null(strstr(buf_str(&a), "NOT HEALTHY (1 failure(s), 1 warning(s)"));
    assert_non_null(strstr(buf_str(&a), "ssh-copy-id b"));
    json_t *o = json_loads(buf_str(&j), 0, NULL);
    assert_non_null(o);
    assert_int_equal(json_integer_value(json_object_get(o, "exit")), 2);
    assert_int_equal(json_array_size(json_object_get(o, "hosts")), N);
    assert_int_equal(json_array_size(json_object_get(o, "findings")), f.n);
    json_decref(o);
    buf_free(&a), buf_free(&b), buf_free(&j);
    clu_findings_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_without_the_model_is_a_note_where_another_has_it),
        cmocka_unit_test(a_slot_for_each_core_is_named),
        cmocka_unit_test(an_address_that_serve_would_not_choose_is_a_failure),
        cmocka_unit_test(machines_are_named_as_the_hostfile_does_and_linked_by_the_slower_way),
        cmocka_unit_test(a_useless_interface_is_named_once_per_host_with_the_network_to_use),
        cmocka_unit_test(the_fastest_interface_is_chosen_and_of_equals_the_first),
        cmocka_unit_test(networks_match_by_bits_and_by_name),
        cmocka_unit_test(busy_hosts_and_small_pages_are_notes_only),
        cmocka_unit_test(the_same_survey_gives_the_same_text_and_whole_json),
    };
    return cmocka_run_group_tests_name("doctor_paths", tests, NULL, NULL);
}
