/* test_products.c: products whose rows are shared out among a team (engine/model/products.c): every row is computed once, by somebody, whatever
 * the shapes; and who is held up holds up the others by a piece, not by his share. */
#include "base/clock.h"
#include "engine/model/pass.h"
#include "tests/kernels/cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_THREADS = 7, MOST_ROWS = 3000 };

static _Thread_local int32_t me;
static int32_t held_up = -1; /* a thread that needs long for its first piece */
static _Atomic int32_t taken[MAX_THREADS];

/* In place of a product: y counts how often each row was computed. */
static void count_rows(const struct krn_matmul *a)
{
    ASSERT(a->row0 % KRN_TILE == 0 && a->row0 < a->row1 && a->row1 <= a->w->rows);
    ASSERT(a->row1 % KRN_TILE == 0 || a->row1 == a->w->rows);
    for (int32_t r = a->row0; r < a->row1; r++) a->y[r] += 1.0f;
    atomic_fetch_add(&taken[me], a->row1 - a->row0);
    if (me == held_up) clock_sleep_us(100000);
}

static const struct krn_table counting = {.name = "counting", .matmul = count_rows};

struct call { const struct eng_model *m; struct eng_product p[ENG_PRODUCTS]; int32_t n, n_tok, times; };

static void run(void *arg, int32_t i, int32_t n)
{
    const struct call *c = arg;
    me = i;
    for (int32_t k = 0; k < c->times; k++) {
        eng_pass_products(c->m, c->p, c->n, c->n_tok, i, n);
        eng_team_barrier(c->m->team, i);
    }
}

struct stage { struct eng_backend be; struct eng_model m; struct krn_mat w[ENG_PRODUCTS]; float y[ENG_PRODUCTS][MOST_ROWS], x; };

static struct stage *stage_open(int32_t n_threads)
{
    struct stage *s = xcalloc(1, sizeof *s);
    s->be.on_host = true;
    s->m = (struct eng_model){.be = &s->be, .krn = &counting};
    assert_int_equal(eng_team_open(&s->m.team, n_threads, NULL), OK);
    assert_int_equal(eng_shares_open(&s->m.shares, n_threads), OK);
    return s;
}

static void stage_close(struct stage *s)
{
    eng_team_close(s->m.team);
    free(s->m.shares);
    free(s);
}

static struct call call_of(struct stage *s, struct rnd *r, int32_t times)
{
    static const enum dtype types[] = {DTYPE_Q4_0, DTYPE_Q6_K, DTYPE_BF16};
    static const int32_t cols[] = {32, 2048, 8192};
    struct call c = {.m = &s->m, .n = rnd_between(r, 1, ENG_PRODUCTS), .n_tok = rnd_below(r, 2) ? 1 : 40, .times = times};
    for (int32_t k = 0; k < c.n; k++) {
        s->w[k] = (struct krn_mat){.type = types[rnd_below(r, 3)], .rows = rnd_between(r, 1, rnd_below(r, 3) ? MOST_ROWS : 40), .cols = cols[rnd_below(r, 3)]};
        s->w[k].tile_bytes = krn_pack_tile_bytes(s->w[k].type, s->w[k].cols);
        memset(s->y[k], 0, sizeof s->y[k]);
        c.p[k] = (struct eng_product){.w = &s->w[k], .x = &s->x, .y = s->y[k], .y_stride = s->w[k].rows};
    }
    return c;
}

static void every_row_is_computed_once(void **state)
{
    (void)state;
    struct rnd r = {.key = 81};
    for (int32_t n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        struct stage *s = stage_open(n_threads);
        for (int32_t n = 0; n < 60; n++) {
            struct call c = call_of(s, &r, 5);
            eng_team_run(s->m.team, run, &c);
            for (int32_t k = 0; k < c.n; k++)
                for (int32_t row = 0; row < s->w[k].rows; row++)
                    if (s->y[k][row] != 5.0f)
                        fail_msg("%d threads, product %d of %d, row %d of %d: computed %g times in 5 calls", n_threads, k, c.n, row, s->w[k].rows,
                                 (double)s->y[k][row]);
        }
        stage_close(s);
    }
}

static void who_is_held_up_holds_up_a_piece(void **state)
{
    (void)state;
    struct rnd r = {.key = 82};
    struct stage *s = stage_open(3);
    for (held_up = 0; held_up < 3; held_up++) {
        struct call c = call_of(s, &r, 1);
        c.n = c.n_tok = 1;
        s->w[0] = (struct krn_mat){.type = DTYPE_Q4_0, .rows = MOST_ROWS, .cols = 2048, .tile_bytes = krn_pack_tile_bytes(DTYPE_Q4_0, 2048)};
        for (int32_t i = 0; i < 3; i++) taken[i] = 0;
        eng_team_run(s->m.team, run, &c);
        printf("held up: %d; rows of each thread: %d %d %d\n", held_up, taken[0], taken[1], taken[2]);
        assert_int_equal(taken[0] + taken[1] + taken[2], MOST_ROWS);
        assert_true(taken[held_up] <= MOST_ROWS / 9); /* its share would be a third, the largest piece is a quarter of that */
    }
    held_up = -1;
    stage_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_computed_once),
        cmocka_unit_test(who_is_held_up_holds_up_a_piece),
    };
    return cmocka_run_group_tests_name("products", tests, NULL, NULL);
}
