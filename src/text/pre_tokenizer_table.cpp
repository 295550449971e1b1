// The pre-tokenizers by name. The patterns are those of the models' own tokenizer files; \s means
// Unicode white space (pre_tokenizer.cpp writes it out).
#include <algorithm>
#include <array>
#include <gguf/cursor.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <text/pre_tokenizer.hpp>

namespace nibble::inline NIBBLE_ABI::text {
namespace {

// clang-format off
constexpr const char gpt2[] =
  R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char one_digit[] = R"(\p{N})";
constexpr const char three_digits[] = R"(\p{N}{1,3})";

// Most newer vocabularies differ in a few places of one pattern.
#define NIBBLE_ENGLISH_SUFFIX R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define NIBBLE_SPACES R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define NIBBLE_LLAMA3(digits) \
  NIBBLE_ENGLISH_SUFFIX R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)" digits \
  R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)" NIBBLE_SPACES
constexpr const char llama3[] = NIBBLE_LLAMA3(R"(\p{N}{1,3})");
constexpr const char qwen2[] = NIBBLE_LLAMA3(R"(\p{N})");
constexpr const char digit_runs[] = NIBBLE_LLAMA3(R"(\p{N}+)");
constexpr const char qwen35[] =
  NIBBLE_ENGLISH_SUFFIX R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)"
  NIBBLE_SPACES;
constexpr const char bailing[] =
  R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*)"
  R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr const char seed_coder[] =
  NIBBLE_ENGLISH_SUFFIX R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+)" NIBBLE_SPACES;

// Words that begin with capitals, then words of capitals.
#define NIBBLE_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define NIBBLE_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define NIBBLE_CASED(upper, lower, suffix) \
  R"([^\r\n\p{L}\p{N}]?)" upper "*" lower "+" suffix \
  R"(|[^\r\n\p{L}\p{N}]?)" upper "+" lower "*" suffix
constexpr const char gpt4o[] =
  NIBBLE_CASED(NIBBLE_UPPER, NIBBLE_LOWER, NIBBLE_ENGLISH_SUFFIX "?")
  R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" NIBBLE_SPACES;
constexpr const char tekken[] =
  NIBBLE_CASED(NIBBLE_UPPER, NIBBLE_LOWER, "")
  R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" NIBBLE_SPACES;
// Chinese characters stand apart; the look-ahead is the difference of two sets.
#define NIBBLE_NOT_HAN(set) R"((?:(?!\p{Han}))" set ")"
constexpr const char kimi[] =
  R"(\p{Han}+|)"
  NIBBLE_CASED(NIBBLE_NOT_HAN(NIBBLE_UPPER), NIBBLE_NOT_HAN(NIBBLE_LOWER), NIBBLE_ENGLISH_SUFFIX "?")
  R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" NIBBLE_SPACES;

constexpr const char line_ends[] = R"([\r\n])";
constexpr const char line_or_breaks[] = R"([^\n]+|\n+)";
constexpr const char deepseek_letters[] =
  R"(\s?[)"
  R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
  R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386})"
  R"(\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F})"
  R"(\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA})"
  R"(\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15})"
  R"(\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B})"
  R"(\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4})"
  R"(\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
  R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
  R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
  R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
  R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
  R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
  R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3})"
  R"(\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
  R"(\x{1E900}-\x{1E943})"
  R"(]+)";
constexpr const char deepseek_marks[] =
  R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
// the look-behind only spares the search the starts inside a run of spaces, which cannot succeed
constexpr const char deepseek_trailing[] = R"((?<!\s)\s++\z)";
constexpr const char deepseek_east[] = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
constexpr const char deepseek3_east[] = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+)";
constexpr const char deepseek3[] =
  R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
  R"(| ?[\p{P}\p{S}]+[\r\n]*)" NIBBLE_SPACES;
constexpr const char falcon_marks[] = R"([\p{P}$+<=>^~|`]+)";
constexpr const char falcon_digits[] = R"([0-9][0-9][0-9])";
constexpr const char bloom[] = R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";

struct entry {
  std::string_view name;
  std::array<const char*, 6> patterns;
  bool ignore_merges = false;
  bool add_bos = false;
  bool byte_level = true;
};

