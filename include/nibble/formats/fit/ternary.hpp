// Searching the scale of codes -1, 0, 1: minimises the sum of w (x - d c)^2. A code is not 0 where
// |x| > d / 2; the trial scales are multiples of the mean magnitude, because the greatest one says
// little about 256 values. Weights that are ternary already, as those of models trained so, are
// found exactly: every threshold between 0 and their magnitude gives their codes.
#pragma once

#include <nibble/formats/fit/scale.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// Writes the codes plus 1; returns the scale.
template <int n>
inline half fit_ternary(const float* x, const float* importance, std::uint8_t* out) {
  constexpr integer_codes codes{-1.0f, 1.0f};
  constexpr int count = 12;
  constexpr float ratio = 1.15f;  // from the mean magnitude to 4.7 times that
  block_values<n> v;
  rounded d{};
  if (load_values<n>(x, importance, v)) {
    lanes total{};
    for (int i = 0; i < n; i += lane_count) {
      const lanes value = load_lanes(v.x + i);
      total += value < 0.0f ? -value : value;
    }
    float scale = sum_of(total) / static_cast<float>(n);
    code_sums best = search_scale<n>(v.x, v.w, codes, {1.0f, 0.0f, 1, false});
    for (int i = 0; i < count; ++i, scale *= ratio) {
      const code_sums sums = sum_codes<n>(v.x, v.w, 1.0f / scale, codes);
      if (sums.xc * sums.xc * best.cc > best.xc * best.xc * sums.cc) best = sums;
    }
    d = settle_scale<n>(v, best.best_scale(), codes);
  }
  write_codes<n>(v.x, d.value, 0.0f, codes, -1, out);
  return d.bits;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
