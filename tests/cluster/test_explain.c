/* What `tessera plan` prints, for two machines, word by word; and its JSON. After a wanted change:
 * TESSERA_WRITE_GOLDEN=1 test_cluster_explain. */
#include "tests/support/plan_case.h"
#include "tests/support/scratch.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct clu_place place; /* large */

static void golden(const char *model, enum dtype t, enum dtype ends, const char *machine,
                   int32_t context)
{
    struct plan_case *c = plan_case_open(model, t, ends, machine, context);
    struct buf got = {0}, want = {0};
    char path[256];
    if (clu_place_find(&place, &c->work, &c->topo, &c->want))
        buf_printf(&got, "%s\n", err_text());
    else
        clu_place_explain(&place, &c->work, &c->topo, &got);
    snprintf(path, sizeof path, "tests/cluster/golden/%s-%s.txt", model, machine);
    if (getenv("TESSERA_WRITE_GOLDEN")) scratch_write(path, got.data, got.len);
    if (!scratch_read(path, &want)) fail_msg("%s cannot be read", path);
    if (strcmp(buf_str(&got), buf_str(&want)))
        fail_msg("%s is no longer what is printed:\n%s", path, buf_str(&got));
    buf_free(&got);
    buf_free(&want);
    free(c);
}

static void four_unequal_hosts_hold_a_70b_model(void **state)
{
    (void)state;
    golden("Llama-3-70B", DTYPE_Q4_K, DTYPE_Q6_K, "four-unequal", 4096);
}

static void three_and_two_cards_hold_a_72b_model(void **state)
{
    (void)state;
    golden("Qwen2.5-72B", DTYPE_Q8_0, DTYPE_Q8_0, "three-and-two", 4096);
}

static void a_laptop_does_not_hold_a_70b_model(void **state)
{
    (void)state;
    golden("Llama-3-70B", DTYPE_Q4_K, DTYPE_Q6_K, "laptop-8core", 8192);
}

static void a_workstation_holds_a_235b_model(void **state)
{
    (void)state;
    golden("Qwen3-235B-A22B", DTYPE_Q4_K, DTYPE_Q6_K, "workstation", 8192);
}

static void eight_mixed_lab_machines_hold_8x7b(void **state)
{
    (void)state;
    golden("Mixtral-8x7B", DTYPE_Q4_K, DTYPE_Q6_K, "lab-8-mixed", 8192);
}

static void sixteen_nodes_hold_a_235b_model(void **state)
{
    (void)state;
    golden("Qwen3-235B-A22B", DTYPE_Q8_0, DTYPE_Q8_0, "cluster-16", 8192);
}

static void two_sockets_hold_a_235b_model_in_8_bits_for_four_users(void **state)
{
    (void)state;
    golden("Qwen3-235B-A22B", DTYPE_Q8_0, DTYPE_Q8_0, "two-sockets", 8192);
}

static void a_laptop_does_not_hold_a_235b_model(void **state)
{
    (void)state;
    golden("Qwen3-235B-A22B", DTYPE_Q4_K, DTYPE_Q6_K, "laptop-8core", 8192);
}

static void a_dgx_holds_deepseek_v3_in_4_bits(void **state)
{
    (void)state;
    golden("DeepSeek-V3", DTYPE_Q4_K, DTYPE_Q6_K, "dgx", 8192);
}

static void sixteen_nodes_hold_deepseek_v3_in_8_bits(void **state)
{
    (void)state;
    golden("DeepSeek-V3", DTYPE_Q8_0, DTYPE_Q8_0, "cluster-16", 8192);
}

static void a_workstation_holds_llama_4_scout(void **state)
{
    (void)state;
    golden("Llama-4-Scout", DTYPE_Q4_K, DTYPE_Q6_K, "workstation", 16384);
}

static void a_card_and_its_host_do_not_hold_llama_4_maverick(void **state)
{
    (void)state;
    golden("Llama-4-Maverick", DTYPE_Q4_K, DTYPE_Q6_K, "hybrid", 16384);
}

static void json_says_the_same(void **state)
{
    (void)state;
    struct plan_case *c = plan_case_open("Llama-3-8B", DTYPE_Q8_0, DTYPE_Q8_0, "mixed-cards", 4096);
    struct buf b = {0};
    json_error_t e;
    snprintf(c->topo.hosts[0].name, CLU_NAME, "a \"quoted\"\\host");
    assert_int_equal(clu_place_find(&place, &c->work, &c->topo, &c->want), OK);
    clu_place_json(&place, &c->work, &c->topo, &b);
    json_t *j = json_loads(buf_str(&b), 0, &e);
    if (!j) fail_msg("line %d: %s\n%s", e.line, e.text, buf_str(&b));
    assert_int_equal(json_array_size(json_object_get(j, "ranks")), place.n_ranks);
    assert_int_equal(json_integer_value(json_object_get(j, "kv_tokens")),
                     place.n_held * LIMIT_BLOCK_TOKENS);
    json_decref(j);
    buf_free(&b);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_unequal_hosts_hold_a_70b_model),
        cmocka_unit_test(three_and_two_cards_hold_a_72b_model),
        cmocka_unit_test(a_laptop_does_not_hold_a_70b_model),
        cmocka_unit_test(a_workstation_holds_a_235b_model),
        cmocka_unit_test(eight_mixed_lab_machines_hold_8x7b),
        cmocka_unit_test(sixteen_nodes_hold_a_235b_model),
        cmocka_unit_test(two_sockets_hold_a_235b_model_in_8_bits_for_four_users),
        cmocka_unit_test(a_laptop_does_not_hold_a_235b_model),
        cmocka_unit_test(a_dgx_holds_deepseek_v3_in_4_bits),
        cmocka_unit_test(sixteen_nodes_hold_deepseek_v3_in_8_bits),
        cmocka_unit_test(a_workstation_holds_llama_4_scout),
        cmocka_unit_test(a_card_and_its_host_do_not_hold_llama_4_maverick),
        cmocka_unit_test(json_says_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
