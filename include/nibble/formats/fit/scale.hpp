// Searching one scale for values without an offset: minimises the sum of w (x - d c)^2.
//
// For given codes c the best scale d is sum(w x c) / sum(w c c), and it takes
// sum(w x c)^2 / sum(w c c) off the error. The codes to choose from are those that a number of
// trial scales make. What is found is rounded to the file's 16 bits, gets the codes that the
// rounded scale makes, and moves on while that lowers the error.
#pragma once

#include <nibble/formats/fit/codes.hpp>
#include <nibble/formats/fit/grid.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// Trial scales: the value of greatest magnitude becomes first, first + step, ... before rounding to
// a code. With both signs where the codes reach further on one side than on the other.
struct trials {
  float first, step;
  int count;
  bool both_signs;
};

// The sums for the best of the trials; of all scales that make their codes, best_scale() is the
// best. If all values are 0, so is that.
template <int n, typename Codes>
inline code_sums search_scale(const float* x, const float* w, const Codes& codes, const trials& t) {
  const float greatest = greatest_magnitude<n>(x);
  code_sums best{0.0f, 1.0f, 0.0f};
  if (greatest == 0.0f) return best;
  const float unit = 1.0f / greatest;
  for (int i = 0; i < t.count; ++i) {
    const float inverse = (t.first + t.step * static_cast<float>(i)) * unit;
    for (int sign = 0; sign < (t.both_signs ? 2 : 1); ++sign) {
      const code_sums sums = sum_codes<n>(x, w, sign == 0 ? inverse : -inverse, codes);
      if (sums.xc * sums.xc * best.cc > best.xc * best.xc * sums.cc) best = sums;
    }
  }
  return best;
}

// A scale in 16 bits, near the one that is given; or that with which the values were in the format
// before.
template <int n, typename Codes>
inline rounded settle_scale(const block_values<n>& v, float scale, const Codes& codes) {
  constexpr int most_moves = 8;  // two or three are usual
  rounded best = round_step(scale, v.exponent);
  code_sums sums = assess_scale<n>(v.x, v.w, best.value, codes);
  for (int i = 0; i < most_moves && sums.cc > 0.0f; ++i) {
    const rounded next = round_step(sums.best_scale(), v.exponent);
    if (next.bits.bits == best.bits.bits) break;
    const code_sums moved = assess_scale<n>(v.x, v.w, next.value, codes);
    if (moved.error >= sums.error) break;
    best = next;
    sums = moved;
  }
  // Codes without a 0, under the least step that there is, can be worse than a scale of 0.
  if ((best.bits.bits & 0x7c00u) == 0 &&
      sums.error > assess_scale<n>(v.x, v.w, 0.0f, codes).error) {
    return {};
  }
  grid before;
  if (!find_grid<n>(v.x, false, codes.most(), before)) return best;
  for (int parts = 1; parts <= codes.most(); ++parts) {
    rounded d;
    if (!is_step(before.spacing / static_cast<float>(parts), v.exponent, d)) continue;
    for (const float sign : {1.0f, -1.0f}) {
      const rounded next = round_step(sign * d.value, v.exponent);
      const code_sums exact = assess_scale<n>(v.x, v.w, next.value, codes);
      if (exact.error >= sums.error) continue;
      best = next;
      sums = exact;
    }
  }
  return best;
}

// Both, for a format with one scale a block. Writes the codes less `least`, all 0 for a block of
// zeros; returns the scale.
template <int n, typename Codes>
inline half fit_scale(const float* x, const float* importance, const Codes& codes, const trials& t,
                      int least, std::uint8_t* out) {
  block_values<n> v;
  rounded d{};
  if (load_values<n>(x, importance, v)) {
    d = settle_scale<n>(v, search_scale<n>(v.x, v.w, codes, t).best_scale(), codes);
  }
  write_codes<n>(v.x, d.value, 0.0f, codes, least, out);
  return d.bits;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
