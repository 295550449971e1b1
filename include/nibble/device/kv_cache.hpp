// The keys and values of one sequence, as one backend holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <utility>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

enum class kv_type { f32, f16 };

constexpr std::size_t element_bytes(kv_type type) {
  return type == kv_type::f32 ? 4 : 2;
}

// What one layer keeps of each token.
struct kv_layer {
  std::int32_t n_head_kv = 0;
  std::int32_t key_length = 0, value_length = 0;  // per head
};

struct kv_layout {
  std::vector<kv_layer> layers;
  kv_type key = kv_type::f16, value = kv_type::f16;
  std::int32_t n_ctx = 0;  // tokens

  // Bytes of one token over all layers.
  std::size_t bytes_per_token() const {
    std::size_t bytes = 0;
    for (const kv_layer& l : layers) {
      const auto heads = static_cast<std::size_t>(l.n_head_kv);
      bytes += heads * (static_cast<std::size_t>(l.key_length) * element_bytes(key) +
                        static_cast<std::size_t>(l.value_length) * element_bytes(value));
    }
    return bytes;
  }
};

// Tokens are kept in pages of this many, so that pages can be shared and freed one by one.
inline constexpr std::int32_t kv_page_tokens = 64;

// Made by a backend, and used with programs of that backend only.
class NIBBLE_API kv_cache {
 public:
  virtual ~kv_cache() = default;
  kv_cache(const kv_cache&) = delete;
  kv_cache& operator=(const kv_cache&) = delete;

  const kv_layout& layout() const noexcept { return layout_; }
  virtual std::size_t bytes() const noexcept = 0;

 protected:
  explicit kv_cache(kv_layout layout) : layout_(std::move(layout)) {}

 private:
  kv_layout layout_;
};

}  // namespace nibble::inline NIBBLE_ABI
