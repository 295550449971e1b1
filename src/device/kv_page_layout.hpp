// How a page of a cache is laid out, the same on every device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// A page holds, for each layer of its group, keys' codes and scales, [n_head_kv] times
// [kv_page_tokens, code bytes] and [kv_page_tokens, scale bytes], and then the same of values.
class kv_page_layout {
 public:
  // Throws error: invalid_argument for a layout or numbers of pages that make no sense, unsupported
  // (a kind of layer that no device has steps for, a type that rows of this length cannot have).
  kv_page_layout(const kv_layout& layout, std::span<const std::int32_t> pages);

  // Bytes of one token's row.
  struct row_size {
    std::size_t codes, scales;
    std::size_t bytes() const noexcept { return codes + scales; }
  };
  struct layer_place {
    std::size_t group;
    std::int32_t heads;
    row_size key, value;
    std::size_t keys, values;  // offsets in a page

    static std::size_t of(std::size_t part, row_size row, std::int64_t head) noexcept {
      return part + static_cast<std::size_t>(head) * row.bytes() * kv_page_tokens;
    }
  };
  struct group_place {
    std::size_t first, page_bytes;  // where its pages begin in the cache
  };

  const layer_place& layer(std::int32_t i) const noexcept {
    return layers_[static_cast<std::size_t>(i)];
  }
  const group_place& group(std::size_t i) const noexcept { return places_[i]; }
  // Of all pages.
  std::size_t bytes() const noexcept { return bytes_; }
  // Where a page begins in the cache.
  std::size_t page_at(std::size_t group, page_id page) const noexcept {
    return places_[group].first + static_cast<std::size_t>(page) * places_[group].page_bytes;
  }

  // A run of bytes that the first tokens of a page have in it.
  struct run {
    std::size_t offset, bytes;
  };
  // In the order of kv_cache::read_page.
  std::vector<run> runs(std::size_t group, std::int32_t tokens) const;

 private:
  std::vector<layer_place> layers_;
  std::vector<group_place> places_;
  std::vector<kv_group> groups_;
  std::size_t bytes_ = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
