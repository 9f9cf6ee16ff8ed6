/* number.c: see number.h. Both automata read the digits once, from the left. */
#include "engine/grammar/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char alphabet[] = "-.0123456789";

/* ---- decimals ---- */

bool eng_decimal_parse(struct decimal *d, const char *text)
{
    char digits[800];
    int n = 0, point = 0;
    *d = (struct decimal){0};
    if (*text == '-') d->negative = true, text++;
    for (bool dot = false; (*text >= '0' && *text <= '9') || *text == '.'; text++) {
        if (*text == '.')
            dot = true;
        else if (n < 400)
            digits[n++] = *text, point += !dot;
        else
            return false;
    }
    if (*text == 'e' || *text == 'E') point += atoi(text + 1);
    if (point > 390 || point < -380) return false;
    int w = 0, p = 0;
    for (int i = 0; i < point; i++) d->whole[w++] = i < n ? digits[i] : '0';
    for (int i = point; i < n; i++)
        if (p < 398) d->part[p++] = i < 0 ? '0' : digits[i];
    while (p && d->part[p - 1] == '0') p--;
    d->part[p] = 0;
    int zeros = 0;
    while (zeros < w && d->whole[zeros] == '0') zeros++;
    memmove(d->whole, d->whole + zeros, (size_t)(w - zeros));
    w -= zeros;
    if (!w) d->whole[w++] = '0';
    d->whole[w] = 0;
    if (!p && !strcmp(d->whole, "0")) d->negative = false;
    return true;
}

void eng_decimal_of_double(struct decimal *d, double v)
{
    char text[64];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    if (!eng_decimal_parse(d, text)) *d = (struct decimal){.whole = "0"};
}

void eng_decimal_print(const struct decimal *d, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s%s", d->negative ? "-" : "", d->whole, d->part[0] ? "." : "",
             d->part);
}

/* ---- order ---- */

enum phase { START, SIGN, WHOLE, PART };
struct reading {
    enum phase phase;
    bool negative;
    int order;
    int at;
}; /* order: -1, 0, 1: of the magnitudes as far as read */

static int64_t pack(struct reading r)
{
    return (int64_t)r.at << 8 | (int64_t)(r.order + 1) << 4 | (int64_t)r.negative << 2 |
           (int64_t)r.phase;
}

static struct reading unpack(int64_t v)
{
    return (struct reading){(enum phase)(v & 3), v >> 2 & 1, (int)(v >> 4 & 3) - 1, (int)(v >> 8)};
}

struct comparison {
    const struct decimal *d;
    int n_whole, n_part;
    unsigned orders;
};

static int whole_order(const struct comparison *c, const struct reading *r)
{
    return r->at < c->n_whole ? -1 : r->at > c->n_whole ? 1 : r->order;
}

static int64_t compare_step(const void *user, int64_t state, char ch)
{
    const struct comparison *c = user;
    struct reading r = unpack(state);
    if (ch == '-') return r.phase == START ? pack((struct reading){SIGN, true, 0, 0}) : -1;
    if (ch == '.')
        return r.phase == WHOLE ? pack((struct reading){PART, r.negative, whole_order(c, &r), 0})
                                : -1;
    if (r.phase != PART) {
        r.phase = WHOLE;
        if (r.at < c->n_whole && !r.order)
            r.order = ch < c->d->whole[r.at] ? -1 : ch > c->d->whole[r.at];
        r.at = MIN(r.at + 1, c->n_whole + 1);
        return pack(r);
    }
    if (!r.order) {
        char other = r.at < c->n_part ? c->d->part[r.at] : '0';
        r.order = ch < other ? -1 : ch > other;
        r.at = r.order ? 0 : MIN(r.at + 1, c->n_part);
    }
    return pack(r);
}

static bool compare_accept(const void *user, int64_t state)
{
    const struct comparison *c = user;
    struct reading r = unpack(state);
    if (r.phase < WHOLE) return false;
    int order = r.phase == WHOLE ? whole_order(c, &r) : r.order;
    if (!order && (r.phase == WHOLE ? 0 : r.at) < c->n_part)
        order = -1; /* its digits that were not read are not all zero */
    bool zero = !strcmp(c->d->whole, "0") && !c->n_part;
    if (r.negative)
        order = c->d->negative ? -order : zero && !order ? 0 : -1;
    else if (c->d->negative)
        order = 1;
    return c->orders & (order < 0 ? NUMBER_LESS : order ? NUMBER_MORE : NUMBER_EQUAL);
}

enum err eng_number_compare(struct eng_dfas *s, const struct decimal *value, unsigned orders,
                            const struct dfa **out)
{
    struct comparison c = {value, (int)strlen(value->whole), (int)strlen(value->part), orders};
    return eng_dfa_explore(s, alphabet, pack((struct reading){START, false, 0, 0}), compare_step,
                           compare_accept, &c, out);
}

/* ---- multiples ---- */

enum { LARGEST_DIVISOR = 20000 };
struct division {
    int64_t divisor;
    int n_part;
};

/* What is read, as a whole number, modulo the divisor; behind the point, how many digits. */
static int64_t divide_state(enum phase phase, int at, int64_t rest)
{
    return rest << 16 | (int64_t)at << 2 | (int64_t)phase;
}

static int64_t divide_step(const void *user, int64_t state, char ch)
{
    const struct division *v = user;
    enum phase phase = (enum phase)(state & 3);
    int at = (int)(state >> 2 & 0x3FFF);
    int64_t rest = state >> 16;
    if (ch == '-') return phase == START ? divide_state(SIGN, 0, 0) : -1;
    if (ch == '.') return phase == WHOLE ? divide_state(PART, 0, rest) : -1;
    if (phase == PART && at == v->n_part) return ch == '0' ? state : -1;
    return divide_state(phase == PART ? PART : WHOLE, phase == PART ? at + 1 : 0,
                        (rest * 10 + (ch - '0')) % v->divisor);
}

static bool divide_accept(const void *user, int64_t state)
{
    const struct division *v = user;
    enum phase phase = (enum phase)(state & 3);
    int64_t rest = state >> 16;
    if (phase < WHOLE) return false;
    for (int i = phase == PART ? (int)(state >> 2 & 0x3FFF) : 0; i < v->n_part; i++)
        rest = rest * 10 % v->divisor;
    return !rest;
}

enum err eng_number_multiple(struct eng_dfas *s, const struct decimal *value,
                             const struct dfa **out)
{
    struct division v = {0, (int)strlen(value->part)};
    for (const char *c = value->whole; *c && v.divisor <= LARGEST_DIVISOR; c++)
        v.divisor = v.divisor * 10 + (*c - '0');
    for (const char *c = value->part; *c && v.divisor <= LARGEST_DIVISOR; c++)
        v.divisor = v.divisor * 10 + (*c - '0');
    if (v.divisor > LARGEST_DIVISOR)
        return err_raise(ERR_UNSUPPORTED, "the digits make a number above %d", LARGEST_DIVISOR);
    return eng_dfa_explore(s, alphabet, divide_state(START, 0, 0), divide_step, divide_accept, &v,
                           out);
}
