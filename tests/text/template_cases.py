#!/usr/bin/env python3
"""Writes template_cases.h: small templates and what Jinja2 renders, set up as Hugging Face transformers does.
Needs jinja2; run it again after adding cases:  python3 tests/text/template_cases.py > tests/text/template_cases.h"""
import datetime, json, re, sys, pathlib
import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2 import nodes


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def fail(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = fail
    env.globals["strftime_now"] = lambda f: datetime.datetime(2024, 7, 29, 12, 34, 56).strftime(f)
    return env


def c_string(s):
    out = ""
    for b in s.encode():
        if b in b'"\\':
            out += "\\" + chr(b)
        elif b == 10:
            out += "\\n"
        elif b == ord("?"):
            out += "\\?"
        elif 32 <= b < 127:
            out += chr(b)
        else:
            out += "\\%03o" % b
    return '"' + out + '"'


def main():
    here = pathlib.Path(__file__).parent
    text = (here / "test_template.c").read_text()
    context = json.loads(eval(re.search(r"context_text\[\] =\n(.*?);", text, re.S).group(1).join("()")))
    env = environment()
    print("/* Made by template_cases.py with Jinja2 %s: do not edit. */" % jinja2.__version__)
    print("static const struct small cases[] = {")
    for case in (here / "template_cases.txt").read_text().split("\n----\n"):
        case = case.replace("\\r", "\r").replace("\n~~~", "")
        if not case:
            continue
        try:
            want = env.from_string(case).render(**context)
        except Exception as e:
            want = "ERROR " + type(e).__name__
            print(case, want, e, file=sys.stderr)
        print("    {%s,\n     %s}," % (c_string(case), c_string(want)))
    print("};")


main()
