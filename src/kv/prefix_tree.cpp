#include "kv/prefix_tree.hpp"

#include <algorithm>
#include <bit>

namespace nibble::inline NIBBLE_ABI {
namespace {

std::uint64_t mix(std::uint64_t h) {
  h ^= h >> 32;
  h *= 0xd6e8feb86659fd93u;
  return h ^ (h >> 29);
}

}  // namespace

prefix_tree::prefix_tree(std::size_t groups, std::size_t nodes)
    : groups_(groups),
      nodes_(nodes),
      pages_(nodes * groups, no_page),
      tokens_(nodes * kv_page_tokens),
      buckets_(std::bit_ceil(std::max<std::size_t>(nodes, 1)), none) {
  for (std::size_t i = nodes; i-- > 0;) {
    nodes_[i].next = free_;
    free_ = static_cast<std::int32_t>(i);
  }
}

std::int32_t& prefix_tree::bucket(std::uint64_t parent, std::span<const token> tokens) {
  std::uint64_t h = parent;
  for (const token t : tokens) h = mix(h + static_cast<std::uint32_t>(t) + 0x9e3779b97f4a7c15u);
  return buckets_[h & (buckets_.size() - 1)];
}

std::int32_t prefix_tree::find(std::uint64_t parent, std::span<const token> tokens) const {
  std::int32_t i = const_cast<prefix_tree*>(this)->bucket(parent, tokens);
  while (i != none && !(at(i).parent == parent && std::ranges::equal(tokens_of(i), tokens))) {
    i = at(i).next;
  }
  return i;
}

std::int32_t prefix_tree::insert(std::uint64_t parent, std::span<const token> tokens) {
  const std::int32_t i = free_;
  if (i == none) return none;
  node& n = nodes_[static_cast<std::size_t>(i)];
  free_ = n.next;
  std::int32_t& first = bucket(parent, tokens);
  n = {.content = ++last_content_, .parent = parent, .next = first, .pages = 0};
  first = i;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<std::ptrdiff_t>(i) * kv_page_tokens);
  return i;
}

void prefix_tree::attach(std::int32_t i, std::size_t group, page_id page) {
  pages_[index(i, group)] = page;
  ++nodes_[static_cast<std::size_t>(i)].pages;
}

void prefix_tree::detach(std::int32_t i, std::size_t group) {
  pages_[index(i, group)] = no_page;
  if (--nodes_[static_cast<std::size_t>(i)].pages == 0) erase(i);
}

void prefix_tree::erase(std::int32_t i) {
  node& n = nodes_[static_cast<std::size_t>(i)];
  std::int32_t* link = &bucket(n.parent, tokens_of(i));
  while (*link != i) link = &nodes_[static_cast<std::size_t>(*link)].next;
  *link = n.next;
  n.next = free_;
  free_ = i;
}

}  // namespace nibble::inline NIBBLE_ABI
