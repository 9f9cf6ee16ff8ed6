"""The chat format of tessera-demo: the Jinja template that goes into the GGUF, and its twin in Python.

The twin exists so that training and evaluation need no Jinja engine; train.py checks that both agree
whenever jinja2 is installed.
"""

import json

TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- '# Tools\n\nYou may call functions. Their signatures are within <tools></tools>:\n<tools>' }}
    {%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\n</tools>\n\nFor each call answer with a JSON object within <tool_call></tool_call>:\n' }}
    {{- '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'system' and loop.first %}
    {%- elif m.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- elif m.role == 'assistant' and m.tool_calls %}
        {{- '<|im_start|>assistant' }}
        {%- if m.content %}{{- '\n' + m.content }}{%- endif %}
        {%- for call in m.tool_calls %}
            {%- set f = call.function if call.function else call %}
            {{- '\n<tool_call>\n{"name": "' + f.name + '", "arguments": ' }}
            {%- if f.arguments is string %}{{- f.arguments }}{%- else %}{{- f.arguments | tojson }}{%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
""".strip()

TOOLS_HEAD = "# Tools\n\nYou may call functions. Their signatures are within <tools></tools>:\n<tools>"
TOOLS_TAIL = ("\n</tools>\n\nFor each call answer with a JSON object within <tool_call></tool_call>:\n"
              '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>')


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def call_text(calls):
    """Tool calls as the model writes them; arguments may be an object or, as in the API, its JSON text."""
    out = []
    for call in calls:
        f = call.get("function", call)
        args = f["arguments"] if isinstance(f["arguments"], str) else dumps(f["arguments"])
        out.append('<tool_call>\n{"name": "' + f["name"] + '", "arguments": ' + args + "}\n</tool_call>")
    return "\n".join(out)


def render_parts(messages, tools=None):
    """[(text, is_answer)]: the conversation cut so that training knows which tokens are the model's own."""
    parts, rest = [], messages
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    if system is not None:
        rest = messages[1:]
    if tools:
        head = system + "\n\n" if system is not None else ""
        head += TOOLS_HEAD + "".join("\n" + dumps(t) for t in tools) + TOOLS_TAIL
        parts.append(("<|im_start|>system\n" + head + "<|im_end|>\n", False))
    elif system is not None:
        parts.append(("<|im_start|>system\n" + system + "<|im_end|>\n", False))
    for i, m in enumerate(rest):
        if m["role"] == "tool":
            text = "" if i and rest[i - 1]["role"] == "tool" else "<|im_start|>user"
            text += "\n<tool_response>\n" + m["content"] + "\n</tool_response>"
            last = i + 1 == len(rest) or rest[i + 1]["role"] != "tool"
            head = parts.pop()[0] if text[0] == "\n" else ""
            parts.append((head + text + ("<|im_end|>\n" if last else ""), False))
        elif m["role"] == "assistant":
            calls = m.get("tool_calls")
            text = "\n".join(filter(None, [m.get("content"), call_text(calls) if calls else ""]))
            parts += [("<|im_start|>assistant\n", False), (text + "<|im_end|>", True), ("\n", False)]
        else:
            parts.append(("<|im_start|>" + m["role"] + "\n" + m["content"] + "<|im_end|>\n", False))
    return parts


def render(messages, tools=None, add_generation_prompt=True):
    text = "".join(t for t, _ in render_parts(messages, tools))
    return text + ("<|im_start|>assistant\n" if add_generation_prompt else "")
