// 2 bits a value, a 4-bit scale and a 4-bit minimum for 16 values, both scaled per 256.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/offset_groups.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct q2_k {
  static constexpr std::string_view name = "q2_k";
  static constexpr std::uint32_t gguf_id = 10;
  static constexpr int block_size = 256;
  static constexpr int group_size = 16;
  static constexpr bool has_offset = true;
  static constexpr int min_code = 0;
  static constexpr int max_code = 3;

  struct block {
    std::uint8_t scales[16];  // low half: scale of the group, high half: its minimum
    std::uint8_t qs[64];  // byte 32 h + i: values 128 h + i + {0, 32, 64, 96}, from the low bits
    half d;               // scale of the scales
    half dmin;            // scale of the minima
  };
  static_assert(sizeof(block) == 84);

  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    const std::uint8_t* const packed = b.qs + 32 * (group >> 3) + 16 * (group & 1);
    const int shift = group & 6;
    for (int i = 0; i < 16; i += 8) {
      store_bytes((load_bytes(packed + i) >> shift) & each_byte(3), out + i);
    }
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int group) {
    const int packed = b.scales[group];
    return {to_float(b.d) * static_cast<float>(packed & 0xf),
            -(to_float(b.dmin) * static_cast<float>(packed >> 4))};
  }

  static void encode(const float* x, const float* importance, block& b) {
    constexpr offset_search how{
        {2.5f, 0.5f, 3}, {13.0f, 0.25f, 10, false}, {min_code, max_code}, {0, 15}, false};
    const auto fit = fit_group_offsets<16, 16>(x, importance, how);
    for (int g = 0; g < 16; ++g) {
      b.scales[g] = static_cast<std::uint8_t>(fit.scale[g] | fit.minimum[g] << 4);
    }
    pack_pairs(fit.codes, 0, b.qs);
    b.d = fit.d;
    b.dmin = fit.dmin;
  }
};

static_assert(block_format<q2_k>);

}  // namespace nibble::inline NIBBLE_ABI::formats
