// What every kind of tokenizer does with markup, odd text and long text.
#include <nibble/text/tokenizer.hpp>
#include <text/pre_tokenizer.hpp>
#include <thread>

#include "catch.hpp"
#include "made_vocabularies.hpp"
#include "test_data.hpp"

using ids = std::vector<nibble::token>;

namespace {

const std::string odd_texts[] = {
    "",
    " ",
    std::string("\0", 1),
    std::string("a\0b\0\0", 5),
    "\xff",
    "a\xff\xfe z",
    "\xe4\xb8",
    "caf\xc3",
    "\xed\xa0\x80 surrogate",
    "\xf4\x90\x80\x80 beyond",
    "tabs\t\tand\r\nline ends\n\n\n",
    "\xc2\xa0\xe2\x80\xa8\xe1\xa0\x8e\xef\xbb\xbf",
    "d\xcc\xb5\xcc\xa1 \xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
    "<|end|> <ta <s> </s> <0x41> <unk> [CLS]",
};

std::string repeated(const std::string& text, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += text;
  return out;
}

}  // namespace

TEST_CASE("scores decide which pair merges first, the leftmost among equals") {
  const auto t = test::small_sentencepiece().tokenizer();
  const auto id = [&](const char* name) { return *t.find(name); };
  CHECK(t.encode("ab") == ids{1, id("\xe2\x96\x81"
                                    "ab")});
  CHECK(t.encode("abab", {.add_special = false}) == ids{id("\xe2\x96\x81"
                                                           "ab"),
                                                        id("ab")});
  CHECK(t.encode("aaab", {.add_special = false}) == ids{id("\xe2\x96\x81"), id("aa"), id("ab")});
  CHECK(t.encode("c", {.add_special = false}) == ids{id("\xe2\x96\x81"), test::byte_id('c')});
  CHECK(t.encode("", {}) == ids{1});
  CHECK(t.decode(t.encode("c abab aaa")) == "c abab aaa");
}

TEST_CASE("ranks decide which pair merges first, and words keep to themselves") {
  const auto t = test::byte_level({"ab", "bc", "abc", test::byte_level_name(" a")},
                                  {"b c", "a b", "a bc", "\xc4\xa0 a"})
                     .tokenizer();
  const auto id = [&](const char* name) { return *t.find(name); };
  CHECK(t.encode("abc", {}) == ids{id("abc")});
  CHECK(t.encode("abab", {}) == ids{id("ab"), id("ab")});
  CHECK(t.encode("a ab", {}) == ids{'a', ' ', id("ab")});
  CHECK(t.encode("a a", {}) == ids{'a', id("\xc4\xa0"
                                           "a")});
}

TEST_CASE("bytes of every kind come back") {
  for (const auto& made : {test::byte_level({"ab"}, {"a b"}), test::small_sentencepiece()}) {
    const auto t = made.tokenizer();
    for (const std::string& text : odd_texts) CHECK(t.decode(t.encode(text)) == text);
    std::string all;
    for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
    CHECK(t.decode(t.encode(all)) == all);
  }
}

TEST_CASE("real vocabularies take odd text, and give it back where they have all bytes") {
  for (const char* name : {"gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3", "bert-bge",
                           "falcon", "deepseek-llm", "deepseek-coder", "mpt"}) {
    const auto path = test::data(std::string("vocab/ggml-vocab-") + name + ".gguf");
    if (!path) return;
    const nibble::tokenizer t{nibble::gguf::file{*path}};
    INFO(name);
    for (const std::string& text : odd_texts) {
      for (const bool parse : {false, true}) {
        const auto encoded = t.encode(text, {.add_special = false, .parse_special = parse});
        for (const auto id : encoded) {
          REQUIRE((id >= 0 && id < t.size()));
          // text alone never becomes markup (WordPiece says so of words that it does not know)
          if (!parse && id != t.unknown()) CHECK(t.type(id) != nibble::token_type::control);
        }
        const std::string_view n = name;
        if (!parse && (n == "gpt-2" || n == "llama-bpe" || n == "qwen2" || n == "llama-spm")) {
          CHECK(t.decode(encoded) == text);
        }
      }
    }
  }
}

