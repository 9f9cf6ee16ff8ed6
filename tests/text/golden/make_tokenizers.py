#!/usr/bin/env python3
"""Golden files: tiny tokenizers of each kind that Hugging Face checkpoints have, and the ids that the
`tokenizers` package gives for texts in forty scripts, emoji, white space, controls and added tokens.

    python3 -m venv v && v/bin/pip install tokenizers==0.23.3
    v/bin/python make_tokenizers.py [OUTDIR [DATA]]      DATA: a folder with real tokenizers, REAL below
    v/bin/python make_tokenizers.py OUTDIR --only NAME...   others stay as they are

The files are in the tree; the tests read those and need no Python. Training
breaks ties by chance, so a second run gives other files, as good as these. It writes

    NAME.json     tokenizer.json of that kind
    ids.json      {"texts": [...], "ids": {NAME: [[id, ...], ...]}, "decoded": {NAME: [text, ...]}}
                  ids with special tokens added and parsed; decoded: of those ids, special ones skipped, null where
                  this project decodes otherwise on purpose: an added token's own letters are not read as bytes,
                  only one space is dropped from an answer's beginning, and a piece that goes on within a word
                  ("##ing") has no mark there either
    real.json     {"ids": {PATH: [[id, ...], ...]}}: the same texts by the real tokenizer.json files of DATA
"""

import json
import os
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

assert tokenizers.__version__ == "0.23.3", "other versions may have other Unicode tables"

SCRIPTS = [
    "Hello, world! It's 2024 and we'll pay $1,234.56.", "Straße, façade, naïve, Ærøskøbing, İstanbul",
    "Γειά σου Κόσμε, καλημέρα", "Привет, мир! Съешь ещё этих булок", "Բարեւ աշխարհ", "გამარჯობა მსოფლიო",
    "שָׁלוֹם עוֹלָם", "مرحبا بالعالم، كيف الحال؟ ١٢٣", "سلام دنیا ۴۵۶", "ܫܠܡܐ ܥܠܡܐ", "ߤߌ߬ߟߊ ߘߎ߰ߢߊ", "ሰላም ልዑል ፩፪፫",
    "नमस्ते दुनिया १२३", "নমস্কার বিশ্ব", "ਸਤ ਸ੍ਰੀ ਅਕਾਲ", "નમસ્તે વિશ્વ", "ନମସ୍କାର ବିଶ୍ୱ", "வணக்கம் உலகம்", "నమస్కారం ప్రపంచం",
    "ನಮಸ್ಕಾರ ಜಗತ್ತು", "നമസ്കാരം ലോകം", "ආයුබෝවන් ලෝකය", "สวัสดีชาวโลก ๑๒๓", "ສະບາຍດີໂລກ", "བཀྲ་ཤིས་བདེ་ལེགས", "မင်္ဂလာပါကမ္ဘာ ၁၂",
    "សួស្តី​ពិភពលោក", "ᠰᠠᠢᠨ ᠪᠠᠶᠢᠨ᠎ᠠ", "你好，世界！三百二十一", "こんにちは世界、カタカナ", "안녕하세요 세계", "한글", "ᏏᏲ ᎡᎶᎯ", "ᐊᐃᓐᖓᐃ",
    "ꦱꦸꦒꦼꦁ", "ᮝᮤᮜᮥᮏᮨᮀ", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "ᚠᚢᚦᚨᚱᚲ", "𐌲𐌿𐍄𐌹𐍃𐌺", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ⅣⅫ ½ ²", "ⲧⲙⲛⲧⲣⲙⲛⲕⲏⲙⲉ", "ހެލޯ", "ꯃꯩꯇꯩ", "ខ្មែរ ㄅㄆㄇ",
]
OTHERS = [
    "", " ", "  ", "\n", "\r\n\r\n", "\t\ta  b   c    ", " \n \n  x", "end \u3000\u00a0\u2003 wide", "zero\u200bwidth\u200djoin\ufeff",
    "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☺️ 1️⃣", "😀😃😄😁 text 🤷🏻‍♀️!", "e\u0301 a\u030a o\u0308\u0323 \u1112\u1161\u11ab", "Å Å ﬁ ① ｶﾞ", "\x00\x01\x1f\x7f\u0085\u2028",
    "def f(x):\n    return x**2  # ok\n\n\n", "CamelCaseHTTPServer's I'LL WE'Ve don't", "1 12 123 1234 12345 3.14e-10", "a_b-c/d\\e|f^g`h~i",
    "....!!!???---===", "\u2581already \u2581\u2581meta", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\u180ex\u180e", "𐒲𐒳 𞤀𞤣𞤤𞤢𞤥 𑄌𑄋𑄴", "naïve\u0301\u0301",
    "<s>hello</s> <s> x </s>", "a<|im_start|>user\nhi<|im_end|>\n", "<|im_start|><|im_start|>", "x <tool> y  <tool>  z<tool>", "tool<tool>tool",
    "word mask mask, unmask mask1 mask", "  [MASK]  [MASK][MASK] \n[MASK]", "left   <L>  right", "left   <R>  right", "<|im_star", "<unk> and <pad>",
    "café <é> cafe\u0301 <e\u0301>", "<0x41> <0x0A>",
]
SPECIAL = ["<|im_start|>", "<|im_end|>"]
ADDED = [AddedToken("<tool>", normalized=True, special=False), AddedToken("mask", single_word=True, normalized=False, special=False),
         AddedToken("[MASK]", lstrip=True, normalized=False, special=True), AddedToken("<L>", lstrip=True, normalized=False, special=False),
         AddedToken("<R>", rstrip=True, normalized=False, special=False), AddedToken("<é>", normalized=True, special=False)]

GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(regex, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(regex), behavior, invert)


def byte_level(prefix=False, regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


# name: (pre-tokenizer, normalizer, switches of the model, begins with BOS)
BYTES = {
    "llama3": ([split(GPT4 % "{1,3}"), byte_level()], None, {"ignore_merges": True}, True),
    "qwen2": ([split(GPT4 % ""), byte_level()], normalizers.NFC(), {}, False),
    "starcoder": ([pre_tokenizers.Digits(True), byte_level(regex=True)], None, {}, False),
    "gpt2-prefix": ([byte_level(prefix=True, regex=True)], None, {}, False),
    "gpt4o": ([split(CASED, "removed", True), byte_level()], None, {}, True),
    "deepseek": ([split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                  pre_tokenizers.Digits(False), byte_level()], None, {}, True),
    "tekken": ([split(CASED.replace("{1,3}", "").replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "")), byte_level()], None, {"ignore_merges": True}, True),
    "command-r": ([pre_tokenizers.Digits(True), byte_level(regex=True)], normalizers.NFC(), {}, True),
    "neox": ([byte_level(regex=True)], normalizers.NFC(), {}, False),
    "glm4": ([split(GPT4 % "{1,3}"), byte_level()], None, {"ignore_merges": True}, False),
    "deepseek-v3": ([split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
                     split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
                           r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
                     byte_level()], None, {}, True),
    "gpt2-inner": ([pre_tokenizers.Digits(True), byte_level(prefix=True, regex=True)], None, {}, False),
    "falcon": ([pre_tokenizers.Punctuation("contiguous"), byte_level(regex=True), split("[0-9][0-9][0-9]")],
               normalizers.Sequence([normalizers.NFKC()]), {}, False),
}
META = "\u2581"
CHARS = {
    "llama2": (None, normalizers.Sequence([normalizers.Prepend(META), normalizers.Replace(" ", META)]),
               {"byte_fallback": True, "fuse_unk": True}, True),
    "mistral": (pre_tokenizers.Metaspace(META, "first", split=False), None, {"byte_fallback": True, "fuse_unk": True}, True),
    "meta-always": (pre_tokenizers.Metaspace(META, "always", split=True), normalizers.NFD(), {"fuse_unk": True}, False),
    "meta-never": (pre_tokenizers.Metaspace(META, "never", split=True), normalizers.NFKD(), {"byte_fallback": False}, False),
    "meta-inner": (pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(META, "first", split=True)]), None, {}, False),
    "gemma": (pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", META), {"byte_fallback": True, "fuse_unk": True}, True),
    "words": (pre_tokenizers.Split(" ", "merged_with_previous"), None, {"byte_fallback": True}, False),
}


