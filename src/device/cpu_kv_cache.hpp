// Keys and values on the CPU: pages of tokens in one block of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <span>
#include <vector>

#include "device/arena.hpp"

namespace nibble::inline NIBBLE_ABI {

// Rows of one head in a page, one token's after another's: codes, and their scales if there are.
struct cpu_kv_rows {
  std::byte* codes;
  std::byte* scales;
};

// A page holds, for each layer of its group, keys' codes [n_head_kv, kv_page_tokens, key_length]
// and scales [n_head_kv, kv_page_tokens, n], and then the same of values.
class cpu_kv_cache final : public kv_cache {
 public:
  // `owner` is the backend that made it. Throws error as backend::make_cache.
  cpu_kv_cache(const kv_layout& layout, std::span<const std::int32_t> pages, const void* owner);

  static std::size_t bytes_for(const kv_layout& layout, std::span<const std::int32_t> pages);
  std::size_t bytes() const noexcept override { return memory_.bytes(); }
  const void* owner() const noexcept { return owner_; }

  void copy_page(std::size_t group, page_id from, page_id to) override;
  void read_page(std::size_t group, page_id page, std::int32_t tokens,
                 std::byte* to) const override;
  void write_page(std::size_t group, page_id page, std::int32_t tokens,
                  const std::byte* from) override;

  // Bytes of one token's row.
  struct row_size {
    std::size_t codes, scales;
    std::size_t bytes() const noexcept { return codes + scales; }
  };
  struct layer_place {
    std::size_t group;
    row_size key, value;
    std::size_t keys, values;  // offsets in a page

    static std::size_t of(std::size_t part, row_size row, std::int64_t head) noexcept {
      return part + static_cast<std::size_t>(head) * row.bytes() * kv_page_tokens;
    }
  };
  const layer_place& layer(std::int32_t i) const noexcept {
    return layers_[static_cast<std::size_t>(i)];
  }

  // One head's rows from token `row` of a page on.
  cpu_kv_rows keys(const layer_place& l, page_id page, std::int64_t head,
                   std::int64_t row) const noexcept {
    return rows_at(page_at(l.group, page) + layer_place::of(l.keys, l.key, head), l.key, row);
  }
  cpu_kv_rows values(const layer_place& l, page_id page, std::int64_t head,
                     std::int64_t row) const noexcept {
    return rows_at(page_at(l.group, page) + layer_place::of(l.values, l.value, head), l.value, row);
  }

 private:
  struct group_place {
    std::size_t first, page_bytes;
  };

  std::byte* page_at(std::size_t group, page_id page) const noexcept {
    const group_place& g = places_[group];
    return memory_.data() + g.first + static_cast<std::size_t>(page) * g.page_bytes;
  }
  static cpu_kv_rows rows_at(std::byte* head, row_size size, std::int64_t row) noexcept {
    const auto i = static_cast<std::size_t>(row);
    return {head + i * size.codes, head + kv_page_tokens * size.codes + i * size.scales};
  }
  // f(bytes of a page, count): each run of bytes that the first `tokens` tokens have in a page.
  template <typename F>
  void each_run(std::size_t group, std::byte* page, std::int32_t tokens, F f) const;

  arena memory_;
  std::vector<layer_place> layers_;
  std::vector<group_place> places_;  // by group
  const void* owner_;
};

}  // namespace nibble::inline NIBBLE_ABI
