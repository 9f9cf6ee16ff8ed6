/* number.h: sets of JSON numbers by value. Private to engine/grammar.
 *
 * Written without exponent: [-]digits[.digits]. Only an unconstrained number may also have one
 * (schema.c). */
#ifndef ENGINE_GRAMMAR_NUMBER_H
#define ENGINE_GRAMMAR_NUMBER_H

#include "engine/grammar/dfa.h"

enum number_order { NUMBER_LESS = 1, NUMBER_EQUAL = 2, NUMBER_MORE = 4 };

/* A value as decimal digits: "-12.5"; without exponent, leading or trailing zeros. */
struct decimal {
    bool negative;
    char whole[400], part[400];
};
/* From what printf gives ("1e-08" too). false: out of range. */
bool eng_decimal_parse(struct decimal *d, const char *text);
/* The shortest text of a double. */
void eng_decimal_of_double(struct decimal *d, double v);
/* n <= size bytes and NUL; ".0" is not appended. */
void eng_decimal_print(const struct decimal *d, char *out, size_t size);

/* Numbers whose order to the value is one of `orders` (enum number_order). */
MUST_USE enum err eng_number_compare(struct eng_dfas *s, const struct decimal *value,
                                     unsigned orders, const struct dfa **out);
/* Multiples of a positive value. Err UNSUPPORTED: it has too many digits. */
MUST_USE enum err eng_number_multiple(struct eng_dfas *s, const struct decimal *value,
                                      const struct dfa **out);

#endif
