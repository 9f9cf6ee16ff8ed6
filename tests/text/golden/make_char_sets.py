#!/usr/bin/env python3
"""Prints the tables of engine/text/char_sets.c: which characters the steps of the `tokenizers` package take for controls, marks and
punctuation. Its tables are older than Unicode's newest, so each is asked for by running the step over every character.

    python3 -m venv v && v/bin/pip install tokenizers==0.23.3
    v/bin/python make_char_sets.py
"""

from tokenizers import normalizers, pre_tokenizers

CHARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def gone(normalizer):
    return {c for c in CHARS if normalizer.normalize_str("a" + chr(c) + "b") == "ab"}


def bert(**switches):
    return normalizers.BertNormalizer(**{"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False, **switches})


def apart(step):
    return {c for c in CHARS if [p for p, _ in step.pre_tokenize_str("a" + chr(c) + "b")] == ["a", chr(c), "b"]}


def show(name, chars):
    ranges = []
    for c in sorted(chars):
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    line = f"static const uint32_t {name}[][2] = {{"
    print(line)
    line = "   "
    for a, b in ranges:
        item = f" {{0x{a:X}, 0x{b:X}}},"
        if len(line) + len(item) > 150:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


def main():
    show("controls", gone(bert(clean_text=True)))
    show("nonspacing", gone(bert(strip_accents=True)))
    show("marks", gone(normalizers.StripAccents()))
    show("punctuation", apart(pre_tokenizers.Punctuation()))


if __name__ == "__main__":
    main()
