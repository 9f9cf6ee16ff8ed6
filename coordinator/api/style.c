/* style.c: see style.h. */
#include "coordinator/api/style.h"
#include "base/base.h"

#include <string.h>

static const struct crd_args_form
    glm_args = {"\n<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>", "", "</arg_value>", false},
    coder_args = {"<parameter=", ">\n", "\n</parameter>\n", "", "</parameter>", false},
    python_args = {"", "=", "", ", ", NULL, true};

/* In the order they are tried: a template may show several marks, and the rarer one decides. */
#define OBJECT "{\"name\": \"%N\", \"arguments\": %A}"
static const struct crd_call_style styles[] = {
    /* DeepSeek V3, R1: type, mark, name, fenced JSON; V3.1: name, mark, JSON */
    {.name = "deepseek",
     .known_by = {"<｜tool▁calls▁begin｜>"},
     .open = "<｜tool▁calls▁begin｜>",
     .close = "<｜tool▁calls▁end｜>",
     .call_open = "<｜tool▁call▁begin｜>",
     .call_close = "<｜tool▁call▁end｜>",
     .sep = {"<｜tool▁sep｜>"},
     .forms = {{"```json", "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>function<｜tool▁sep｜>%N\n```json\n%A\n```"
                "<｜tool▁call▁end｜>",
                "\n", "<｜tool▁calls▁end｜>"},
               {NULL, "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>%N<｜tool▁sep｜>%A<｜tool▁call▁end｜>", "",
                "<｜tool▁calls▁end｜>"}}},
    {.name = "kimi",
     .known_by = {"<|tool_calls_section_begin|>"},
     .open = "<|tool_calls_section_begin|>",
     .close = "<|tool_calls_section_end|>",
     .call_open = "<|tool_call_begin|>",
     .call_close = "<|tool_call_end|>",
     .sep = {"<|tool_call_argument_begin|>"},
     .forms = {{NULL, "<|tool_calls_section_begin|>",
                "<|tool_call_begin|>functions.%N:%I<|tool_call_argument_begin|>%A"
                "<|tool_call_end|>",
                "", "<|tool_calls_section_end|>"}}},
    /* a list of objects, or name[ARGS]{...} */
    {.name = "mistral",
     .known_by = {"[TOOL_CALLS]"},
     .open = "[TOOL_CALLS]",
     .sep = {"[ARGS]", "[CALL_ID]"},
     .short_ids = true,
     .forms = {{"[ARGS]", "", "[TOOL_CALLS]%N[ARGS]%A", "", ""},
               {NULL, "[TOOL_CALLS][", OBJECT, ", ", "]"}}},
    /* Granite, Phi-4: a list of objects */
    {.name = "granite",
     .known_by = {"<|tool_call|>"},
     .open = "<|tool_call|>",
     .close = "<|/tool_call|>",
     .forms = {{"<|/tool_call|>", "<|tool_call|>[", OBJECT, ", ", "]<|/tool_call|>"},
               {NULL, "<|tool_call|>[", OBJECT, ", ", "]"}}},
    /* arguments in tags */
    {.name = "glm",
     .known_by = {"<arg_key>"},
     .args = &glm_args,
     .open = "<tool_call>",
     .close = "</tool_call>",
     .call_open = "<arg_key>",
     .call_close = "</arg_key>",
     .sep = {"<arg_value>", "</arg_value>"},
     .forms = {{NULL, "", "<tool_call>%N%A\n</tool_call>", "\n", ""}}},
    {.name = "qwen3-coder",
     .known_by = {"<parameter="},
     .args = &coder_args,
     .open = "<tool_call>",
     .close = "</tool_call>",
     .forms = {{NULL, "", "<tool_call>\n<function=%N>\n%A</function>\n</tool_call>", "\n", ""}}},
    /* LFM2: a list of calls in Python's syntax */
    {.name = "lfm2",
     .known_by = {"<|tool_call_start|>", "<|tool_list_start|>"},
     .args = &python_args,
     .open = "<|tool_call_start|>",
     .close = "<|tool_call_end|>",
     .forms = {{NULL, "<|tool_call_start|>[", "%N(%A)", ", ", "]<|tool_call_end|>"}}},
    /* Hermes, Qwen: one object between marks */
    {.name = "hermes",
     .known_by = {"<tool_call>"},
     .open = "<tool_call>",
     .close = "</tool_call>",
     .forms = {{NULL, "", "<tool_call>\n" OBJECT "\n</tool_call>", "\n", ""}}},
    {.name = "functionary",
     .known_by = {"<function="},
     .open = "<function=",
     .close = "</function>",
     .sep = {">"},
     .forms = {{NULL, "", "<function=%N>%A</function>", "", ""}}},
    /* Llama 3.x: an object as the whole reply, perhaps after the tag; several with ';' */
    {.name = "llama",
     .known_by = {"<|python_tag|>"},
     .bare = true,
     .open = "<|python_tag|>",
     .forms = {{NULL, "", "{\"name\": \"%N\", \"parameters\": %A}", NULL, ""}}},
    /* a template that shows tools in some way of its own: JSON it will be */
    {.name = "json",
     .known_by = {"tools"},
     .bare = true,
     .forms = {{"\"parameters\": ", "", "{\"name\": \"%N\", \"parameters\": %A}", NULL, ""},
               {NULL, "", OBJECT, NULL, ""}}},
};

static const struct crd_think_style thinks[] = {
    {"<think>", "</think>"},
    {"[THINK]", "[/THINK]"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"<seed:think>", "</seed:think>"},
};

const struct crd_call_style *crd_style_at(size_t i)
{
    return i < COUNT_OF(styles) ? &styles[i] : NULL;
}

static const struct crd_call_style *by_name(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(styles); i++)
        if (!strcmp(styles[i].name, name)) return &styles[i];
    return NULL;
}

static bool known(const struct crd_call_style *c, const char *source)
{
    return strstr(source, c->known_by[0]) || (c->known_by[1] && strstr(source, c->known_by[1]));
}

static const struct crd_call_form *form_of(const struct crd_call_style *c, const char *source)
{
    const struct crd_call_form *f = c->forms;
    while (f->if_has && !strstr(source, f->if_has)) f++;
    return f;
}

struct crd_style crd_style_of(const char *source)
{
    struct crd_style s = {.calls = by_name("hermes")}; /* what tools_prompt.c asks for */
    s.form = s.calls->forms;
    if (!source) return s;
    s.takes_tools = strstr(source, "tools") != NULL;
    for (size_t i = 0; i < COUNT_OF(styles) && s.takes_tools; i++) {
        if (!known(&styles[i], source)) continue;
        s.calls = &styles[i];
        break;
    }
    s.form = form_of(s.calls, source);
    for (size_t i = 0; i < COUNT_OF(thinks) && !s.think; i++)
        if (strstr(source, thinks[i].open) && strstr(source, thinks[i].close)) s.think = &thinks[i];
    return s;
}

bool crd_style_is_mark(const struct crd_call_style *c, const struct crd_think_style *t,
                       const char *text)
{
    const char *const marks[] = {c ? c->open : NULL,      c ? c->close : NULL,
                                 c ? c->call_open : NULL, c ? c->call_close : NULL,
                                 c ? c->sep[0] : NULL,    c ? c->sep[1] : NULL,
                                 t ? t->open : NULL,      t ? t->close : NULL};
    for (size_t i = 0; i < COUNT_OF(marks); i++)
        if (marks[i] && !strcmp(marks[i], text)) return true;
    return false;
}
