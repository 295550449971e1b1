#include "device/cpu_kv_cache.hpp"

#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

void check_layout(const kv_layout& layout) {
  if (layout.n_ctx <= 0) {
    throw error(errc::invalid_argument,
                concat("a cache for ", layout.n_ctx, " tokens cannot be made"));
  }
  if (layout.key != layout.value) {
    throw error(errc::unsupported, "the CPU needs keys and values of one type, f32 or f16");
  }
  for (std::size_t i = 0; i < layout.layers.size(); ++i) {
    const kv_layer& l = layout.layers[i];
    if (l.n_head_kv >= 0 && l.key_length >= 0 && l.value_length >= 0) continue;
    throw error(errc::invalid_argument, concat("layer ", i, " of a cache has a negative size"));
  }
}

// Each layer's keys and values are whole numbers of cache lines: a page has 64 tokens.
std::size_t page_bytes(const kv_layout& layout) {
  return layout.bytes_per_token() * kv_page_tokens;
}

}  // namespace

std::size_t cpu_kv_cache::bytes_for(const kv_layout& layout) {
  check_layout(layout);
  const auto bytes =
      checked_mul(page_bytes(layout), static_cast<std::uint64_t>(pages_for(layout.n_ctx)));
  if (!bytes) {
    throw error(errc::out_of_memory,
                concat("a cache for ", layout.n_ctx, " tokens has more bytes than can be counted"));
  }
  return *bytes;
}

cpu_kv_cache::cpu_kv_cache(const kv_layout& layout, const void* owner)
    : kv_cache(layout), memory_(bytes_for(layout), "a key/value cache"), owner_(owner) {
  std::size_t at = 0;
  for (const kv_layer& l : layout.layers) {
    const auto heads = static_cast<std::size_t>(l.n_head_kv);
    layer_place place{};
    place.key_row = static_cast<std::size_t>(l.key_length) * element_bytes(layout.key);
    place.value_row = static_cast<std::size_t>(l.value_length) * element_bytes(layout.value);
    place.keys = at;
    place.values = at + heads * kv_page_tokens * place.key_row;
    at = place.values + heads * kv_page_tokens * place.value_row;
    layers_.push_back(place);
  }
  for (std::int64_t i = 0; i < pages_for(layout.n_ctx); ++i) {
    pages_.push_back(memory_.data() + static_cast<std::size_t>(i) * at);
  }
}

}  // namespace nibble::inline NIBBLE_ABI
