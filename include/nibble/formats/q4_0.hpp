// 4 bits a value, one scale for 32 values: d * (q - 8).
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/scale.hpp>
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

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    return {to_float(b.d), 0.0f};
  }

  // Trial scales: the greatest magnitude becomes a code of 7 to 9.25. Beyond 8 it is cut, which
  // pays where it stands alone.
  static void encode(const float* x, const float* importance, block& b) {
    constexpr integer_codes all{min_code, max_code};
    std::uint8_t c[32];
    b.d = fit_scale<32>(x, importance, all, {7.0f, 0.25f, 10, true}, min_code, c);
    pack_nibbles<16>(c, b.qs);
  }
};

static_assert(block_format<q4_0>);

}  // namespace nibble::inline NIBBLE_ABI::formats
