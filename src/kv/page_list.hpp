// The pages of one group: how often each is used, and which can be had.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_table.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// A page is used, free, or cached: used by nobody, but filed in the prefix tree. Takes all its
// memory when it is made.
class page_list {
 public:
  explicit page_list(std::int32_t pages);

  std::int32_t total() const noexcept { return static_cast<std::int32_t>(pages_.size()); }
  std::int32_t used() const noexcept { return total() - available(); }
  std::int32_t cached() const noexcept { return cached_; }
  std::int32_t available() const noexcept {
    return static_cast<std::int32_t>(free_.size()) + cached_;
  }
  bool has_free() const noexcept { return !free_.empty(); }
  std::int32_t references(page_id page) const { return at(page).references; }

  // There must be a free one.
  page_id take();
  // One user more, one less.
  void retain(page_id page);
  void release(page_id page);

  // The cached page that nobody has used for the longest time, or no_page.
  page_id oldest_cached() const noexcept { return oldest_; }

  // Where it is filed, or -1. A cached page that is filed nowhere any more is free.
  std::int32_t node(page_id page) const { return at(page).node; }
  void set_node(page_id page, std::int32_t node);

  bool consistent() const;

 private:
  struct entry {
    std::int32_t references = 0;
    std::int32_t node = -1;
    page_id older = no_page, newer = no_page;  // among the cached
  };
  entry& at(page_id i) { return pages_[static_cast<std::size_t>(i)]; }
  const entry& at(page_id i) const { return pages_[static_cast<std::size_t>(i)]; }
  void link(page_id i);
  void unlink(page_id i);

  std::vector<entry> pages_;
  std::vector<page_id> free_;
  page_id oldest_ = no_page, newest_ = no_page;
  std::int32_t cached_ = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
