// Memory of the text machinery: how much, what if there is none, and that saving changes no result.
#include <algorithm>
#include <fstream>
#include <nibble/text/chat_template.hpp>
#include <nibble/text/text_stream.hpp>
#include <random>
#include <text/markup.hpp>
#include <text/pre_tokenizer.hpp>
#include <utility>

#include "allocations.hpp"
#include "made_vocabularies.hpp"

namespace {

using nibble::token;
using nibble::token_type;
namespace text = nibble::text;

// MiB of address space in use; 0 where the system does not say so in Linux's way.
double address_space() {
  std::ifstream in("/proc/self/statm");
  double pages = 0;
  in >> pages;
  return pages * 4096 / (1 << 20);
}

text::vocabulary vocabulary_of(const std::vector<std::string>& names,
                               const std::vector<token_type>& types) {
  text::vocabulary v;
  for (const std::string& name : names) v.names.push_back(name);
  v.types = types;
  return v;
}

// The definition, name by name.
text::markup_finder::match longest_of_all(const text::vocabulary& v, std::string_view rest,
                                          std::size_t control_bytes) {
  text::markup_finder::match longest;
  for (token id = 0; id < v.size(); ++id) {
    const std::string_view name = v.names[id];
    const bool markup = v.is_markup(id);
    if (!markup && v.types[id] != token_type::user_defined) continue;
    // of equal names the first is meant, also if it is not allowed here
    bool first = true;
    for (token before = 0; before < id; ++before) {
      first = first && (v.names[before] != name || v.types[before] == token_type::normal);
    }
    if (!first || name.size() <= longest.size || !rest.starts_with(name)) continue;
    if (!markup || name.size() <= control_bytes) longest = {id, name.size()};
  }
  return longest;
}

}  // namespace

TEST_CASE("the longest markup is found among names that begin alike") {
  std::mt19937 random(7);
  const auto random_text = [&](std::size_t size) {
    const char letters[] = {'a', 'b', '\xff', '\0'};
    std::string out;
    while (out.size() < size) out += letters[random() % std::size(letters)];
    return out;
  };
  constexpr token_type kinds[] = {token_type::normal, token_type::control, token_type::user_defined,
                                  token_type::unknown};
  std::size_t found = 0;
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> names;
    std::vector<token_type> types;
    for (int i = 0; i < 60; ++i) {
      names.push_back(random_text(random() % 7));
      // some go on where another ends
      if (i != 0 && random() % 2 == 0) names.back().insert(0, names[random() % i]);
      types.push_back(kinds[random() % std::size(kinds)]);
    }
    const text::vocabulary v = vocabulary_of(names, types);
    const text::markup_finder finder(v);
    const std::string all = random_text(300);
    for (std::size_t at = 0; at <= all.size(); ++at) {
      const std::string_view rest = std::string_view(all).substr(at);
      for (const std::size_t control_bytes : {std::size_t{0}, std::size_t{2}, rest.size()}) {
        const auto got = finder.longest_at(rest, control_bytes);
        const auto expected = longest_of_all(v, rest, control_bytes);
        REQUIRE(got.id == expected.id);
        REQUIRE(got.size == expected.size);
        found += got.size != 0;
      }
    }
  }
  CHECK(found > 10000);
}

TEST_CASE("the index of markup is small beside the names") {
  std::mt19937 random(1);
  std::vector<std::string> names(20000, std::string(250, ' '));
  for (std::string& name : names) {
    for (char& c : name) c = static_cast<char>(random());
  }
  const auto v = vocabulary_of(names, std::vector(names.size(), token_type::control));
  const double before = address_space();
  const text::markup_finder finder(v);
  // five million bytes of names; a tree of them would take a hundred
  CHECK(address_space() - before < 32);
  for (token id = 0; id < v.size(); id += 97) {
    CHECK(finder.longest_at(v.names[id], 250).id == id);
  }
}

TEST_CASE("patterns take a large stack only for words that need it") {
  // this one's groups with look-ahead keep a frame for each letter
  const text::pre_tokenizer words(text::find_pre_tokenizer("kimi-k2"));
  const std::string head = "Some text, ", tail = " bc 12";
  text::pre_tokenizer::scratch work;
  std::vector<std::uint32_t> ends;
  const double before = address_space();
  for (const std::size_t size : {10u, 1u << 11, 1u << 17, 1u << 20, 1u << 22}) {
    INFO(size << " letters");
    words.split(head + std::string(size, 'a') + tail, ends, work);
    const auto n = static_cast<std::uint32_t>(size);
    CHECK(ends == std::vector<std::uint32_t>{4, 9, 10, 11 + n, 14 + n, 15 + n, 17 + n});
    if (size == 10) CHECK(address_space() - before < 64);
  }
  // a word beyond the largest stack is an error, and the next text is none the worse
  CHECK_THROWS_AS(words.split(std::string(40 << 20, 'a'), ends, work), nibble::error);
  words.split("a b", ends, work);
  CHECK(ends == std::vector<std::uint32_t>{1, 3});
}

TEST_CASE("no memory, at whichever allocation, is an error of the library") {
  const test::vocabulary_file made[] = {test::byte_level({"ab"}, {"a b"}),
                                        test::small_sentencepiece(), test::wordpiece()};
  const std::string input = "ab <tag> a\xff" + std::string(300, 'a') + " a aa a aa a aa a aa";
  for (const auto& vocabulary : made) {
    const auto bytes = vocabulary.bytes();
    const nibble::gguf::file file(bytes, "made.gguf");
    CHECK(test::failures_of([&] { nibble::tokenizer{file}; }) > 10);
    const nibble::tokenizer t(file);
    const nibble::text_part parts[] = {{input, true}, {input, false}};
    CHECK(test::failures_of([&] { t.encode(input); }) > 2);
    CHECK(test::failures_of([&] { t.encode(parts); }) > 2);
    const auto encoded = t.encode(input);
    CHECK(test::failures_of([&] { t.decode(encoded); }) > 0);
    const std::vector<nibble::chat_message> chat{{"system", input}, {"user", input}};
    const nibble::chat_template layout("chatml");
    CHECK(test::failures_of([&] { layout.render(chat); }) > 1);
    CHECK(test::failures_of([&] { layout.encode(t, chat); }) > 2);
    CHECK(test::failures_of([] { nibble::chat_template::families(); }) > 0);
  }
  const std::string name(100, 'a');
  const auto bytes = test::byte_level({name}, {}).bytes();
  const nibble::tokenizer t(nibble::gguf::file(bytes, "made.gguf"));
  CHECK(test::failures_of([&] {
          nibble::text_stream stream(t);
          stream.push(*t.find(name));
          stream.flush();
        }) > 1);
}
