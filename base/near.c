/* near.c: see near.h. */
#include "base/near.h"

#include "base/base.h"

#include <string.h>

enum { LONGEST = 63 };

int near_distance(const char *a, size_t n_a, const char *b)
{
    size_t n = MIN(n_a, (size_t)LONGEST), m = MIN(strlen(b), (size_t)LONGEST);
    int row[3][LONGEST + 1]; /* of i - 2, i - 1 and i letters of a */
    for (size_t j = 0; j <= m; j++) row[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *at = row[i % 3], *before = row[(i + 2) % 3], *two = row[(i + 1) % 3];
        at[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            at[j] = MIN(MIN(before[j], at[j - 1]) + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) at[j] = MIN(at[j], two[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

void near_see(struct near *s, const char *candidate)
{
    int d = near_distance(s->word, s->n, candidate);
    if (!s->nearest || d < s->distance) {
        s->nearest = candidate;
        s->distance = d;
    }
    if (strncmp(s->word, candidate, s->n) != 0) return;
    s->begun = candidate;
    s->n_begun++;
}

const char *near_best(const struct near *s)
{
    int most = MIN(MAX((int)s->n / 3, 1), 3);
    if (s->n > 1 && s->n_begun == 1 && s->distance > 1) return s->begun;
    return s->nearest && s->distance <= most ? s->nearest : NULL;
}
