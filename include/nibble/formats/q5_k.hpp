// 5 bits a value, a 6-bit scale and a 6-bit minimum for 32 values, both scaled per 256.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/offset_groups.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/k_scales.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q5_k {
  static constexpr std::string_view name = "q5_k";
  static constexpr std::uint32_t gguf_id = 13;
  static constexpr int block_size = 256;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = true;
  static constexpr int min_code = 0;
  static constexpr int max_code = 31;

  struct block {
    half d;                   // scale of the scales
    half dmin;                // scale of the minima
    std::uint8_t scales[12];  // see k_scales.hpp
    std::uint8_t qh[32];      // bit j of byte i: the fifth bit of value 32 j + i
    std::uint8_t qs[128];     // byte 32 h + i: value 64 h + i (low half) and 64 h + 32 + i
  };
  static_assert(sizeof(block) == 176);

  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    const std::uint8_t* const packed = b.qs + 32 * (group >> 1);
    const int shift = 4 * (group & 1);
    for (int i = 0; i < 32; ++i) {
      const int fifth = ((b.qh[i] >> group) & 1) << 4;
      out[i] = static_cast<std::int8_t>(((packed[i] >> shift) & 0xf) | fifth);
    }
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int group) {
    return k_scale(b.scales, b.d, b.dmin, group);
  }

  static void encode(const float* x, const float* importance, block& b) {
    constexpr offset_search how{
        {28.5f, 0.5f, 8}, {60.0f, 0.5f, 8, false}, {min_code, max_code}, {0, 63}, true};
    const auto fit = fit_group_offsets<8, 32>(x, importance, how);
    b.d = fit.d;
    b.dmin = fit.dmin;
    pack_k_scales(fit.scale, fit.minimum, b.scales);
    for (int h = 0; h < 4; ++h) pack_nibbles<32>(fit.codes + 64 * h, b.qs + 32 * h);
    pack_bits(fit.codes, 4, b.qh);
  }
};

static_assert(block_format<q5_k>);

}  // namespace nibble::inline NIBBLE_ABI::formats
