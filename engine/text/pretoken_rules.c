/* pretoken_rules.c: the rules by name. Data, not code: the expressions are those of the models' own
 * tokenizers.
 *
 * White space is written out (S) rather than \s: PCRE2's \s under UCP also takes U+180E, which
 * the models' tokenizers do not. Letters, numbers and marks follow PCRE2's Unicode version (14 in
 * 10.42); a character assigned later is cut as a symbol until PCRE2 learns it, and is encoded
 * by its bytes all the same. */
#include "engine/text/pretoken.h"

#include <string.h>

/* Insides of character classes. */
#define S \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}" \
    "\\x{205F}\\x{3000}"
#define L "\\p{L}"
#define N "\\p{N}"
#define HAN_KANA_HANGUL "\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}"
#define ASCII_PUNCT "!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~"
/* Cased letters as deepseek-llm's tokenizer lists them (not quite a Unicode property). */
#define DEEPSEEK_LETTERS \
    "\\x{41}-\\x{5A}\\x{61}-\\x{7A}\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}" \
    "\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}" \
    "\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}" \
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}" \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}" \
    "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}" \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}" \
    "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}" \
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}" \
    "\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}" \
    "\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}" \
    "\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}" \
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}" \
    "\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}" \
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}" \
    "\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}" \
    "\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}" \
    "\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

/* Ends of most rules: line breaks with what is before them, blanks but for the last, the rest. */
#define BLANKS "[" S "]*[\\r\\n]+|[" S "]+(?![^" S "])|[" S "]+"
#define SHORT_FORMS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE_WORD "[^\\r\\n" L N "]?"

#define GPT2 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?[" L "]+| ?[" N "]+| ?[^" S L N "]+|[" S "]+(?![^" S "])|[" S "]+"
#define WORDS_DIGITS(digits) \
    SHORT_FORMS "|" BEFORE_WORD "[" L "]+|" digits "| ?[^" S L N "]+[\\r\\n]*|" BLANKS
#define CASED_WORDS(end, digits) \
    BEFORE_WORD UPPER "*" LOWER "+" end "|" BEFORE_WORD UPPER "+" LOWER "*" end "|" digits \
    "| ?[^" S L N "]+[\\r\\n/]*|" BLANKS
#define NO_PUNCT_WORDS \
    " ?[^(" S "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

static const char *const gpt2[] = {GPT2, NULL};
static const char *const llama3[] = {WORDS_DIGITS("[" N "]{1,3}"), NULL};
static const char *const qwen2[] = {WORDS_DIGITS("[" N "]"), NULL};
static const char *const qwen35[] = {
    SHORT_FORMS "|" BEFORE_WORD "[" L "\\p{M}]+|[" N "]"
    "| ?[^" S L "\\p{M}" N "]+[\\r\\n]*|" BLANKS, NULL};
static const char *const digits_apart[] = {"[" N "]", GPT2, NULL};
static const char *const falcon[] = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]", NULL};
static const char *const deepseek_llm[] = {
    "[\\r\\n]", "[" S "]?[" DEEPSEEK_LETTERS "]+",
    "[" S "]?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
    "(?<![" S "])[" S "]++\\z", /* the look-behind keeps long runs of blanks linear */
    "[" HAN_KANA_HANGUL "]+", "[" N "]", NULL};
static const char *const deepseek_coder[] = {
    "[\\r\\n]", "[" S "]?[" L "]+", "[" S "]?[\\p{P}]+", "[" HAN_KANA_HANGUL "]+", "[" N "]", NULL};
static const char *const deepseek3[] = {
    "[" N "]{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
    "[" ASCII_PUNCT "][A-Za-z]+|[^\\r\\n" L "\\p{P}\\p{S}]?[" L "\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" BLANKS, NULL};
static const char *const gpt4o[] = {CASED_WORDS(SHORT_FORMS "?", "[" N "]{1,3}"), NULL};
static const char *const tekken[] = {CASED_WORDS("", "[" N "]"), NULL};
static const char *const bloom[] = {NO_PUNCT_WORDS, NULL};
static const char *const viking[] = {NO_PUNCT_WORDS, "[" N "]", NULL};
static const char *const bailing[] = {
    "'(?i:[sdmt]|ll|ve|re)|" BEFORE_WORD "[" L "]+|[" N "]| ?[^" S L N "]+[\\r\\n]*"
    "|[" S "]*[\\r\\n]|[" S "]+(?![^" S "])|[" S "]+", NULL};
