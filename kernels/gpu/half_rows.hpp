// Rows of queries, keys and values as halves, whatever their magnitudes are: halves times a factor
// of the row.
//
// The factor of queries and of bf16 is a power of two that brings the greatest value to [1, 2): of
// queries 11 bits are left. That of codes is the scale of the row, and codes are exact. Where 32
// values have a scale it is the greatest scale as a power of two, and products of scales and codes
// are rounded to 11 bits. f16 stays as it is. A row with an infinity or a NaN becomes zeros with a
// NaN as its factor.
#pragma once

#include "gpu/kv_rows.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr float least_factor = 0x1p-100f;

// The power of two that brings a number of this magnitude to [1, 2) if it is divided by it; of zero
// one that is next to nothing, and a NaN of what is not finite. magnitude: the bits of a float.
NIBBLE_DEVICE float power_factor(std::int32_t magnitude) {
  if (magnitude >= 0x7f800000) return std::bit_cast<float>(0x7fc00000);
  if (magnitude == 0) return least_factor;
  const std::int32_t exponent = magnitude & 0x7f800000;
  return std::bit_cast<float>(exponent < 0x00800000 ? 0x00800000 : exponent);
}
NIBBLE_DEVICE std::int32_t magnitude_of(float x) {
  return std::bit_cast<std::int32_t>(x) & 0x7fffffff;
}

// The greatest of `lanes` lanes next to each other, a power of two.
NIBBLE_DEVICE std::int32_t greatest_of_lanes(std::int32_t x, int lanes) {
  for (int mask = 1; mask < lanes; mask *= 2) {
    const std::int32_t other = shuffle_xor(x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// The factor of a stored row; `lanes` lanes together, of which this is `member`. there: false of a
// row that there is not, whose factor means nothing.
template <kv_type Type>
NIBBLE_DEVICE float row_factor(const head_rows& row, int length, bool there, int member,
                               int lanes) {
  using type = type_constant<Type>;
  if constexpr (type::coded && !type::grouped) {
    const float scale = there ? unit_scale<Type>(row.scales, 0) : 0.0f;
    return magnitude_of(scale) < 0x7f800000 ? scale : std::bit_cast<float>(0x7fc00000);
  } else {
    std::int32_t magnitude = 0;
    const int per_part = type::grouped ? group_of_codes : unit_values;
    for (int part = member; there && part * per_part < length; part += lanes) {
      if constexpr (type::grouped) {
        const float scale = unit_scale<Type>(row.scales, part * (group_of_codes / unit_values));
        magnitude = magnitude_of(scale) > magnitude ? magnitude_of(scale) : magnitude;
      } else {
        float x[unit_values];
        load_any_codes<Type>(row.codes, length, part, x);
        NIBBLE_UNROLL_DEVICE
        for (int i = 0; i < unit_values; ++i) {
          magnitude = magnitude_of(x[i]) > magnitude ? magnitude_of(x[i]) : magnitude;
        }
      }
    }
    magnitude = greatest_of_lanes(magnitude, lanes);
    if (Type == kv_type::f16 && magnitude < 0x7f800000) return 1.0f;
    return power_factor(magnitude);
  }
}

// A unit of a row divided by the row's factor, as halves; zeros of a row with a fault.
template <kv_type Type>
NIBBLE_DEVICE void load_halves(const head_rows& row, int length, int unit, float factor,
                               std::uint16_t (&out)[unit_values]) {
  using type = type_constant<Type>;
  float x[unit_values];
  load_any_codes<Type>(row.codes, length, unit, x);
  float times = 1.0f;
  if constexpr (type::grouped) times = unit_scale<Type>(row.scales, unit) / factor;
  if constexpr (Type == kv_type::bf16) times = 1.0f / factor;
  const bool usable = factor == factor;
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < unit_values; ++i)
    out[i] = usable ? to_half(x[i] * times).bits : std::uint16_t{0};
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
