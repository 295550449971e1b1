// Remembers the tokens of short words during one call: text repeats its words.
#pragma once

#include <cstdint>
#include <cstring>
#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <string_view>
#include <text/text_table.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

// Direct-mapped; a later word takes the place of an earlier one. One line of 64 bytes a word.
class word_cache {
 public:
  // Calls `make` to append the tokens of `word` to `out` unless they are known.
  template <typename Make>
  void append(std::string_view word, std::vector<token>& out, const Make& make) {
    if (word.size() > longest_word) return make();
    if (lines_.empty()) {
      // a short text is done before the cache would be of use
      if (++seen_ < 64) return make();
      lines_.resize(line_count);
    }
    line& l = lines_[hash_bytes(word) & (line_count - 1)];
    if (l.size == word.size() && std::memcmp(l.bytes, word.data(), word.size()) == 0) {
      out.insert(out.end(), l.ids, l.ids + l.count);
      return;
    }
    const std::size_t before = out.size();
    make();
    const std::size_t count = out.size() - before;
    if (count > most_tokens) return;
    l.size = static_cast<std::uint8_t>(word.size());
    l.count = static_cast<std::uint8_t>(count);
    std::memcpy(l.bytes, word.data(), word.size());
    std::copy(out.end() - static_cast<std::ptrdiff_t>(count), out.end(), l.ids);
  }

 private:
  static constexpr std::size_t line_count = 4096, longest_word = 30, most_tokens = 8;
  struct line {
    std::uint8_t size = 0, count = 0;  // size 0: free (no word is empty)
    char bytes[longest_word] = {};
    token ids[most_tokens] = {};
  };
  static_assert(sizeof(line) == 64);

  std::vector<line> lines_;
  std::uint32_t seen_ = 0;
};

}  // namespace nibble::inline NIBBLE_ABI::text
