/* plain.h: a text that came from elsewhere (a file, another process, a client) as a terminal or a line of the log may have it.
 *
 * What would steer a terminal, break a line or hide a character becomes \xNN, byte by byte: controls (C0, DEL, C1), Unicode's separators of lines and
 * its marks of direction, and bytes that are no UTF-8. A newline, a carriage return and a tab become \n, \r and \t where a line is wanted. A
 * backslash stays as it is: this is to be read, not to be read back. */
#ifndef BASE_PLAIN_H
#define BASE_PLAIN_H

#include "base/base.h"

#include <stddef.h>
#include <stdio.h>

/* One line into out, NUL-terminated, cut before what does not fit as a whole; returns out. */
char *plain(char out[], size_t cap, const char *text, size_t n);
/* Lines: newlines and tabs stay. */
void plain_write(FILE *f, const char *text, size_t n);

#endif
