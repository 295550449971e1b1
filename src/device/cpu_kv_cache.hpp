// Keys and values on the CPU: pages of tokens in one block of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <vector>

#include "device/arena.hpp"

namespace nibble::inline NIBBLE_ABI {

// A page holds, for each layer, keys [n_head_kv, kv_page_tokens, key_length] and then values
// [n_head_kv, kv_page_tokens, value_length]. Pages are reached through a table only, so that they
// can be shared between sequences.
class cpu_kv_cache final : public kv_cache {
 public:
  // `owner` is the backend that made it. Throws error (invalid_argument, out_of_memory,
  // unsupported: K and V of different types).
  cpu_kv_cache(const kv_layout& layout, const void* owner);

  static std::size_t bytes_for(const kv_layout& layout);
  std::size_t bytes() const noexcept override { return memory_.bytes(); }
  const void* owner() const noexcept { return owner_; }

  // The first token's row of one head in a page.
  std::byte* keys(std::int64_t page, std::int32_t layer, std::int64_t head) const noexcept {
    const layer_place& l = layers_[static_cast<std::size_t>(layer)];
    return pages_[static_cast<std::size_t>(page)] + l.keys +
           static_cast<std::size_t>(head) * l.key_row * kv_page_tokens;
  }
  std::byte* values(std::int64_t page, std::int32_t layer, std::int64_t head) const noexcept {
    const layer_place& l = layers_[static_cast<std::size_t>(layer)];
    return pages_[static_cast<std::size_t>(page)] + l.values +
           static_cast<std::size_t>(head) * l.value_row * kv_page_tokens;
  }
  // Bytes of one token's row of one head.
  std::size_t key_row(std::int32_t layer) const noexcept {
    return layers_[static_cast<std::size_t>(layer)].key_row;
  }
  std::size_t value_row(std::int32_t layer) const noexcept {
    return layers_[static_cast<std::size_t>(layer)].value_row;
  }

 private:
  struct layer_place {
    std::size_t keys, values;        // offsets in a page
    std::size_t key_row, value_row;  // bytes
  };

  arena memory_;
  std::vector<layer_place> layers_;
  std::vector<std::byte*> pages_;
  const void* owner_;
};

constexpr std::int64_t pages_for(std::int64_t tokens) {
  return (tokens + kv_page_tokens - 1) / kv_page_tokens;
}

}  // namespace nibble::inline NIBBLE_ABI
