// Stop strings in pieces of text, against a search in the whole text.

#include "engine/stop_filter.hpp"

#include <random>

#include "catch.hpp"

namespace {

using strings = std::vector<std::string>;

struct outcome {
  std::string text;
  bool stopped = false;

  friend bool operator==(const outcome&, const outcome&) = default;
};

std::ostream& operator<<(std::ostream& out, const outcome& o) {
  return out << '"' << o.text << "\"" << (o.stopped ? " stopped" : "");
}

// The definition: the stop string that is complete first, the longest of those complete at once.
outcome search(const std::string& text, const strings& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

outcome filter(const strings& pieces, const strings& stops) {
  nibble::stop_filter f(stops);
  outcome out;
  for (const std::string& piece : pieces) out.text += f.push(piece);
  out.text += f.flush();
  out.stopped = f.stopped();
  CHECK(f.flush().empty());
  return out;
}

std::string join(const strings& pieces) {
  std::string all;
  for (const std::string& piece : pieces) all += piece;
  return all;
}

}  // namespace

TEST_CASE("stop filter: cases by hand") {
  struct example {
    strings pieces, stops;
    outcome wanted;
  };
  const example examples[] = {
      {{"abc"}, {}, {"abc", false}},
      {{"abc"}, {""}, {"abc", false}},            // an empty one stops nothing
      {{"", "a", "", "b"}, {"b"}, {"a", true}},   // empty pieces do no harm
      {{"a", "b", "c"}, {"abc"}, {"", true}},     // over three pieces
      {{"ab"}, {"abc"}, {"ab", false}},           // never completed, so given out
      {{"abab", "c"}, {"abc"}, {"ab", true}},     // begins anew inside itself
      {{"xabc"}, {"abc", "ab"}, {"x", true}},     // one begins the other
      {{"xabcd"}, {"abcd", "bc"}, {"xa", true}},  // one inside the other is complete first
      {{"xabc", "d"}, {"abcd", "bc"}, {"xa", true}},
      {{"xabc"}, {"c", "abc", "bc"}, {"x", true}},  // complete at once: the longest
      {{"a\n", "\nb"}, {"\n\n"}, {"a", true}},
      {{"caf\xc3", "\xa9!"}, {"\xc3\xa9"}, {"caf", true}},
  };
  for (const example& e : examples) {
    INFO(join(e.pieces));
    CHECK(search(join(e.pieces), e.stops) == e.wanted);
    CHECK(filter(e.pieces, e.stops) == e.wanted);
  }
}

TEST_CASE("stop filter: gives out at once what can be no part of a stop string") {
  nibble::stop_filter f({"END", "\n\n"});
  CHECK(f.push("one ") == "one ");
  CHECK(f.push("two E") == "two ");
  CHECK(f.push("N") == "");
  CHECK(f.push("T\n") == "ENT");
  CHECK(!f.stopped());
  CHECK(f.push("\n tail") == "");
  CHECK(f.stopped());
  CHECK(f.push("more") == "");
  CHECK(f.flush() == "");
}

TEST_CASE("stop filter: random cuts of random texts give what a search in the whole text gives") {
  std::mt19937 random(20240607);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const auto word = [&](std::size_t length, std::size_t letters) {
    std::string out;
    for (std::size_t i = 0; i < length; ++i) out += static_cast<char>('a' + below(letters));
    return out;
  };
  int stopped = 0;
  constexpr int rounds = 20000;
  for (int round = 0; round < rounds; ++round) {
    const std::size_t letters = 2 + below(2);
    strings stops;
    for (std::size_t i = below(4) + 1; i > 0; --i) stops.push_back(word(below(9), letters));
    if (below(2) == 0) stops.push_back(stops[0] + word(1 + below(3), letters));
    const std::string text = word(below(60), letters);
    strings pieces;
    for (std::size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, below(6)));
      at += pieces.back().size();
    }
    const outcome wanted = search(text, stops);
    stopped += wanted.stopped;
    if (filter(pieces, stops) == wanted && filter({text}, stops) == wanted) continue;
    for (const std::string& stop : stops) UNSCOPED_INFO("stop \"" << stop << '"');
    for (const std::string& piece : pieces) UNSCOPED_INFO("piece \"" << piece << '"');
    CHECK(filter(pieces, stops) == wanted);
    CHECK(filter({text}, stops) == wanted);
    return;
  }
  // both ends are well tried
  CHECK(stopped > rounds / 4);
  CHECK(stopped < rounds * 9 / 10);
}