# The same, by scores.
UNIGRAM = {
    "unigram": (pre_tokenizers.Metaspace(META, "always", split=True), None, {}, True),
    "unigram-words": (pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(META, "always", split=True)]), None, {}, True),
    "unigram-bytes": (pre_tokenizers.Metaspace(META, "always", split=True), normalizers.NFKC(), {"byte_fallback": True}, True),
    "unigram-whole": (pre_tokenizers.Metaspace(META, "first", split=False), None, {"byte_fallback": True}, False),
}


def use_map(charsmap):
    """One more kind, with SentencePiece's map of characters as the package's converter writes it (make_sentencepiece.py calls this)."""
    steps = [normalizers.Precompiled(charsmap), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), META)]
    UNIGRAM["unigram-map"] = (pre_tokenizers.Metaspace(META, "always", split=True), normalizers.Sequence(steps), {"byte_fallback": True}, True)


BERT = normalizers.BertNormalizer
SPACES = normalizers.Replace(Regex(r"\s+"), " ")
CLIP = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
# Words, and merges that know where a word ends: name: (model, its switches, normalizer, pre-tokenizer, post-processor's kind, decoder)
WORDS = {
    "bert": ("WordPiece", {}, BERT(), pre_tokenizers.BertPreTokenizer(), "template", decoders.WordPiece()),
    "bert-cased": ("WordPiece", {}, BERT(lowercase=False), pre_tokenizers.BertPreTokenizer(), "bert", decoders.WordPiece(cleanup=False)),
    "bert-plain": ("WordPiece", {"max_input_chars_per_word": 7, "continuing_subword_prefix": "_"},
                   BERT(clean_text=False, handle_chinese_chars=False, strip_accents=False), pre_tokenizers.WhitespaceSplit(), None,
                   decoders.WordPiece(prefix="_")),
    "wordpiece": ("WordPiece", {"continuing_subword_prefix": ""},
                  normalizers.Sequence([normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]),
                  pre_tokenizers.Whitespace(), "roberta", None),
    "wordlevel": ("WordLevel", {}, None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_next")]),
                  "template", decoders.WordPiece()),
    "wordlevel-joined": ("WordLevel", {}, BERT(strip_accents=True, lowercase=False), pre_tokenizers.CharDelimiterSplit("e"), None, None),
    "wordlevel-fixed": ("WordLevel", {}, normalizers.Lowercase(), pre_tokenizers.FixedLength(length=2), None, decoders.WordPiece()),
    "gpt1": ("BPE", {"end_of_word_suffix": "</w>"}, BERT(), pre_tokenizers.BertPreTokenizer(), None, decoders.BPEDecoder()),
    "clip": ("BPE", {"end_of_word_suffix": "</w>"}, normalizers.Sequence([normalizers.NFC(), SPACES, normalizers.Lowercase()]),
             pre_tokenizers.Sequence([split(CLIP, "removed", True), byte_level()]), "roberta", decoders.ByteLevel()),
    "bpe-inner": ("BPE", {"continuing_subword_prefix": "##", "end_of_word_suffix": "@", "fuse_unk": True}, None,
                  pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)]), None, decoders.WordPiece()),
    "bpe-bytes": ("BPE", {"continuing_subword_prefix": "_"}, normalizers.NFC(), byte_level(regex=True), None, decoders.ByteLevel()),
    "bpe-classes": ("BPE", {"fuse_unk": True}, None,
                    pre_tokenizers.Sequence([split(r"\w+|\W"), split("[[:punct:]]"), split("[[:alpha:]x]+"), split(r"[^\w\s]")]), "long", None),
    "bytes-first": ("BPE", {}, normalizers.ByteLevel(), pre_tokenizers.Split("Ġ", "merged_with_next"), "bert", decoders.ByteLevel()),
}


