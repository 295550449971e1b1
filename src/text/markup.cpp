#include <text/markup.hpp>

namespace nibble::inline NIBBLE_ABI::text {

markup_finder::markup_finder(const vocabulary& v) {
  roots_.fill(-1);
  for (token id = 0; id < v.size(); ++id) {
    const std::string_view name = v.names[id];
    const bool control = v.is_markup(id);
    if (name.empty() || (!control && v.types[id] != token_type::user_defined)) continue;
    std::int32_t at = -1;
    for (const char byte : name) {
      std::int32_t next = child(at, byte);
      if (next < 0) {
        next = static_cast<std::int32_t>(nodes_.size());
        std::int32_t& head =
            at < 0 ? roots_[static_cast<std::uint8_t>(byte)] : nodes_[at].first_child;
        const std::int32_t sibling = head;  // -1 at the root: one node a byte
        head = next;
        nodes_.push_back({-1, sibling, text_table::absent, false, byte});
      }
      at = next;
    }
    if (nodes_[at].id == text_table::absent) {
      nodes_[at].id = id;
      nodes_[at].control = control;
    }
  }
}

std::int32_t markup_finder::child(std::int32_t parent, char byte) const {
  if (parent < 0) return roots_[static_cast<std::uint8_t>(byte)];
  std::int32_t at = nodes_[parent].first_child;
  while (at >= 0 && nodes_[at].byte != byte) at = nodes_[at].sibling;
  return at;
}

markup_finder::match markup_finder::longest_at(std::string_view text,
                                               std::size_t control_bytes) const {
  match longest;
  std::int32_t at = -1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    at = child(at, text[i]);
    if (at < 0) break;
    const node& n = nodes_[at];
    if (n.id != text_table::absent && (!n.control || i < control_bytes)) longest = {n.id, i + 1};
  }
  return longest;
}

}  // namespace nibble::inline NIBBLE_ABI::text
