// Full pages, filed under their tokens and what lies before them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/batch.hpp>
#include <nibble/device/kv_table.hpp>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Takes all its memory when it is made.
class prefix_tree {
 public:
  static constexpr std::uint64_t root = 0;
  static constexpr std::int32_t none = -1;

  struct node {
    std::uint64_t content = 0;  // of this node; never given twice
    std::uint64_t parent = 0;   // content before it
    std::int32_t next = none;   // in the same bucket, or of the free ones
    std::int32_t pages = 0;     // that it has
  };

  prefix_tree(std::size_t groups, std::size_t nodes);

  // The node of these kv_page_tokens tokens after `parent`, or none.
  std::int32_t find(std::uint64_t parent, std::span<const token> tokens) const;
  // Makes it; there must not be one. None if all nodes are taken.
  std::int32_t insert(std::uint64_t parent, std::span<const token> tokens);

  const node& at(std::int32_t i) const { return nodes_[static_cast<std::size_t>(i)]; }
  page_id page(std::int32_t i, std::size_t group) const { return pages_[index(i, group)]; }
  void attach(std::int32_t i, std::size_t group, page_id page);
  // The node goes with its last page.
  void detach(std::int32_t i, std::size_t group);

 private:
  std::size_t index(std::int32_t i, std::size_t group) const {
    return static_cast<std::size_t>(i) * groups_ + group;
  }
  std::span<const token> tokens_of(std::int32_t i) const {
    return std::span(tokens_).subspan(static_cast<std::size_t>(i) * kv_page_tokens, kv_page_tokens);
  }
  std::int32_t& bucket(std::uint64_t parent, std::span<const token> tokens);
  void erase(std::int32_t i);

  std::size_t groups_;
  std::vector<node> nodes_;
  std::vector<page_id> pages_;         // [nodes, groups]
  std::vector<token> tokens_;          // [nodes, kv_page_tokens]
  std::vector<std::int32_t> buckets_;  // first nodes
  std::int32_t free_ = none;
  std::uint64_t last_content_ = root;
};

}  // namespace nibble::inline NIBBLE_ABI
