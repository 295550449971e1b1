// 8 bits a value, one scale for 32 values: d * q.
#pragma once

#include <algorithm>
#include <cmath>
#include <nibble/formats/block_scale.hpp>
#include <nibble/formats/concepts.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q8_0 {
  static constexpr std::string_view name = "q8_0";
  static constexpr std::uint32_t gguf_id = 8;
  static constexpr int block_size = 32;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -128;
  static constexpr int max_code = 127;

  struct block {
    half d;
    std::int8_t qs[32];
  };
  static_assert(sizeof(block) == 34);

  NIBBLE_HD static void codes(const block& b, int, std::int8_t* __restrict out) {
    for (int i = 0; i < 32; ++i) out[i] = b.qs[i];
  }

  NIBBLE_HD static affine scale(const block& b, int) { return {to_float(b.d), 0.0f}; }

  // Uses codes -127..127. The error is half a step d at most.
  static void encode(const float* x, const float*, block& b) {
    float greatest = 0.0f;
    for (int i = 0; i < block_size; ++i) greatest = std::max(greatest, std::fabs(x[i]));
    b.d = covering_scale(greatest, 127);
    for (int i = 0; i < block_size; ++i) {
      b.qs[i] = static_cast<std::int8_t>(nearest_code(x[i], to_float(b.d), -127, 127));
    }
  }
};

static_assert(block_format<q8_0>);

}  // namespace nibble::inline NIBBLE_ABI::formats