TEST_CASE("a byte is its own token or the replacement, never another character's") {
  // as in DeepSeek's vocabularies: the name of byte 0xC0, U+00C0, is text there, and one token
  auto names = std::vector<std::string>{"\xc3\x80", "x", "\xc3\xaf", "\xc2\xbf", "\xc2\xbd"};
  test::vocabulary_file file;
  file.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "gpt-2")
      .array("tokenizer.ggml.tokens", names)
      .array("tokenizer.ggml.token_type", std::vector<std::int32_t>{4, 1, 1, 1, 1})
      .array("tokenizer.ggml.merges", std::vector<std::string>{});
  const auto t = file.tokenizer();
  CHECK(t.encode("x\xc3\x80x") == ids{1, 0, 1});
  CHECK(t.decode(t.encode("x\xc3\x80x")) == "x\xc3\x80x");
  CHECK(t.encode("x\xc0x") == ids{1, 2, 3, 4, 1});

  for (const char* name : {"deepseek-llm", "deepseek-coder", "falcon", "gpt-2", "llama-bpe"}) {
    const auto path = test::data(std::string("vocab/ggml-vocab-") + name + ".gguf");
    if (!path) return;
    const nibble::tokenizer real{nibble::gguf::file{*path}};
    const std::string_view n = name;
    for (int byte = 0; byte < 256; ++byte) {
      INFO(name << " byte " << byte);
      const std::string text(1, static_cast<char>(byte));
      const std::string back = real.decode(real.encode(text, {.add_special = false}));
      const bool never_in_text = byte == 0xc0 || byte == 0xc1 || byte >= 0xf5;
      const bool lacks = n == "falcon" ? back != text : n.starts_with("deepseek") && never_in_text;
      CHECK(back == (lacks ? "\xef\xbf\xbd" : text));
    }
  }
}

TEST_CASE("markup is parsed on demand, user-defined tokens always, the longest name first") {
  const auto t = test::small_sentencepiece().tokenizer();
  const auto end = *t.find("<|end|>"), tag = *t.find("<tag>"), tag_plus = *t.find("<tag>+");
  const auto ab = *t.find(
      "\xe2\x96\x81"
      "ab");
  const nibble::encode_options plain{.add_special = false},
      parsed{.add_special = false, .parse_special = true};
  CHECK(t.encode("ab<|end|>ab", parsed) == ids{ab, end, ab});
  CHECK(t.encode("<tag>ab<tag>+", plain) == ids{tag, ab, tag_plus});
  CHECK(t.encode("<tag><tag>+<tag", parsed).size() == 2 + 1 + 4);
  for (const auto id : t.encode("<|end|><s>", plain))
    CHECK(t.type(id) != nibble::token_type::control);
  CHECK(t.decode(t.encode("<|end|> <tag>", plain)) == "<|end|> <tag>");
  CHECK(t.decode(t.encode("a<|end|>", parsed)) == "a");
  CHECK(t.decode(t.encode("a<|end|>", parsed), {.special = true}) == "a<|end|>");
  CHECK(t.piece(end).empty());
  CHECK(t.piece(end, true) == "<|end|>");
}

TEST_CASE("parts decide where markup counts, also on their borders") {
  const auto t = test::small_sentencepiece().tokenizer();
  const auto end = *t.find("<|end|>");
  const nibble::text_part parts[] = {
      {"<|end|>", true}, {"<|end|>", false}, {"<|e", true}, {"nd|>", false}, {"<|end|>", true}};
  const auto encoded = t.encode(parts, false);
  CHECK(std::count(encoded.begin(), encoded.end(), end) == 2);
  CHECK(encoded.front() == end);
  CHECK(encoded.back() == end);
  // without markup in them, parts are one text
  const nibble::text_part halves[] = {{"aba", true}, {"b ab", false}};
  CHECK(t.encode(halves) == t.encode("abab ab"));
}

TEST_CASE("WordPiece lowers, strips accents, cuts at punctuation and marks what it does not know") {
  const auto t = test::wordpiece().tokenizer();
  CHECK(t.encode("Aaa!") == ids{2, 5, 7, 8, 3});
  CHECK(t.encode("CAF\xc3\x89S cafe\xcc\x81") == ids{2, 9, 10, 9, 3});
  CHECK(t.encode("xyz a", {.add_special = false}) == ids{1, 5});
  CHECK(t.encode(std::string(101, 'a'), {.add_special = false}) == ids{1});
  CHECK(t.encode("[MASK]", {.add_special = false, .parse_special = true}) == ids{4});
  CHECK(t.decode(ids{2, 5, 7, 8, 9, 3}) == "aaa ! cafe");
}

