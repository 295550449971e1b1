// Vocabularies that lie: an error that names the key, never a crash.
#include <limits>

#include "catch.hpp"
#include "made_vocabularies.hpp"

namespace {

using strings = std::vector<std::string>;
using numbers = std::vector<std::int32_t>;

void check_refused(const test::vocabulary_file& file, const std::string& key,
                   const std::string& value = "", nibble::errc code = nibble::errc::bad_file) {
  try {
    file.tokenizer();
    FAIL_CHECK("accepted: " << key << " " << value);
  } catch (const nibble::error& e) {
    INFO(e.what());
    CHECK(e.code() == code);
    CHECK(std::string(e.what()).find(key) != std::string::npos);
    CHECK(std::string(e.what()).find(value) != std::string::npos);
  }
}

test::vocabulary_file kind(const char* model) {
  test::vocabulary_file file;
  file.text("tokenizer.ggml.model", model);
  return file;
}

const strings three = {"<unk>", "a", "b"};
const std::vector<float> scores = {0, 0, 0};

}  // namespace

TEST_CASE("files without a vocabulary that is known say so") {
  using nibble::errc;
  check_refused(test::vocabulary_file(), "no vocabulary", "tokenizer.ggml.model",
                errc::unsupported);
  check_refused(kind("no_vocab"), "no vocabulary", "no_vocab", errc::unsupported);
  check_refused(kind("rwkv"), "rwkv", "llama, gpt2", errc::unsupported);
  check_refused(kind("gpt2"), "tokenizer.ggml.pre", "missing", errc::unsupported);
  check_refused(kind("gpt2").text("tokenizer.ggml.pre", "nonsense"), "nonsense", "qwen2",
                errc::unsupported);
  check_refused(kind("llama"), "tokenizer.ggml.tokens", "missing");
  check_refused(kind("llama").array("tokenizer.ggml.tokens", strings{}), "tokenizer.ggml.tokens");
  check_refused(kind("llama").array("tokenizer.ggml.tokens", numbers{1, 2}),
                "tokenizer.ggml.tokens");
  check_refused(kind("llama").text("tokenizer.ggml.tokens", "a"), "tokenizer.ggml.tokens");

  const auto none = kind("no_vocab").bytes();
  CHECK_FALSE(nibble::has_tokenizer({none, "x"}));
  const auto some = kind("llama").bytes();
  CHECK(nibble::has_tokenizer({some, "x"}));
}

TEST_CASE("arrays must fit the vocabulary and hold what their types allow") {
  const auto base = [] { return kind("llama").array("tokenizer.ggml.tokens", three); };
  check_refused(base(), "tokenizer.ggml.scores", "missing");
  for (const std::vector<float>& wrong : {std::vector<float>{}, {1, 2}, {1, 2, 3, 4}}) {
    check_refused(base().array("tokenizer.ggml.scores", wrong), "tokenizer.ggml.scores",
                  std::to_string(wrong.size()));
  }
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    check_refused(base().array("tokenizer.ggml.scores", std::vector<float>{0, bad, 0}),
                  "tokenizer.ggml.scores[1]");
  }
  const auto scored = [&] { return base().array("tokenizer.ggml.scores", scores); };
  for (const numbers& wrong : {numbers{}, numbers{1, 1}, numbers{1, 1, 1, 1}}) {
    check_refused(scored().array("tokenizer.ggml.token_type", wrong), "tokenizer.ggml.token_type",
                  std::to_string(wrong.size()));
  }
  for (const std::int32_t bad : {-1, 7, std::numeric_limits<std::int32_t>::min()}) {
    check_refused(scored().array("tokenizer.ggml.token_type", numbers{1, 1, bad}),
                  "tokenizer.ggml.token_type[2]", std::to_string(bad));
  }
}

