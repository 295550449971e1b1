// 8 bits a value, one scale for 32 values: d * q.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/scale.hpp>

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

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    return {to_float(b.d), 0.0f};
  }

  // Trial scales: the greatest magnitude becomes a code of 119.5 to 127. Code -128 is not made, so
  // that kernels may take the magnitude of a code in a byte.
  static void encode(const float* x, const float* importance, block& b) {
    constexpr integer_codes made{-127, 127};
    std::uint8_t c[32];
    b.d = fit_scale<32>(x, importance, made, {119.5f, 0.5f, 16, false}, 0, c);
    for (int i = 0; i < 32; ++i) b.qs[i] = static_cast<std::int8_t>(c[i]);
  }
};

static_assert(block_format<q8_0>);

}  // namespace nibble::inline NIBBLE_ABI::formats
