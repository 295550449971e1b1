// 4-bit indices into a table of 16 values, one scale for 32 values: d * table[i].
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/pack.hpp>
#include <nibble/formats/fit/scale.hpp>
#include <nibble/formats/nibbles.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct iq4_nl {
  static constexpr std::string_view name = "iq4_nl";
  static constexpr std::uint32_t gguf_id = 20;
  static constexpr int block_size = 32;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -127;
  static constexpr int max_code = 113;

  struct block {
    half d;
    std::uint8_t qs[16];  // low halves: values 0..15, high halves: values 16..31
  };
  static_assert(sizeof(block) == 18);

  // Unevenly spaced: denser near zero, where most weights are.
  static constexpr std::array<std::int8_t, 16> table = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                        1,    13,   25,  38,  53,  69,  89,  113};

  NIBBLE_HD static void indices(const block& b, int, std::uint8_t* __restrict out) {
    split_nibbles(b.qs, out);
  }

  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    look_up_codes<iq4_nl>(b, group, out);
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    return {to_float(b.d), 0.0f};
  }

  static constexpr auto ascending = ascending_entries<16>(table);
  static constexpr auto positions = table_positions(table);

  // Trial scales: the greatest magnitude becomes 100 to 136.
  static void encode(const float* x, const float* importance, block& b) {
    std::uint8_t c[32];
    constexpr trials scales{100.0f, 4.0f, 10, true};
    b.d = fit_scale<32>(x, importance, table_codes<iq4_nl>{}, scales, -128, c);
    look_up_positions<32>(positions, c);
    pack_nibbles<16>(c, b.qs);
  }
};

static_assert(table_format<iq4_nl>);

}  // namespace nibble::inline NIBBLE_ABI::formats
