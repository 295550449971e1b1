#include <algorithm>
#include <text/markup.hpp>

namespace nibble::inline NIBBLE_ABI::text {

markup_finder::markup_finder(const vocabulary& v) : v_(v) {
  for (token id = 0; id < v.size(); ++id) {
    if (v.names[id].empty()) continue;
    if (v.is_markup(id) || v.types[id] == token_type::user_defined) ids_.push_back(id);
  }
  // of equal names the first id counts
  std::sort(ids_.begin(), ids_.end(), [&](token a, token b) {
    const int order = v.names[a].compare(v.names[b]);
    return order != 0 ? order < 0 : a < b;
  });
  const auto same = [&](token a, token b) { return v.names[a] == v.names[b]; };
  ids_.erase(std::unique(ids_.begin(), ids_.end(), same), ids_.end());
  ids_.shrink_to_fit();

  begins_.fill(0);
  for (const token id : ids_) ++begins_[static_cast<std::uint8_t>(v.names[id][0]) + 1];
  for (std::size_t byte = 0; byte < 256; ++byte) begins_[byte + 1] += begins_[byte];
}

// Those of `names`, all longer than `at`, that have `byte` there.
markup_finder::range markup_finder::with_byte(range names, std::size_t at,
                                              std::uint8_t byte) const {
  const auto byte_of = [&](std::size_t i) { return static_cast<std::uint8_t>(name(i)[at]); };
  // markup has long prefixes in common
  const std::uint8_t least = byte_of(names.begin), most = byte_of(names.end - 1);
  if (least == byte && most == byte) return names;
  if (byte < least || byte > most) return {names.end, names.end};
  const auto first_from = [&](std::size_t begin, unsigned bound) {
    std::size_t end = names.end;
    while (begin < end) {
      const std::size_t middle = begin + (end - begin) / 2;
      if (byte_of(middle) < bound) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  };
  const std::size_t begin = first_from(names.begin, byte);
  return {begin, first_from(begin, byte + 1u)};
}

// `names` are those with the text's first byte.
markup_finder::match markup_finder::search(range names, std::string_view text,
                                           std::size_t control_bytes) const {
  match longest;
  for (std::size_t size = 1; names.begin < names.end; ++size) {
    // a name that ends here stands before those that go on
    if (name(names.begin).size() == size) {
      const token id = ids_[names.begin++];
      if (!v_.is_markup(id) || size <= control_bytes) longest = {id, size};
    }
    if (names.begin == names.end || size == text.size()) break;
    names = with_byte(names, size, static_cast<std::uint8_t>(text[size]));
  }
  return longest;
}

}  // namespace nibble::inline NIBBLE_ABI::text
