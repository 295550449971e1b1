// Keys and values on the CPU: pages of tokens in one block of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <span>

#include "device/arena.hpp"
#include "device/kv_page_layout.hpp"
#include "device/memory_tally.hpp"

namespace nibble::inline NIBBLE_ABI {

// Rows of one head in a page, one token's after another's: codes, and their scales if there are.
struct cpu_kv_rows {
  std::byte* codes;
  std::byte* scales;
};

class cpu_kv_cache final : public kv_cache {
 public:
  // `owner` is the backend that made it. Throws error as backend::make_cache.
  cpu_kv_cache(const kv_layout& layout, std::span<const std::int32_t> pages, const backend* owner,
               std::shared_ptr<memory_tally> tally);

  std::size_t bytes() const noexcept override { return memory_.bytes(); }

  void copy_page(std::size_t group, page_id from, page_id to) override;
  void read_page(std::size_t group, page_id page, std::int32_t tokens,
                 std::byte* to) const override;
  void write_page(std::size_t group, page_id page, std::int32_t tokens,
                  const std::byte* from) override;

  using layer_place = kv_page_layout::layer_place;
  const layer_place& layer(std::int32_t i) const noexcept { return places_.layer(i); }

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
  std::byte* page_at(std::size_t group, page_id page) const noexcept {
    return memory_.data() + places_.page_at(group, page);
  }
  static cpu_kv_rows rows_at(std::byte* head, kv_page_layout::row_size size,
                             std::int64_t row) noexcept {
    const auto i = static_cast<std::size_t>(row);
    return {head + i * size.codes, head + kv_page_tokens * size.codes + i * size.scales};
  }

  kv_page_layout places_;
  arena memory_;
  tally_entry counted_;
};

}  // namespace nibble::inline NIBBLE_ABI