constexpr entry entries[] = {
  {"gpt-2", {gpt2}}, {"gpt2", {gpt2}}, {"mpt", {gpt2}}, {"olmo", {gpt2}}, {"jais", {gpt2}},
  {"phi-2", {gpt2}}, {"jina-es", {gpt2}}, {"jina-de", {gpt2}}, {"jina-v1-en", {gpt2}},
  {"jina-v2-es", {gpt2}}, {"jina-v2-de", {gpt2}}, {"jina-v2-code", {gpt2}}, {"roberta-bpe", {gpt2}},
  {"gigachat", {gpt2}}, {"a.x-4.0", {gpt2}}, {"mellum", {gpt2}}, {"modern-bert", {gpt2}},
  {"exaone4", {gpt2}}, {"trillion", {gpt2}}, {"granite-docling", {gpt2}},
  {"starcoder", {one_digit, gpt2}}, {"refact", {one_digit, gpt2}}, {"command-r", {one_digit, gpt2}},
  {"smollm", {one_digit, gpt2}}, {"codeshell", {one_digit, gpt2}}, {"exaone", {one_digit, gpt2}},
  {"minerva-7b", {one_digit, gpt2}}, {"mellum2", {one_digit, gpt2}},
  {"llama-bpe", {llama3}, true, true}, {"llama3", {llama3}, true, true},
  {"llama-v3", {llama3}, true, true}, {"falcon3", {llama3}, true, true},
  {"falcon-h1", {llama3}, true, true}, {"pixtral", {llama3}, true, true},
  {"midm-2.0", {llama3}, true, true}, {"lfm2", {llama3}, true, true},
  {"jina-v5-nano", {llama3}, true, true},
  {"dbrx", {llama3}}, {"smaug-bpe", {llama3}}, {"glm4", {llama3}}, {"chatglm-bpe", {llama3}},
  {"minicpm5", {three_digits, digit_runs}, true},
  {"qwen2", {qwen2}}, {"deepseek-r1-qwen", {qwen2}}, {"stablelm2", {qwen2}}, {"hunyuan", {qwen2}},
  {"megrez", {qwen2}}, {"solar-open", {qwen2}}, {"grok-2", {qwen2}}, {"kormo", {qwen2}},
  {"f2llmv2", {qwen2}}, {"laguna", {line_or_breaks, qwen2}}, {"qwen35", {qwen35}},
  {"bailingmoe", {bailing}}, {"bailingmoe2", {bailing}}, {"llada-moe", {bailing}},
  {"seed-coder", {seed_coder}},
  {"gpt-4o", {gpt4o}}, {"llama4", {gpt4o}}, {"kanana2", {gpt4o}}, {"talkie", {gpt4o}},
  {"minimax-m2", {gpt4o}}, {"granite-embed-multi-97m", {gpt4o}, true},
  {"tekken", {tekken}, true, true}, {"kimi-k2", {kimi}},
  {"deepseek-llm",
   {line_ends, deepseek_letters, deepseek_marks, deepseek_trailing, deepseek_east, R"(\p{N}+)"}},
  {"deepseek-coder", {line_ends, R"(\s?\p{L}+)", R"(\s?\p{P}+)", deepseek_east, one_digit}},
  {"deepseek-v3", {three_digits, deepseek3_east, deepseek3}},
  {"hunyuan-dense", {three_digits, deepseek3_east, deepseek3}},
  {"hy_v4", {three_digits, deepseek3_east, deepseek3}},
  {"joyai-llm", {three_digits, deepseek3_east, deepseek3}},
  {"falcon", {falcon_marks, gpt2, falcon_digits}},
  {"default", {falcon_marks, gpt2, R"(\p{N}+)", falcon_digits}},
  {"bloom", {bloom}}, {"gpt3-finnish", {bloom}}, {"poro-chat", {bloom}},
  {"viking", {bloom, one_digit}},
  {"gemma4", {line_or_breaks}, false, true, false},
};
// clang-format on

}  // namespace

std::vector<std::string_view> pre_tokenizer_names() {
  std::vector<std::string_view> names;
  for (const entry& e : entries) names.push_back(e.name);
  std::sort(names.begin(), names.end());
  return names;
}

pre_tokenizer_rules find_pre_tokenizer(std::string_view name) {
  for (const entry& e : entries) {
    if (e.name != name) continue;
    pre_tokenizer_rules rules{e.name, {}, e.ignore_merges, e.add_bos, e.byte_level};
    for (const char* pattern : e.patterns) {
      if (pattern != nullptr) rules.patterns.emplace_back(pattern);
    }
    return rules;
  }
  std::string known;
  for (const std::string_view n : pre_tokenizer_names())
    known += concat(known.empty() ? "" : ", ", n);
  throw error(errc::unsupported, concat("tokenizer.ggml.pre is '", gguf::printable(name),
                                        "', which is not known. Known are: ", known, "."));
}

}  // namespace nibble::inline NIBBLE_ABI::text
