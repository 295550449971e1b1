// Finds control and user-defined tokens in text.
#pragma once

#include <array>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <string_view>
#include <text/vocabulary.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

// The ids of markup, sorted by name: four bytes a name, whatever the names are (a tree of their
// bytes took twenty for each byte). At each place of a text the longest name that begins there
// counts; time is one look-up where no name begins, and at most longest_markup binary searches.
class markup_finder {
 public:
  // Refers to `v`, which must outlive it.
  explicit markup_finder(const vocabulary& v);

  struct match {
    token id = text_table::absent;
    std::size_t size = 0;
  };
  // The longest name at the beginning of `text`: any user-defined token, and control or unknown
  // tokens if their names lie within the first `control_bytes` bytes.
  match longest_at(std::string_view text, std::size_t control_bytes) const {
    if (text.empty()) return {};
    const auto first = static_cast<std::uint8_t>(text[0]);
    if (begins_[first] == begins_[first + 1]) return {};
    return search({begins_[first], begins_[first + 1]}, text, control_bytes);
  }

 private:
  // Neighbours in ids_, whose names agree in the bytes compared so far.
  struct range {
    std::size_t begin, end;
  };
  match search(range names, std::string_view text, std::size_t control_bytes) const;
  range with_byte(range names, std::size_t at, std::uint8_t byte) const;
  std::string_view name(std::size_t i) const { return v_.names[ids_[i]]; }

  const vocabulary& v_;
  std::vector<token> ids_;                     // of distinct names, in the order of their bytes
  std::array<std::uint32_t, 256 + 1> begins_;  // by first byte, in ids_
};

}  // namespace nibble::inline NIBBLE_ABI::text
