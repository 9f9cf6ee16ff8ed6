/* reply_name.c: see reply_name.h. */
#include "coordinator/api/reply_name.h"
#include "base/base.h"
#include "base/rng.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool crd_reply_name_good(const char *name)
{
    if (!*name) return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("_-.", *p)) return false;
    return true;
}

static const char *skip(const char *p, const char *end, const char *what)
{
    while (p < end && *p && strchr(what, *p)) p++;
    return p;
}

bool crd_reply_name_of(const char *head, size_t n, char name[REPLY_NAME_MAX])
{
    const char *end = head + n, *p = skip(head, end, " \t\r\n[,;");
    const char *sep = memchr(p, REPLY_NAME_SEP, (size_t)(end - p));
    *name = 0;
    if (p == end) return true;
    if (sep && sep - p == 8 && !memcmp(p, "function", 8))
        p = sep + 1;                                           /* DeepSeek: type, then name */
    if (end - p > 10 && !memcmp(p, "functions.", 10)) p += 10; /* Kimi: functions.NAME:INDEX */
    size_t len = 0;
    while (p + len < end && (isalnum((unsigned char)p[len]) || (p[len] && strchr("_-.", p[len])))) len++;
    if (!len || len >= REPLY_NAME_MAX) return false;
    const char *rest = skip(p + len, end, " \t\r\n:0123456789");
    bool ended = rest == end || *rest == REPLY_NAME_SEP || *rest == '`';
    snprintf(name, REPLY_NAME_MAX, "%.*s", (int)len, p);
    return ended;
}

bool crd_reply_offered(const json_t *tools, const char *name)
{
    size_t i;
    json_t *t;
    json_array_foreach((json_t *)(uintptr_t)tools, i, t)
    {
        const char *s = json_string_value(json_object_get(json_object_get(t, "function"), "name"));
        if (s && !strcmp(s, name)) return true;
    }
    return false;
}

void crd_reply_draw_id(char id[48], bool short_id, uint64_t seed, int32_t call)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    size_t at = short_id ? 0 : (size_t)sprintf(id, "chatcmpl-tool-"), len = short_id ? 9 : 32;
    for (size_t i = 0; i < len; i++) id[at + i] = digits[rng_at(seed, (uint64_t)call, i, 0) % (short_id ? 36 : 16)];
    id[at + len] = 0;
}
