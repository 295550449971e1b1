// Keys and values of a model's sequences, as one backend holds them: pages, which belong to nobody
// here. Who has which page, kv_table says; `page_pool` (kv/) shares them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_type.hpp>
#include <span>
#include <utility>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// What a layer keeps.
enum class kv_kind {
  rows,    // keys and values of each token
  latent,  // one row a token, which keys and values are both made from: key_length of one head
  state    // one state of the whole sequence, rewritten by each token: key_length numbers, f32
};

struct kv_layer {
  std::int32_t n_head_kv = 0;
  std::int32_t key_length = 0, value_length = 0;  // per head
  std::int32_t window = 0;                        // a token sees the last `window` ones; 0: all
  kv_kind kind = kv_kind::rows;
};

struct kv_layout {
  std::vector<kv_layer> layers;
  kv_type key = kv_type::f16, value = kv_type::f16;
  // Heads pass a Walsh-Hadamard transform before they are stored (and queries or results another):
  // outliers of single dimensions are spread over all, which costs integer codes less.
  bool rotate_key = false, rotate_value = false;

  // Bytes that a token takes in one layer, and over all layers; those of a layer's state.
  std::size_t token_bytes(const kv_layer& layer) const {
    if (layer.kind == kv_kind::state) return 0;
    const std::size_t values =
        layer.kind == kv_kind::latent ? 0 : row_bytes(value, layer.value_length);
    return static_cast<std::size_t>(layer.n_head_kv) * (row_bytes(key, layer.key_length) + values);
  }
  static std::size_t state_bytes(const kv_layer& layer) {
    if (layer.kind != kv_kind::state) return 0;
    return static_cast<std::size_t>(layer.n_head_kv) * row_bytes(kv_type::f32, layer.key_length);
  }
  std::size_t bytes_per_token() const {
    std::size_t bytes = 0;
    for (const kv_layer& l : layers) bytes += token_bytes(l);
    return bytes;
  }
};

// Tokens are kept in pages of this many, so that pages can be shared and freed one by one. Small
// ones waste less and share more; docs/kv-cache.md has what attention makes of them.
inline constexpr std::int32_t kv_page_tokens = 64;

constexpr std::int64_t pages_for(std::int64_t tokens) {
  return (tokens + kv_page_tokens - 1) / kv_page_tokens;
}

// A page, by its number in a cache and a group.
using page_id = std::int32_t;
inline constexpr page_id no_page = -1;

// Layers of one kind that see equally far have pages in common: a page holds 64 tokens of all
// layers of a group, or one state of them.
struct kv_group {
  kv_kind kind = kv_kind::rows;
  std::int32_t window = 0;
  std::vector<std::int32_t> layers = {};
  std::size_t bytes_per_token = 0, state_bytes = 0;

  std::size_t page_bytes() const {
    return kind == kv_kind::state ? state_bytes : bytes_per_token * kv_page_tokens;
  }
};

// In the order of their first layers.
NIBBLE_API std::vector<kv_group> group_layers(const kv_layout& layout);

// A cache of some layers only: the others have no heads, and groups are numbered as before.
// there: by layer.
NIBBLE_API kv_layout layers_of(const kv_layout& layout, const std::vector<bool>& there);

class backend;

// Made by a backend, and used with programs of that backend only.
class NIBBLE_API kv_cache {
 public:
  virtual ~kv_cache() = default;
  kv_cache(const kv_cache&) = delete;
  kv_cache& operator=(const kv_cache&) = delete;

  const kv_layout& layout() const noexcept { return layout_; }
  const std::vector<kv_group>& groups() const noexcept { return groups_; }
  std::int32_t pages(std::size_t group) const { return pages_[group]; }
  virtual std::size_t bytes() const noexcept = 0;
  const backend* owner() const noexcept { return owner_; }

  virtual void copy_page(std::size_t group, page_id from, page_id to) = 0;
  // The first `tokens` tokens of a page, as bytes whose order is the same in every cache with these
  // layers and types: [tokens * kv_group::bytes_per_token]; or a state, [kv_group::state_bytes].
  virtual void read_page(std::size_t group, page_id page, std::int32_t tokens,
                         std::byte* to) const = 0;
  virtual void write_page(std::size_t group, page_id page, std::int32_t tokens,
                          const std::byte* from) = 0;

 protected:
  kv_cache(kv_layout layout, std::span<const std::int32_t> pages, const backend* owner)
      : layout_(std::move(layout)),
        groups_(group_layers(layout_)),
        pages_(pages.begin(), pages.end()),
        owner_(owner) {}

 private:
  kv_layout layout_;
  std::vector<kv_group> groups_;
  std::vector<std::int32_t> pages_;  // by group
  const backend* owner_;
};

}  // namespace nibble::inline NIBBLE_ABI
