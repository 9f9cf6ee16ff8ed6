/* template_builtin.c: templates for model files that carry none, by the names people know. */
#include "engine/text/template.h"

#include <string.h>

/* Forms without a system role put its text before a user's. */
#define SYSTEM_IN_USER                                                                             \
    "{% set system = '' %}"                                                                        \
    "{% if messages and messages[0]['role'] == 'system' %}"                                        \
    "{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"                   \
    "{% endif %}"
#define EACH      "{% for m in messages %}"
#define PROMPT(t) "{% if add_generation_prompt %}{{ '" t "' }}{% endif %}"

static const char chatml[] = EACH
    "{{ '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] ~ '<|im_end|>\\n' }}"
    "{% endfor %}" PROMPT("<|im_start|>assistant\\n");

static const char llama_2[] = SYSTEM_IN_USER EACH
    "{% if m['role'] == 'user' %}"
    "{{ bos_token ~ '[INST] ' }}"
    "{% if loop.first and system %}{{ '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' }}{% endif %}"
    "{{ m['content'] | trim ~ ' [/INST]' }}"
    "{% else %}"
    "{{ ' ' ~ m['content'] | trim ~ ' ' ~ eos_token }}"
    "{% endif %}{% endfor %}";

static const char llama_3[] = "{{ bos_token }}" EACH
    "{{ '<|start_header_id|>' ~ m['role'] ~ '<|end_header_id|>\\n\\n' }}"
    "{{ m['content'] | trim ~ '<|eot_id|>' }}"
    "{% endfor %}" PROMPT("<|start_header_id|>assistant<|end_header_id|>\\n\\n");

static const char mistral[] = SYSTEM_IN_USER "{{ bos_token }}" EACH
    "{% if m['role'] == 'user' %}"
    "{{ '[INST] ' ~ (system ~ '\\n\\n' if loop.last and system else '') }}"
    "{{ m['content'] ~ ' [/INST]' }}"
    "{% else %}"
    "{{ ' ' ~ m['content'] ~ eos_token }}"
    "{% endif %}{% endfor %}";

static const char zephyr[] = EACH
    "{{ '<|' ~ m['role'] ~ '|>\\n' ~ m['content'] ~ eos_token ~ '\\n' }}"
    "{% endfor %}" PROMPT("<|assistant|>\\n");

static const char phi_3[] = EACH
    "{{ '<|' ~ m['role'] ~ '|>\\n' ~ m['content'] ~ '<|end|>\\n' }}"
    "{% endfor %}" PROMPT("<|assistant|>\\n");

static const char gemma[] = SYSTEM_IN_USER "{{ bos_token }}" EACH
    "{{ '<start_of_turn>' ~ ('model' if m['role'] == 'assistant' else m['role']) ~ '\\n' }}"
    "{{ system ~ '\\n\\n' if loop.first and system else '' }}"
    "{{ m['content'] | trim ~ '<end_of_turn>\\n' }}"
    "{% endfor %}" PROMPT("<start_of_turn>model\\n");

static const char vicuna[] = SYSTEM_IN_USER
    "{{ system ~ '\\n\\n' if system else '' }}" EACH
    "{% if m['role'] == 'user' %}"
    "{{ 'USER: ' ~ m['content'] ~ '\\n' }}"
    "{% else %}"
    "{{ 'ASSISTANT: ' ~ m['content'] ~ eos_token ~ '\\n' }}"
    "{% endif %}{% endfor %}" PROMPT("ASSISTANT:");

static const struct { const char *name, *source; } builtins[] = {
    {"chatml", chatml}, {"llama-2", llama_2}, {"llama-3", llama_3}, {"mistral", mistral},
    {"zephyr", zephyr}, {"phi-3", phi_3},     {"gemma", gemma},     {"vicuna", vicuna},
};

const char *eng_template_builtin(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(builtins); i++)
        if (name && !strcmp(builtins[i].name, name)) return builtins[i].source;
    return NULL;
}

const char *eng_template_builtin_names(void)
{
    return "chatml, llama-2, llama-3, mistral, zephyr, phi-3, gemma and vicuna";
}
