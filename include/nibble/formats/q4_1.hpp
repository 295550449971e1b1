// 4 bits a value, one scale and one offset for 32 values: d * q + m.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/offset.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q4_1 {
  static constexpr std::string_view name = "q4_1";
  static constexpr std::uint32_t gguf_id = 3;
  static constexpr int block_size = 32;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = true;
  static constexpr int min_code = 0;
  static constexpr int max_code = 15;

  struct block {
    half d;               // scale
    half m;               // offset
    std::uint8_t qs[16];  // low halves: values 0..15, high halves: values 16..31
  };
  static_assert(sizeof(block) == 20);

  NIBBLE_HD static void codes(const block& b, int, std::int8_t* __restrict out) {
    split_nibbles(b.qs, out);
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    return {to_float(b.d), to_float(b.m)};
  }

  // Trial scales: from the least to the greatest value it is 13.5 to 15.75 steps.
  static void encode(const float* x, const float* importance, block& b) {
    constexpr integer_codes all{min_code, max_code};
    std::uint8_t c[32];
    fit_offset<32>(x, importance, all, {13.5f, 0.375f, 7}, b.d, b.m, c);
    pack_nibbles<16>(c, b.qs);
  }
};

static_assert(block_format<q4_1>);

}  // namespace nibble::inline NIBBLE_ABI::formats
