// 4 bits a value, one scale for 32 values: d * (q - 8).
#pragma once

#include <cmath>
#include <nibble/formats/block_scale.hpp>
#include <nibble/formats/concepts.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q4_0 {
  static constexpr std::string_view name = "q4_0";
  static constexpr std::uint32_t gguf_id = 2;
  static constexpr int block_size = 32;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -8;
  static constexpr int max_code = 7;

  struct block {
    half d;
    std::uint8_t qs[16];  // low halves: values 0..15, high halves: values 16..31
  };
  static_assert(sizeof(block) == 18);

  NIBBLE_HD static void codes(const block& b, int, std::int8_t* __restrict out) {
    split_nibbles(b.qs, out, 8);
  }

  NIBBLE_HD static affine scale(const block& b, int) { return {to_float(b.d), 0.0f}; }

  // The value of greatest magnitude gets code -8, so that its sign chooses the sign of d and all 16
  // codes are used. The error is half a step |d| at most, but for values of the other sign beyond
  // 7.5 steps: all of them get code 7. (Beyond 8 steps lies only what rounding d to 16 bits adds.)
  static void encode(const float* x, const float*, block& b) {
    float extreme = 0.0f;
    for (int i = 0; i < block_size; ++i) {
      if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
    }
    b.d = covering_scale(std::fabs(extreme), 8);
    if (extreme > 0.0f) b.d.bits |= 0x8000u;
    for (int i = 0; i < 16; ++i) {
      const int low = nearest_code(x[i], to_float(b.d), min_code, max_code) + 8;
      const int high = nearest_code(x[i + 16], to_float(b.d), min_code, max_code) + 8;
      b.qs[i] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
};

static_assert(block_format<q4_0>);

}  // namespace nibble::inline NIBBLE_ABI::formats