static const char *const seed_coder[] = {
    SHORT_FORMS "|" BEFORE_WORD "[" L "]+|[" N "]| ?[^" S L N "\\r\\n]+|" BLANKS, NULL};
static const char *const chameleon[] = {
    "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]| {4}| {2}", "[" N "]",
    "[\\p{P}" ASCII_PUNCT "]", GPT2, NULL};

static const struct pretoken_rule rules[] = {
    /* the first is the default */
    {"gpt-2", false, gpt2}, {"default", false, gpt2}, {"gpt2", false, gpt2},
    {"phi-2", false, gpt2}, {"mpt", false, gpt2}, {"olmo", false, gpt2}, {"jais", false, gpt2},
    {"gigachat", false, gpt2}, {"jina-es", false, gpt2}, {"jina-de", false, gpt2},
    {"jina-v1-en", false, gpt2}, {"jina-v2-es", false, gpt2}, {"jina-v2-de", false, gpt2},
    {"jina-v2-code", false, gpt2}, {"roberta-bpe", false, gpt2}, {"a.x-4.0", false, gpt2},
    {"mellum", false, gpt2}, {"modern-bert", false, gpt2}, {"exaone4", false, gpt2},
    {"trillion", false, gpt2}, {"granite-docling", false, gpt2},
    {"llama-bpe", true, llama3}, {"llama3", true, llama3}, {"llama-v3", true, llama3},
    {"falcon3", true, llama3}, {"falcon-h1", true, llama3}, {"pixtral", true, llama3},
    {"midm-2.0", true, llama3}, {"lfm2", true, llama3}, {"dbrx", false, llama3},
    {"smaug-bpe", false, llama3}, {"chatglm-bpe", false, llama3}, {"glm4", false, llama3},
    {"qwen2", false, qwen2}, {"deepseek-r1-qwen", false, qwen2}, {"stablelm2", false, qwen2},
    {"megrez", false, qwen2}, {"hunyuan", false, qwen2}, {"grok-2", false, qwen2},
    {"solar-open", false, qwen2}, {"kormo", false, qwen2},
    {"qwen35", false, qwen35},
    {"starcoder", false, digits_apart}, {"refact", false, digits_apart},
    {"command-r", false, digits_apart}, {"smollm", false, digits_apart},
    {"codeshell", false, digits_apart}, {"exaone", false, digits_apart},
    {"minerva-7b", false, digits_apart},
    {"falcon", false, falcon},
    {"deepseek-llm", false, deepseek_llm},
    {"deepseek-coder", false, deepseek_coder},
    {"deepseek-v3", false, deepseek3}, {"hunyuan-dense", false, deepseek3},
    {"joyai-llm", false, deepseek3},
    {"gpt-4o", false, gpt4o}, {"o200k", false, gpt4o}, {"llama4", false, gpt4o},
    {"kanana2", false, gpt4o}, {"minimax-m2", false, gpt4o},
    {"tekken", true, tekken},
    {"bloom", false, bloom}, {"poro-chat", false, bloom}, {"gpt3-finnish", false, bloom},
    {"viking", false, viking},
    {"bailingmoe", false, bailing}, {"bailingmoe2", false, bailing},
    {"llada-moe", false, bailing},
    {"seed-coder", false, seed_coder},
    {"chameleon", false, chameleon},
};

const struct pretoken_rule *pretoken_rule_find(const char *name)
{
    if (!name || !*name) return &rules[0];
    for (size_t i = 0; i < COUNT_OF(rules); i++)
        if (!strcmp(rules[i].name, name)) return &rules[i];
    return NULL;
}

void pretoken_rule_names(struct buf *out)
{
    for (size_t i = 0; i < COUNT_OF(rules); i++)
        buf_printf(out, "%s%s", i ? ", " : "", rules[i].name);
}
