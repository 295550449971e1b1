// Where the keys and values of one sequence lie.
//
// A token has an index, its number among those that the sequence holds, and a place, which it keeps
// as long as it lives. They differ once tokens have been dropped from the middle: the first `keep`
// stay, `dropped` after them are gone, and nothing that is stored is touched. Keys are rotated
// (RoPE) by their places. Between two tokens behind the gap the distance is that of their places; a
// query that looks at one of the first `keep` is turned back by `dropped` first.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct kv_table {
  // Pages of a group of layers, by place / kv_page_tokens. no_page: nobody will look there.
  // A state is page 0 of its group.
  struct group {
    std::vector<page_id> head;  // of the first head.size() pages
    std::vector<page_id> tail;  // of those from tail_first on, which is head.size() or more
    std::int64_t tail_first = 0;

    page_id at(std::int64_t page) const noexcept {
      if (page < static_cast<std::int64_t>(head.size())) {
        return head[static_cast<std::size_t>(page)];
      }
      const std::int64_t i = page - tail_first;
      if (i < 0 || i >= static_cast<std::int64_t>(tail.size())) return no_page;
      return tail[static_cast<std::size_t>(i)];
    }
  };
  std::vector<group> groups;  // as in the cache
  std::int32_t keep = 0;
  std::int64_t dropped = 0;  // 0: all places are indices

  std::int64_t place(std::int64_t index) const noexcept {
    return index < keep ? index : index + dropped;
  }
};

}  // namespace nibble::inline NIBBLE_ABI
