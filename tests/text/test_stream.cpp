// The streaming detokeniser and the UTF-8 reader under it.
#include <nibble/base/utf8.hpp>
#include <nibble/text/text_stream.hpp>

#include "catch.hpp"
#include "made_vocabularies.hpp"

namespace {

bool is_whole(const std::string& text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto c = nibble::decode_utf8(text, i);
    if (c.state != nibble::utf8_state::valid) return false;
    i += c.size;
  }
  return true;
}

std::string stream(const nibble::tokenizer& tokenizer, const std::string& bytes) {
  nibble::text_stream out(tokenizer);
  std::string text;
  for (const char c : bytes) {
    const std::string piece = out.push(test::byte_id(static_cast<unsigned char>(c)));
    CHECK(is_whole(piece));
    text += piece;
  }
  const std::string last = out.flush();
  CHECK(is_whole(last));
  return text + last;
}

}  // namespace

TEST_CASE("every code point survives encoding and decoding") {
  for (char32_t c = 0; c <= 0x10ffff; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    nibble::append_utf8(text, c);
    const auto read = nibble::decode_utf8(text, 0);
    REQUIRE(read.state == nibble::utf8_state::valid);
    REQUIRE(read.value == c);
    REQUIRE(read.size == text.size());
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const auto part = nibble::decode_utf8(std::string_view(text).substr(0, cut), 0);
      REQUIRE(part.state == nibble::utf8_state::truncated);
      REQUIRE(part.size == cut);
    }
  }
}

TEST_CASE("ill-formed bytes are cut where the Unicode Standard cuts them") {
  // the examples of chapter 3, tables 3-8 to 3-11, as the number of U+FFFD that each becomes
  const auto tokenizer = test::sentencepiece_of_bytes().tokenizer();
  const std::pair<std::string, std::string> cases[] = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},
      {"\xE2\x82", "?"},
      {"\xF0\x9F\x98", "?"},
  };
  for (const auto& [bytes, marks] : cases) {
    std::string expected;
    for (const char c : marks) expected += c == '?' ? "\xEF\xBF\xBD" : std::string(1, c);
    CHECK(stream(tokenizer, bytes) == expected);
  }
}

TEST_CASE("no piece of a stream is half a character, wherever tokens cut it") {
  const std::string text = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x81z";
  const auto bytes = test::sentencepiece_of_bytes().tokenizer();
  CHECK(stream(bytes, text) == text);

  // a vocabulary with every substring of the text: every way to cut it at two places
  std::vector<std::string> pieces;
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (std::size_t n = 1; i + n <= text.size(); ++n) pieces.push_back(text.substr(i, n));
  }
  std::vector<std::string> names;
  for (const auto& piece : pieces) names.push_back(test::byte_level_name(piece));
  const auto tokenizer = test::byte_level(names, {}).tokenizer();
  const auto id_of = [&](std::size_t from, std::size_t to) {
    return *tokenizer.find(test::byte_level_name(text.substr(from, to - from)));
  };
  for (std::size_t a = 1; a < text.size(); ++a) {
    for (std::size_t b = a + 1; b < text.size(); ++b) {
      nibble::text_stream out(tokenizer);
      std::string all;
      for (const auto id : {id_of(0, a), id_of(a, b), id_of(b, text.size())}) {
        const std::string piece = out.push(id);
        CHECK(is_whole(piece));
        all += piece;
      }
      CHECK(all + out.flush() == text);
    }
  }
}

TEST_CASE("a stream drops the space before the first word only") {
  const auto tokenizer = test::small_sentencepiece().tokenizer();
  nibble::text_stream out(tokenizer);
  std::string text;
  for (const auto id : tokenizer.encode("ab ab")) text += out.push(id);  // begins with <s>
  CHECK(text + out.flush() == "ab ab");
  CHECK(out.push(*tokenizer.find("\xe2\x96\x81"
                                 "ab")) == "ab");
  nibble::text_stream keeping(tokenizer, {.special = true, .keep_prefix = true});
  CHECK(keeping.push(*tokenizer.bos()) == "<s>");
  CHECK(keeping.push(*tokenizer.find("\xe2\x96\x81"
                                     "ab")) == " ab");
}

TEST_CASE("a stream refuses tokens that are not there and stays usable") {
  nibble::text_stream out(test::small_sentencepiece().tokenizer());
  CHECK_THROWS_AS(out.push(-1), nibble::error);
  CHECK_THROWS_AS(out.push(1 << 30), nibble::error);
  CHECK(out.push(test::byte_id('x')) == "x");
}
