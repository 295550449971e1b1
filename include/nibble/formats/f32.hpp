// IEEE 754 binary32.
#pragma once

#include <nibble/formats/concepts.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct f32 {
  static constexpr std::string_view name = "f32";
  static constexpr std::uint32_t gguf_id = 0;
  static constexpr int block_size = 1;

  using block = float;

  NIBBLE_HD static float value(block b) { return b; }
  NIBBLE_HD static block from(float x) { return x; }
};

static_assert(element_format<f32>);

}  // namespace nibble::inline NIBBLE_ABI::formats
