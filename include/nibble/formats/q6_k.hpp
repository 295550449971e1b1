// 6 bits a value, a signed 8-bit scale for 16 values, scaled per 256.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/scale_groups.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q6_k {
  static constexpr std::string_view name = "q6_k";
  static constexpr std::uint32_t gguf_id = 14;
  static constexpr int block_size = 256;
  static constexpr int group_size = 16;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -32;
  static constexpr int max_code = 31;

  struct block {
    std::uint8_t ql[128];  // byte 64 h + i, i < 64: values 128 h + i (low half), 128 h + 64 + i
    std::uint8_t qh[64];   // byte 32 h + i: values 128 h + i + {0, 32, 64, 96}, from the low bits
    std::int8_t scales[16];
    half d;
  };
  static_assert(sizeof(block) == 210);

  // A code is the six bits, four from ql and two from qh, less 32.
  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    const int h = group >> 3;
    const std::uint8_t* const low = b.ql + 64 * h + 16 * (group & 3);
    const std::uint8_t* const high = b.qh + 32 * h + 16 * (group & 1);
    const int low_shift = group & 4;
    const int high_shift = group & 6;
    for (int i = 0; i < 16; i += 8) {
      const byte_word bits = ((load_bytes(low + i) >> low_shift) & each_byte(0xf)) |
                             ((load_bytes(high + i) >> high_shift) & each_byte(3)) << 4;
      store_bytes(subtract_from_bytes(bits, 32), out + i);
    }
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int group) {
    return {to_float(b.d) * static_cast<float>(b.scales[group]), 0.0f};
  }

  static void encode(const float* x, const float* importance, block& b) {
    constexpr scale_search how{{28.0f, 0.5f, 10, true}, {122.0f, 1.0f, 7, true}, {-128, 127}, 2};
    constexpr integer_codes all{min_code, max_code};
    const auto fit = fit_group_scales<16, 16>(x, importance, all, how, min_code);
    for (int h = 0; h < 2; ++h) pack_nibbles<64>(fit.codes + 128 * h, b.ql + 64 * h);
    pack_pairs(fit.codes, 4, b.qh);
    for (int g = 0; g < 16; ++g) b.scales[g] = static_cast<std::int8_t>(fit.level[g]);
    b.d = fit.d;
  }
};

static_assert(block_format<q6_k>);

}  // namespace nibble::inline NIBBLE_ABI::formats