TEST_CASE("special ids must be tokens") {
  for (const char* name : {"bos", "eos", "eot", "eom", "unknown", "padding", "mask", "seperator"}) {
    const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    for (const std::int32_t bad : {3, 1 << 30, -2}) {
      check_refused(kind("llama")
                        .array("tokenizer.ggml.tokens", three)
                        .array("tokenizer.ggml.scores", scores)
                        .number(key, bad),
                    key, std::to_string(bad));
    }
  }
  // to begin a text with a token that there is none of
  check_refused(
      kind("llama").array("tokenizer.ggml.tokens", three).array("tokenizer.ggml.scores", scores),
      "tokenizer.ggml.bos_token_id");
  check_refused(kind("bert").array("tokenizer.ggml.tokens", three), "tokenizer.ggml.bos_token_id");
  // -1 means none
  const auto t = kind("llama")
                     .array("tokenizer.ggml.tokens", three)
                     .array("tokenizer.ggml.scores", scores)
                     .number("tokenizer.ggml.bos_token_id", -1)
                     .flag("tokenizer.ggml.add_bos_token", false)
                     .tokenizer();
  CHECK_FALSE(t.bos());
}

TEST_CASE("names of bytes are two hexadecimal digits") {
  for (const char* name :
       {"<0x-1>", "<0x+1>", "<0xG0>", "<0x1>", "<0x100>", "<0x >", "", "0x41", "<0x41"}) {
    check_refused(kind("llama")
                      .array("tokenizer.ggml.tokens", strings{"<unk>", name, "b"})
                      .array("tokenizer.ggml.scores", scores)
                      .array("tokenizer.ggml.token_type", numbers{2, 6, 1})
                      .flag("tokenizer.ggml.add_bos_token", false),
                  "Token 1", name);
  }
}

TEST_CASE("merges must name tokens") {
  const std::string key = "tokenizer.ggml.merges[0]";
  for (const char* merge : {"a x y", "x a", "a b", "ab", "", " ", "a ", "  "}) {
    INFO(merge);
    // "x" and "b" are tokens as all bytes are, their unions are not
    check_refused(test::byte_level({}, {merge}), key, merge);
  }
  test::vocabulary_file none;
  none.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  check_refused(none.array("tokenizer.ggml.tokens", three), "tokenizer.ggml.merges", "missing");
  // a merge into markup is left out: text does not become markup
  const auto t = test::byte_level({"<|", "<|end|", "en", "d|", "end|"},
                                  {"< |", "e n", "d |", "en d|", "<| end|", "<|end| >"})
                     .tokenizer();
  for (const auto id : t.encode("<|end|>")) CHECK(t.type(id) != nibble::token_type::control);
}

TEST_CASE("empty, repeated and endless names") {
  // nameless tokens have ids, and nothing more
  const auto t =
      test::sentencepiece({{""}, {""}, {"", 0, test::control}, {"x"}, {"x"}, {"\xe2\x96\x81"}})
          .tokenizer();
  CHECK(t.piece(259).empty());
  CHECK_FALSE(t.find(""));
  CHECK(t.find("x") == 262);  // the first of two
  CHECK(t.decode(t.encode("x \xe2\x96\x81")) == "x  ");
  CHECK(t.encode("", {.add_special = false, .parse_special = true}).empty());

  check_refused(test::sentencepiece({{std::string(2000, '<'), 0, test::control}}), "259", "2000");
  const auto longest =
      test::sentencepiece({{std::string(1 << 20, 'a')}, {"\xe2\x96\x81"}}).tokenizer();
  CHECK(longest.decode(longest.encode("aaaa")) == "aaaa");
}

TEST_CASE("a byte that cannot be expressed is an error that names it") {
  const auto t = kind("llama")
                     .array("tokenizer.ggml.tokens", strings{"a", "b", "c"})
                     .array("tokenizer.ggml.scores", scores)
                     .flag("tokenizer.ggml.add_bos_token", false)
                     .flag("tokenizer.ggml.add_space_prefix", false)
                     .tokenizer();
  CHECK(t.encode("abc") == std::vector<nibble::token>{0, 1, 2});
  CHECK_THROWS_AS(t.encode("abz"), nibble::error);
  CHECK_THROWS_AS(t.piece(3), nibble::error);
  CHECK_THROWS_AS(t.decode(std::vector<nibble::token>{0, -1}), nibble::error);
}