def train_words(name):
    kind, switches, normal, pre, post, decoder = WORDS[name]
    words = kind != "BPE"
    unk = "[UNK]" if words else "<unk>"
    t = Tokenizer(getattr(models, kind)(unk_token=unk, **({"vocab": {unk: 0}} if words else {}), **switches))
    if normal:
        t.normalizer = normal
    t.pre_tokenizer = pre
    marks = {k: v for k, v in switches.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")}
    how = {"vocab_size": 900, "special_tokens": ["[PAD]", unk, "[CLS]", "[SEP]"], "show_progress": False, **({} if kind == "WordLevel" else marks)}
    if kind != "WordLevel":
        how["limit_alphabet"] = 380
    if name == "bytes-first":
        how["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator([x.replace("\0", "") for x in SCRIPTS + OTHERS] * 2, getattr(trainers, kind.replace("BPE", "Bpe") + "Trainer")(**how))
    t.add_special_tokens(SPECIAL)
    t.add_tokens(ADDED)
    cls, sep = [(s, t.token_to_id(s)) for s in ("[CLS]", "[SEP]")]
    if post == "template":
        t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[cls, sep])
    elif post == "long":
        t.post_processor = processors.TemplateProcessing(single="[CLS] [SEP] $A [CLS] [SEP] [SEP]", special_tokens=[cls, sep])
    elif post:
        t.post_processor = {"bert": processors.BertProcessing, "roberta": processors.RobertaProcessing}[post](sep, cls)
    if decoder:
        t.decoder = decoder
    return t


DECODED = (*WORDS, "unigram-words", "llama3", "qwen2", "llama2", "mistral", "gemma", "tekken", "command-r")


def train_unigram(name):
    pre, normal, switches, bos = UNIGRAM[name]
    t = Tokenizer(models.Unigram())
    if normal:
        t.normalizer = normal
    t.pre_tokenizer = pre
    t.train_from_iterator((SCRIPTS + OTHERS) * 2, trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False))
    j = json.loads(t.to_str())
    vocab = [[p, s] for p, s in j["model"]["vocab"]]
    vocab = [v for i, v in enumerate(vocab) if v[0] not in [w[0] for w in vocab[:i]]]   # "<s>" is in the texts too
    keep = {"<unk>", "<s>", "</s>", META}
    vocab = [v for i, v in enumerate(vocab) if (v[0] in keep or len(v[0]) > 1 or i % 3) and "\0" not in v[0]]   # some letters are unknown
    bytes = [[f"<0x{i:02X}>", -12.5] for i in range(256)] if switches.get("byte_fallback") else []
    vocab = [v for v in vocab if v[0] not in [b[0] for b in bytes]]
    vocab = vocab[:3] + bytes + vocab[3:]
    for a in j["added_tokens"]:
        a["id"] = [v[0] for v in vocab].index(a["content"])
    j["model"] = {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": bool(bytes)}
    t = Tokenizer.from_str(json.dumps(j))
    t.add_special_tokens(SPECIAL)
    t.add_tokens(ADDED)
    if bos:
        t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
    t.decoder = decoders.Sequence([decoders.ByteFallback(), metaspace_back(pre)])
    return t


def metaspace_back(pre):
    pre = pre if isinstance(pre, pre_tokenizers.Metaspace) else pre[1]
    return decoders.Metaspace(META, pre.prepend_scheme, pre.split)


def train(name):
    if name in WORDS:
        return train_words(name)
    if name in UNIGRAM:
        return train_unigram(name)
    chars = name in CHARS
    pre, normal, switches, bos = (CHARS if chars else BYTES)[name]
    t = Tokenizer(models.BPE(unk_token="<unk>" if chars else None, **switches))
    if normal:
        t.normalizer = normal
    if pre:
        t.pre_tokenizer = pre_tokenizers.Sequence(pre) if isinstance(pre, list) and len(pre) > 1 else pre[0] if isinstance(pre, list) else pre
    special = ["<unk>", "<s>", "</s>"] if chars else []
    if switches.get("byte_fallback"):
        special += [f"<0x{i:02X}>" for i in range(256)]
    alphabet = [] if chars else pre_tokenizers.ByteLevel.alphabet()
    size = len(special) + (340 if chars else 460)
    limit = {"limit_alphabet": 110} if chars else {}
    t.train_from_iterator((SCRIPTS + OTHERS) * 2, trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False, **limit))
    # byte tokens are part of the vocabulary, not added tokens
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(j))
    t.add_special_tokens(SPECIAL + ([] if chars else ["<s>", "</s>"]))
    t.add_tokens(ADDED)
    if bos:
        id = t.token_to_id("<s>")
        process = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", id)])
        t.post_processor = process if chars else processors.Sequence([processors.ByteLevel(trim_offsets=False), process])
    if not chars:
        t.decoder = decoders.ByteLevel()
    elif name == "llama2":
        t.decoder = decoders.Sequence([decoders.Replace(META, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    elif name == "gemma":
        t.decoder = decoders.Sequence([decoders.Replace(META, " "), decoders.ByteFallback(), decoders.Fuse()])
    elif name != "words":
        t.decoder = decoders.Sequence([decoders.ByteFallback(), metaspace_back(pre)])
    return t


REAL = ["tokenizers/hf/gpt2.tokenizer.json", "tokenizers/hf/llama.tokenizer.json",
        "hfmeta/granite-3b-code-instruct-128k/tokenizer.json"]


def write_real(out, data):
    ids = {}
    for path in REAL:
        t = Tokenizer.from_file(os.path.join(data, path))
        ids[path] = [t.encode(x).ids for x in SCRIPTS + OTHERS]
    with open(os.path.join(out, "real.json"), "w") as f:
        json.dump({"ids": ids}, f, separators=(",", ":"))
        f.write("\n")


def decoded(t, text, ids):
    inner = isinstance(t.decoder, decoders.WordPiece) and t.decoder.prefix
    shown = [i for i in ids if i not in [a for a, d in t.get_added_tokens_decoder().items() if d.special]]
    if inner and shown and t.id_to_token(shown[0]).startswith(inner):
        return None
    own_letters = "<é>" in text and not isinstance(t.normalizer, normalizers.ByteLevel)
    return None if own_letters or text == "  " else t.decode(ids)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    only = sys.argv[3:] if "--only" in sys.argv else None
    if len(sys.argv) > 2 and not only:
        write_real(out, sys.argv[2])
        return
    texts = SCRIPTS + OTHERS
    golden = {"texts": texts, "ids": {}, "decoded": {}}
    if only:
        with open(os.path.join(out, "ids.json")) as f:
            golden = json.load(f)
        assert golden["texts"] == texts, "other texts: make all of them"
    for name in only or [*BYTES, *CHARS, *UNIGRAM, *WORDS]:
        t = train(name)
        with open(os.path.join(out, name + ".json"), "w") as f:
            json.dump(json.loads(t.to_str()), f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        ids = [t.encode(x).ids for x in texts]
        golden["ids"][name] = ids
        golden["decoded"][name] = [decoded(t, x, i) for x, i in zip(texts, ids)] if name in DECODED else []
        print(f"{name:12} {t.get_vocab_size()} tokens, {sum(map(len, ids))} ids")
    with open(os.path.join(out, "ids.json"), "w") as f:
        json.dump(golden, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