TEST_CASE("Gemma 4's BPE works on characters, with marks for spaces and bytes to fall back on") {
  std::vector<std::string> names = {"<bos>",
                                    "\n\n",
                                    "a",
                                    "b",
                                    "\xe2\x96\x81",
                                    "\xe2\x96\x81"
                                    "a",
                                    "\n",
                                    "<0xC3>",
                                    "<0xA9>"};
  test::vocabulary_file file;
  file.text("tokenizer.ggml.model", "gemma4")
      .array("tokenizer.ggml.tokens", names)
      .array("tokenizer.ggml.token_type", std::vector<std::int32_t>{3, 1, 1, 1, 1, 1, 1, 6, 6})
      .array("tokenizer.ggml.merges", std::vector<std::string>{"\xe2\x96\x81 a"})
      .number("tokenizer.ggml.bos_token_id", 0);
  const auto t = file.tokenizer();
  const std::string text = "ab a\n\nb \xc3\xa9";
  CHECK(t.encode(text) == ids{0, 2, 3, 5, 1, 3, 4, 7, 8});
  CHECK(t.decode(t.encode(text)) == text);
}

TEST_CASE("a megabyte of one thing takes no more than time in proportion") {
  // quadratic work would take minutes each (256 times less for the shorter ones, which are many);
  // the time limit of the test is the witness
  const std::string things[] = {
      "a",        "A",        " ",  "\n",  "1", "!",    "\t", "\xe4\xb8\xad",
      "\xc3\xa9", "\xcc\x81", "a ", " \n", "'", "\xff", "_a"};
  const std::vector<std::string> names = {"aa", "aaaa", "AA"};
  std::vector<nibble::tokenizer> tokenizers = {
      test::small_sentencepiece().tokenizer(), test::wordpiece().tokenizer(),
      test::byte_level(names, {"a a", "aa aa", "A A"}).tokenizer()};
  // one of each distinct set of patterns, without merges: that loop is the same for all
  std::vector<std::vector<std::string_view>> seen;
  for (const std::string_view name : nibble::text::pre_tokenizer_names()) {
    const auto rules = nibble::text::find_pre_tokenizer(name);
    if (!rules.byte_level || std::find(seen.begin(), seen.end(), rules.patterns) != seen.end()) {
      continue;
    }
    seen.push_back(rules.patterns);
    tokenizers.push_back(test::byte_level({}, {}, std::string(name)).tokenizer());
  }
  for (const auto& t : tokenizers) {
    INFO(t.pre_tokenizer());
    for (const std::string& thing : things) {
      const bool full = thing == "a" || thing == " ";
      const std::string text = repeated(thing, full ? 1 << 20 : 1 << 16) + "b";
      const auto encoded = t.encode(text, {.add_special = false});
      if (t.kind() != nibble::tokenizer_kind::wordpiece) CHECK(t.decode(encoded) == text);
    }
  }
}

TEST_CASE("end-of-generation tokens are known by key and by name") {
  const auto t = test::small_sentencepiece().tokenizer();
  CHECK(t.is_end_of_generation(2));
  CHECK(t.is_end_of_generation(*t.find("<|end|>")));
  CHECK_FALSE(t.is_end_of_generation(*t.find("<tag>")));
  CHECK_FALSE(t.is_end_of_generation(*t.find("a")));
  CHECK_FALSE(t.is_end_of_generation(-1));
  CHECK_FALSE(t.is_end_of_generation(1 << 30));
  // in the harmony format <|end|> ends a message, <|return|> the turn
  const auto harmony = test::sentencepiece({{"<|end|>", 0, 3}, {"<|return|>", 0, 3}}).tokenizer();
  CHECK_FALSE(harmony.is_end_of_generation(*harmony.find("<|end|>")));
  CHECK(harmony.is_end_of_generation(*harmony.find("<|return|>")));
}

TEST_CASE("Phi-3's markup takes the white space after it along") {
  auto made = test::small_sentencepiece();
  const auto t = made.text("general.name", "Phi-3 mini").tokenizer();
  const auto end = *t.find("<|end|>"), ab = *t.find(
                                           "\xe2\x96\x81"
                                           "ab");
  CHECK(t.encode("<|end|> \n ab", {.add_special = false, .parse_special = true}) == ids{end, ab});
}

TEST_CASE("one tokenizer serves many threads") {
  const auto t = test::byte_level({"ab", "abab"}, {"a b", "ab ab"}).tokenizer();
  const std::string text = repeated("abab ba \xc3\xa9 aabb", 20000);
  const auto expected = t.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> equal(4, 0);
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] { equal[i] = t.encode(text) == expected; });
  for (auto& thread : threads) thread.join();
  CHECK(equal == std::vector<int>(4, 1));
}
