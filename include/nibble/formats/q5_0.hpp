// 5 bits a value, one scale for 32 values: d * (q - 16).
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/scale.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q5_0 {
  static constexpr std::string_view name = "q5_0";
  static constexpr std::uint32_t gguf_id = 6;
  static constexpr int block_size = 32;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -16;
  static constexpr int max_code = 15;

  struct block {
    half d;
    std::uint8_t qh[4];   // bit i: the fifth bit of value i
    std::uint8_t qs[16];  // low halves: values 0..15, high halves: values 16..31
  };
  static_assert(sizeof(block) == 22);

  NIBBLE_HD static void codes(const block& b, int, std::int8_t* __restrict out) {
    split_nibbles_5(b.qs, b.qh, out, 16);
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    return {to_float(b.d), 0.0f};
  }

  // Trial scales: the greatest magnitude becomes a code of 13 to 16.75.
  static void encode(const float* x, const float* importance, block& b) {
    constexpr integer_codes all{min_code, max_code};
    std::uint8_t c[32];
    b.d = fit_scale<32>(x, importance, all, {13.0f, 0.25f, 16, true}, min_code, c);
    pack_nibbles<16>(c, b.qs);
    pack_fifth_bits(c, b.qh);
  }
};

static_assert(block_format<q5_0>);

}  // namespace nibble::inline NIBBLE_ABI::formats
