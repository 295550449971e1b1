// IEEE 754 binary16.
#pragma once

#include <nibble/formats/concepts.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct f16 {
  static constexpr std::string_view name = "f16";
  static constexpr std::uint32_t gguf_id = 1;
  static constexpr int block_size = 1;

  using block = half;

  NIBBLE_HD static float value(block b) { return to_float(b); }
  NIBBLE_HD static block from(float x) { return to_half(x); }
};

static_assert(element_format<f16>);

}  // namespace nibble::inline NIBBLE_ABI::formats
