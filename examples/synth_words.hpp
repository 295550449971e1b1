// The words of made-up vocabularies: what is worth a token, in the order of its worth.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace synth {

// Collects tokens by merging: each word that is added gets the merges that make one token of it.
// The merges of a word rank after all earlier ones, so none of them changes how an earlier word is
// cut. Tokens are bytes as they stand in text.
class merge_builder {
 public:
  enum class alphabet { bytes, characters };

  // Makes `count` tokens. Of an alphabet of bytes all 256 are the first; characters become tokens
  // when a word has them.
  merge_builder(alphabet letters, std::size_t count);

  bool full() const { return tokens_.size() >= count_; }
  // A word that is not UTF-8 has no characters and is not added to an alphabet of those.
  void add(std::string_view word);

  const std::vector<std::string>& tokens() const { return tokens_; }
  // Pairs of tokens' numbers, the best first.
  const std::vector<std::pair<std::uint32_t, std::uint32_t>>& merges() const { return merges_; }

 private:
  struct symbol {
    std::uint32_t token;
    std::uint32_t rank;  // of the merge with the next symbol
  };

  std::uint32_t token_of(std::string text);
  std::uint32_t rank_at(std::size_t i) const;
  void replace(std::size_t i, std::uint32_t merged);
  bool split(std::string_view word);
  bool merge_best();
  void join_first();

  alphabet letters_;
  std::size_t count_;
  std::vector<std::string> tokens_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> merges_;
  std::unordered_map<std::string, std::uint32_t> numbers_;
  std::unordered_map<std::uint64_t, std::uint32_t> ranks_;  // of merges_, by both numbers
  std::vector<std::uint32_t> merged_;                       // by rank
  std::vector<symbol> symbols_;                             // of the word at hand
};

// Gives words to `take` until it returns false: common English words and endings, numbers up to
// `digits` digits, letters of other scripts, words made of roots and of syllables. There are more
// than two million; the order is fixed.
void for_each_word(int digits, const std::function<bool(std::string_view)>& take);

}  // namespace synth
