// Ternary, 2 bits a value, one scale for 256 values.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/ternary.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct tq2_0 {
  static constexpr std::string_view name = "tq2_0";
  static constexpr std::uint32_t gguf_id = 35;
  static constexpr int block_size = 256;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -1;
  static constexpr int max_code = 2;

  struct block {
    std::uint8_t qs[64];  // byte 32 h + i: values 128 h + i + {0, 32, 64, 96}, from the low bits
    half d;
  };
  static_assert(sizeof(block) == 66);

  // A code is the two bits less 1; writers do not make the 2 that the bits allow.
  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    const std::uint8_t* const packed = b.qs + 32 * (group >> 2);
    const int shift = 2 * (group & 3);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<std::int8_t>(((packed[i] >> shift) & 3) - 1);
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    return {to_float(b.d), 0.0f};
  }

  // Codes -1, 0, 1.
  static void encode(const float* x, const float* importance, block& b) {
    std::uint8_t c[256];
    b.d = fit_ternary<256>(x, importance, c);
    pack_pairs(c, 0, b.qs);
  }
};

static_assert(block_format<tq2_0>);

}  // namespace nibble::inline NIBBLE_ABI::formats
