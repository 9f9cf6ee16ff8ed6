/* template_builtin.c: templates for model files that carry none, by the name people know the form by. */
#include "engine/text/template.h"

#include <string.h>

#define SYSTEM_IN_USER                                                                             \
    "{% if messages and messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}" \
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"

static const struct { const char *name, *source; } builtins[] = {
    {"chatml",
     "{% for m in messages %}{{ '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] ~ '<|im_end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
    {"llama-2",
     SYSTEM_IN_USER
     "{% for m in messages %}{% if m['role'] == 'user' %}"
     "{{ bos_token ~ '[INST] ' ~ ('<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' if loop.first and system else '') ~ "
     "m['content'] | trim ~ ' [/INST]' }}"
     "{% else %}{{ ' ' ~ m['content'] | trim ~ ' ' ~ eos_token }}{% endif %}{% endfor %}"},
    {"llama-3",
     "{{ bos_token }}{% for m in messages %}"
     "{{ '<|start_header_id|>' ~ m['role'] ~ '<|end_header_id|>\\n\\n' ~ m['content'] | trim ~ '<|eot_id|>' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"mistral",
     SYSTEM_IN_USER
     "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
     "{{ '[INST] ' ~ (system ~ '\\n\\n' if loop.last and system else '') ~ m['content'] ~ ' [/INST]' }}"
     "{% else %}{{ ' ' ~ m['content'] ~ eos_token }}{% endif %}{% endfor %}"},
    {"zephyr",
     "{% for m in messages %}{{ '<|' ~ m['role'] ~ '|>\\n' ~ m['content'] ~ eos_token ~ '\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"},
    {"phi-3",
     "{% for m in messages %}{{ '<|' ~ m['role'] ~ '|>\\n' ~ m['content'] ~ '<|end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"},
    {"gemma",
     SYSTEM_IN_USER
     "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' ~ ('model' if m['role'] == 'assistant' else m['role'])"
     " ~ '\\n' ~ (system ~ '\\n\\n' if loop.first and system else '') ~ m['content'] | trim ~ '<end_of_turn>\\n' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"},
    {"vicuna",
     SYSTEM_IN_USER
     "{% if system %}{{ system ~ '\\n\\n' }}{% endif %}{% for m in messages %}"
     "{{ 'USER: ' ~ m['content'] ~ '\\n' if m['role'] == 'user' else 'ASSISTANT: ' ~ m['content'] ~ eos_token ~ '\\n' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"},
};

const char *eng_template_builtin(const char *name)
{
    for (size_t i = 0; i < sizeof builtins / sizeof *builtins; i++)
        if (name && !strcmp(builtins[i].name, name)) return builtins[i].source;
    return NULL;
}
