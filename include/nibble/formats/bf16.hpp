// bfloat16: the upper half of a binary32.
#pragma once

#include <nibble/formats/concepts.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct bf16 {
  static constexpr std::string_view name = "bf16";
  static constexpr std::uint32_t gguf_id = 30;
  static constexpr int block_size = 1;

  using block = bfloat16;

  NIBBLE_HD static float value(block b) { return to_float(b); }
  NIBBLE_HD static block from(float x) { return to_bfloat16(x); }
};

static_assert(element_format<bf16>);

}  // namespace nibble::inline NIBBLE_ABI::formats
