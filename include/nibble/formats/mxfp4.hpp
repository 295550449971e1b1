// Microscaling FP4: E2M1 values, one E8M0 power-of-two scale for 32 values.
// OCP Microscaling Formats (MX) Specification, version 1.0.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/power_scale.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct mxfp4 {
  static constexpr std::string_view name = "mxfp4";
  static constexpr std::uint32_t gguf_id = 39;
  static constexpr int block_size = 32;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -12;
  static constexpr int max_code = 12;

  struct block {
    std::uint8_t e;       // exponent of the scale, biased by 127
    std::uint8_t qs[16];  // low halves: values 0..15, high halves: values 16..31
  };
  static_assert(sizeof(block) == 17);

  // The E2M1 values 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, doubled; scale() halves the
  // power.
  static constexpr std::array<std::int8_t, 16> table = {0, 1,  2,  3,  4,  6,  8,  12,
                                                        0, -1, -2, -3, -4, -6, -8, -12};

  NIBBLE_HD static void indices(const block& b, int, std::uint8_t* __restrict out) {
    split_nibbles(b.qs, out);
  }

  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    look_up_codes<mxfp4>(b, group, out);
  }

  // 2^(e - 128) for every e. For e = 0 and 1 that is a subnormal float. The specification reserves
  // e = 255 for NaN; decoders of GGUF files go on to 2^127 there, and so does this one.
  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    const std::uint32_t e = b.e;
    const std::uint32_t bits = e < 2 ? 0x00200000u << e : (e - 1) << 23;
    return {std::bit_cast<float>(bits), 0.0f};
  }

  static constexpr auto ascending = ascending_entries<15>(table);
  static constexpr auto positions = table_positions(table);

  // The specification derives the exponent from the greatest magnitude; this tries those around
  // that, too. Exponents above 252 are not made: with them a value could be infinite.
  static void encode(const float* x, const float* importance, block& b) {
    std::uint8_t c[32];
    constexpr power_trials powers{-6, -1, -128, 124};
    const int power = fit_power_scale<32>(x, importance, table_codes<mxfp4>{}, powers, -128, c);
    b.e = static_cast<std::uint8_t>(power + 128);
    look_up_positions<32>(positions, c);
    pack_nibbles<16>(c, b.qs);
  }
};

static_assert(table_format<mxfp4>);

}  // namespace nibble::inline NIBBLE_ABI::formats
