/* format.c: see format.h. Each is within what the format's RFC allows; a few rare spellings are
 * left out (leap seconds, quoted mailboxes), as a generator has no need of them. */
#include "engine/grammar/format.h"

#include "base/buf.h"
#include "engine/grammar/regex.h"

#include <string.h>

#define LEAP "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
#define DATE                                                                                       \
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-" \
    "9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|" LEAP "-02-29)"
#define TIME                                                                                       \
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:[Zz]|[+-](?:[01][0-9]|2[0-3])" \
    ":[0-5][0-9])"
#define OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define IPV4  OCTET "(?:\\." OCTET "){3}"
#define H16   "[0-9A-Fa-f]{1,4}"
#define LS32  "(?:" H16 ":" H16 "|" IPV4 ")"
#define LABEL "[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
#define SHORT "[0-9A-Za-z](?:[0-9A-Za-z-]{0,25}[0-9A-Za-z])?"
#define HOST                                                                                       \
    "(?:" LABEL "(?:\\." LABEL "){0,2}|" SHORT "(?:\\." SHORT                                      \
    "){0,8})" /* either way at most 253 characters */
#define PCHAR "(?:[0-9A-Za-z._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define QUERY "(?:\\?(?:" PCHAR "|[/?])*)?(?:#(?:" PCHAR "|[/?])*)?"
#define AUTH                                                                                       \
    "(?:(?:[0-9A-Za-z._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?(?:" HOST "|" IPV4                      \
    "|\\[[0-9A-Fa-f:]{2,39}\\])(?::[0-9]{1,5})?"
#define URI                                                                                        \
    "[A-Za-z][0-9A-Za-z+.-]*:(?://" AUTH "(?:/" PCHAR "*)*|/(?:" PCHAR "+(?:/" PCHAR               \
    "*)*)?|" PCHAR "+(?:/" PCHAR "*)*)" QUERY
#define POINTER "(?:/(?:[^/~]|~[01])*)*"

static const struct {
    const char *name, *regex;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "[Tt]" TIME},
    {"duration", "P(?:[0-9]+W|(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
                 "(?:T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S))?|T(?:[0-9]+"
                 "H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S))"},
    {"email", "[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+(?:\\.[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+)*@" HOST},
    {"hostname", HOST},
    {"ipv4", IPV4},
    {"ipv6", "(?:(?:" H16 ":){6}" LS32 "|::(?:" H16 ":){5}" LS32 "|(?:" H16 ")?::(?:" H16
             ":){4}" LS32 "|(?:(?:" H16 ":){0,1}" H16 ")?::(?:" H16 ":){3}" LS32 "|(?:(?:" H16
             ":){0,2}" H16 ")?::(?:" H16 ":){2}" LS32 "|(?:(?:" H16 ":){0,3}" H16 ")?::" H16
             ":" LS32 "|(?:(?:" H16 ":){0,4}" H16 ")?::" LS32 "|(?:(?:" H16 ":){0,5}" H16 ")?::" H16
             "|(?:(?:" H16 ":){0,6}" H16 ")?::)"},
    {"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"},
    {"uri", URI},
    {"uri-reference",
     "(?:" URI "|(?://" AUTH "(?:/" PCHAR "*)*|/(?:" PCHAR "+(?:/" PCHAR
     "*)*)?|(?:[0-9A-Za-z._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+(?:/" PCHAR "*)*)?" QUERY ")"},
    {"json-pointer", POINTER},
    {"relative-json-pointer", "(?:0|[1-9][0-9]*)(?:#|" POINTER ")"},
};

/* Say nothing about the text. */
static const char *const notes[] = {"password", "binary", "byte",  "int32",
                                    "int64",    "float",  "double"};

/* Labels that claim to be another script's ("xn--...") follow rules of their own. */
static enum err without_foreign(struct eng_dfas *s, const struct dfa **d)
{
    static const char foreign[] = "(?:^|\\.)[^.]{2}--";
    const struct dfa *f;
    enum err e = eng_regex_compile(s, foreign, sizeof foreign - 1, false, &f);
    return e ? e : eng_dfa_op(s, DFA_MINUS, *d, f, d);
}

enum err eng_format_find(struct eng_dfas *s, const char *name, const struct dfa **out)
{
    for (size_t i = 0; i < COUNT_OF(formats); i++)
        if (!strcmp(formats[i].name, name)) {
            enum err e =
                eng_regex_compile(s, formats[i].regex, strlen(formats[i].regex), true, out);
            return e || strcmp(name, "hostname") ? e : without_foreign(s, out);
        }
    for (size_t i = 0; i < COUNT_OF(notes); i++)
        if (!strcmp(notes[i], name)) return *out = s->all, OK;
    struct buf list = {0};
    for (size_t i = 0; i < COUNT_OF(formats); i++)
        buf_printf(&list, "%s%s", i ? ", " : "", formats[i].name);
    err_set_text("'%.60s' is not supported; these are: %s", name, buf_str(&list));
    buf_free(&list);
    return ERR_UNSUPPORTED;
}
