#include "device/cpu_kv_cache.hpp"

#include <cstring>
#include <utility>

namespace nibble::inline NIBBLE_ABI {

cpu_kv_cache::cpu_kv_cache(const kv_layout& layout, std::span<const std::int32_t> pages,
                           const backend* owner, std::shared_ptr<memory_tally> tally)
    : kv_cache(layout, pages, owner),
      places_(layout, pages),
      memory_(places_.bytes(), "a key/value cache"),
      counted_(std::move(tally), memory_tally::kv, memory_.bytes()) {}

void cpu_kv_cache::copy_page(std::size_t group, page_id from, page_id to) {
  std::memcpy(page_at(group, to), page_at(group, from), places_.group(group).page_bytes);
}

void cpu_kv_cache::read_page(std::size_t group, page_id page, std::int32_t tokens,
                             std::byte* to) const {
  const std::byte* const from = page_at(group, page);
  for (const auto& [offset, bytes] : places_.runs(group, tokens)) {
    std::memcpy(to, from + offset, bytes);
    to += bytes;
  }
}

void cpu_kv_cache::write_page(std::size_t group, page_id page, std::int32_t tokens,
                              const std::byte* from) {
  std::byte* const to = page_at(group, page);
  for (const auto& [offset, bytes] : places_.runs(group, tokens)) {
    std::memcpy(to + offset, from, bytes);
    from += bytes;
  }
}

}  // namespace nibble::inline NIBBLE_ABI
