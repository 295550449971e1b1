// 4-bit indices into IQ4_NL's table, a signed 6-bit scale for 32 values, scaled per 256.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/scale_groups.hpp>
#include <nibble/formats/iq4_nl.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct iq4_xs {
  static constexpr std::string_view name = "iq4_xs";
  static constexpr std::uint32_t gguf_id = 23;
  static constexpr int block_size = 256;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -127;
  static constexpr int max_code = 113;

  struct block {
    half d;
    std::uint16_t scales_h;    // upper two bits of the scales, group 0 lowest
    std::uint8_t scales_l[4];  // lower four bits, two groups a byte
    std::uint8_t qs[128];      // 16 bytes a group; low halves: values 0..15, high halves: 16..31
  };
  static_assert(sizeof(block) == 136);

  static constexpr std::array<std::int8_t, 16> table = iq4_nl::table;

  NIBBLE_HD static void indices(const block& b, int group, std::uint8_t* __restrict out) {
    split_nibbles(b.qs + 16 * group, out);
  }

  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    look_up_codes<iq4_xs>(b, group, out);
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int group) {
    const int low = (b.scales_l[group >> 1] >> (4 * (group & 1))) & 0xf;
    const int high = (b.scales_h >> (2 * group)) & 3;
    return {to_float(b.d) * static_cast<float>((low | high << 4) - 32), 0.0f};
  }

  static void encode(const float* x, const float* importance, block& b) {
    constexpr scale_search how{{100.0f, 4.0f, 10, true}, {29.0f, 0.5f, 8, true}, {-32, 31}, 2};
    auto fit = fit_group_scales<8, 32>(x, importance, table_codes<iq4_nl>{}, how, -128);
    look_up_positions<256>(iq4_nl::positions, fit.codes);
    int low[8], high = 0;
    for (int g = 0; g < 8; ++g) {
      pack_nibbles<16>(fit.codes + 32 * g, b.qs + 16 * g);
      low[g] = (fit.level[g] + 32) & 0xf;
      high |= (fit.level[g] + 32) >> 4 << (2 * g);
    }
    for (int i = 0; i < 4; ++i) {
      b.scales_l[i] = static_cast<std::uint8_t>(low[2 * i] | low[2 * i + 1] << 4);
    }
    b.scales_h = static_cast<std::uint16_t>(high);
    b.d = fit.d;
  }
};

static_assert(table_format<iq4_xs>);

}  // namespace nibble::inline NIBBLE_ABI::formats
