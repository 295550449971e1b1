// 3 bits a value, a signed 6-bit scale for 16 values, scaled per 256.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/scale_groups.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q3_k {
  static constexpr std::string_view name = "q3_k";
  static constexpr std::uint32_t gguf_id = 11;
  static constexpr int block_size = 256;
  static constexpr int group_size = 16;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -4;
  static constexpr int max_code = 3;

  struct block {
    std::uint8_t hmask[32];  // bit j of byte i: value 32 j + i has its third bit set
    std::uint8_t qs[64];     // byte 32 h + i: values 128 h + i + {0, 32, 64, 96}, from the low bits
    std::uint8_t scales[12];  // bytes 0..7: low four bits, bytes 8..11: upper two bits
    half d;
  };
  static_assert(sizeof(block) == 110);

  // A code is the three bits less 4.
  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    const std::uint8_t* const low = b.qs + 32 * (group >> 3) + 16 * (group & 1);
    const std::uint8_t* const high = b.hmask + 16 * (group & 1);
    const int low_shift = group & 6;
    const int high_shift = group >> 1;
    for (int i = 0; i < 16; i += 8) {
      const byte_word bits = ((load_bytes(low + i) >> low_shift) & each_byte(3)) |
                             ((load_bytes(high + i) >> high_shift) & each_byte(1)) << 2;
      store_bytes(subtract_from_bytes(bits, 4), out + i);
    }
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int group) {
    const int low = (b.scales[group & 7] >> (4 * (group >> 3))) & 0xf;
    const int high = (b.scales[8 + (group & 3)] >> (2 * (group >> 2))) & 3;
    return {to_float(b.d) * static_cast<float>((low | high << 4) - 32), 0.0f};
  }

  static void encode(const float* x, const float* importance, block& b) {
    // The quick one costs half a percent of the error without an importance, and more with one.
    constexpr scale_search quick{{3.1f, 0.55f, 3, true}, {30.0f, 0.5f, 5, true}, {-32, 31}, 0};
    constexpr scale_search thorough{{3.0f, 0.25f, 8, true}, {29.0f, 0.5f, 8, true}, {-32, 31}, 2};
    const scale_search& how = importance == nullptr ? quick : thorough;
    constexpr integer_codes all{min_code, max_code};
    const auto fit = fit_group_scales<16, 16>(x, importance, all, how, min_code);
    pack_bits(fit.codes, 2, b.hmask);
    pack_pairs(fit.codes, 0, b.qs);
    for (auto& byte : b.scales) byte = 0;
    for (int g = 0; g < 16; ++g) {
      const int level = fit.level[g] + 32;
      std::uint8_t &low = b.scales[g & 7], &high = b.scales[8 + (g & 3)];
      low = static_cast<std::uint8_t>(low | (level & 0xf) << (4 * (g >> 3)));
      high = static_cast<std::uint8_t>(high | (level >> 4) << (2 * (g >> 2)));
    }
    b.d = fit.d;
  }
};

static_assert(block_format<q3_k>);

}  // namespace nibble::inline NIBBLE_ABI::formats
