// Finds control and user-defined tokens in text.
#pragma once

#include <array>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <string_view>
#include <text/vocabulary.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

// A tree of bytes. At each place of a text the longest name that begins there counts; time is at
// most longest_markup steps a byte, and one look-up where no name begins.
class markup_finder {
 public:
  explicit markup_finder(const vocabulary& v);

  struct match {
    token id = text_table::absent;
    std::size_t size = 0;
  };
  // The longest name at the beginning of `text`: any user-defined token, and control or unknown
  // tokens if their names lie within the first `control_bytes` bytes.
  match longest_at(std::string_view text, std::size_t control_bytes) const;

 private:
  struct node {
    std::int32_t first_child = -1, sibling = -1;
    token id = text_table::absent;
    bool control = false;
    char byte = 0;
  };
  std::int32_t child(std::int32_t parent, char byte) const;

  std::vector<node> nodes_;
  std::array<std::int32_t, 256> roots_{};
};

}  // namespace nibble::inline NIBBLE_ABI::text
