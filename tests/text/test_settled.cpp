// Text that is still being read: the tokens of a settled beginning do not change.
#include <random>
#include <text/pre_tokenizer.hpp>

#include "catch.hpp"
#include "made_vocabularies.hpp"
#include "test_data.hpp"

namespace {

std::string random_text(std::mt19937& rng, std::size_t words) {
  const char* const parts[] = {"ab",           "a",        "B",   "don't", "'s",
                               "12",           "345",      " ",   "  ",    "\n",
                               "\r",           "\t",       "...", "_",     "\xc3\xa9",
                               "\xe4\xb8\x80", "\xd0\xb6", "\n",  "\n\n",  "\xea\xb0\x80",
                               "\xe3\x81\x8b", "\xd8\xb3", "aB",  "(",     "<tag>",
                               "<|end|>",      "\xff",     " ",   " a ",   "\xc2\xa0"};
  std::string text;
  for (std::size_t i = 0; i < words; ++i) text += parts[rng() % std::size(parts)];
  return text;
}

// The settled part of each beginning of the text, beside the whole.
void check(const nibble::tokenizer& tokenizer, const std::string& text, bool markup) {
  const nibble::encode_options how{.add_special = false, .parse_special = markup};
  const auto whole = tokenizer.encode(text, how);
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const std::size_t settled = tokenizer.settled_bytes(text.substr(0, size));
    REQUIRE(settled <= size);
    const auto tokens = tokenizer.encode(text.substr(0, settled), how);
    const bool begins =
        tokens.size() <= whole.size() && std::equal(tokens.begin(), tokens.end(), whole.begin());
    INFO("'" << text.substr(0, settled) << "' of '" << text << "'");
    REQUIRE(begins);
  }
}

}  // namespace

TEST_CASE("settled: beginnings of text keep their tokens, with every pre-tokenizer") {
  std::mt19937 rng(1);
  for (const auto name : nibble::text::pre_tokenizer_names()) {
    if (name == "gemma4") continue;  // no byte-level vocabulary
    INFO(name);
    // merges over every border that words might not end at
    const std::string space = test::byte_level_name(" "), both = "b" + space;
    const std::string line = test::byte_level_name("\n"), over = "b" + line;
    const auto tokenizer =
        test::byte_level({both, both + "a", "ab", space + "a", over, over + "a"},
                         {"b " + space, both + " a", "a b", space + " a", "b " + line, over + " a"},
                         std::string(name))
            .tokenizer();
    for (int i = 0; i < 20; ++i) check(tokenizer, random_text(rng, 24), i % 2 == 0);
    CHECK(tokenizer.settled_bytes("ab ab ab") == 5);
    CHECK(tokenizer.settled_bytes("ab\nab\n") == 5);
    CHECK(tokenizer.settled_bytes("\xd0\xb6 \xd0\xb6\n") == 5);
    CHECK(tokenizer.settled_bytes("\xe4\xb8\x80\n") == 3);
    CHECK(tokenizer.settled_bytes("1 . \xd7\xd0 \xb6 ") == 0);
  }
}

TEST_CASE("settled: the other kinds of vocabularies, and real ones") {
  std::mt19937 rng(2);
  for (int i = 0; i < 50; ++i) {
    const std::string text = random_text(rng, 24);
    check(test::small_sentencepiece().tokenizer(), text, i % 2 == 0);
    check(test::wordpiece().tokenizer(), text, i % 2 == 0);
  }
  CHECK(test::small_sentencepiece().tokenizer().settled_bytes("ab ab ab") == 5);
  CHECK(test::wordpiece().tokenizer().settled_bytes("ab ab ab") == 5);
  const auto folder = test::data("vocab");
  if (!folder) return;
  for (const auto& entry : std::filesystem::directory_iterator(*folder)) {
    if (entry.path().extension() != ".gguf") continue;
    INFO(entry.path());
    const nibble::tokenizer tokenizer(nibble::gguf::file(entry.path()));
    for (int i = 0; i < 4; ++i) check(tokenizer, random_text(rng, 24), i % 2 == 0);
  }
}

TEST_CASE("settled: nothing is where a token or markup may reach over a word's end") {
  const std::string mark = "\xe2\x96\x81";
  const auto across = test::sentencepiece({{"a", -9}, {mark, -9}, {"a" + mark + "a", -1}});
  CHECK(across.tokenizer().settled_bytes("a a a") == 0);
  const auto markup = test::sentencepiece({{"a", -9}, {"<the end>", 0, test::control}});
  CHECK(markup.tokenizer().settled_bytes("a a a") == 0);
  const auto line = test::sentencepiece({{"a", -9}, {"\n", -9}, {"a\na", -1}});
  CHECK(line.tokenizer().settled_bytes("a\na\na") == 0);
  CHECK(line.tokenizer().settled_bytes("a\na a") == 3);
  CHECK(test::small_sentencepiece().tokenizer().settled_bytes("1 2 3") == 0);
  CHECK(test::small_sentencepiece().tokenizer().settled_bytes("") == 0);
  CHECK(test::small_sentencepiece().tokenizer().settled_bytes(" a") == 0);
}
