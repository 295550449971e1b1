// Searching a scale that is a power of two: minimises the sum of w (x - 2^k c)^2 by trying those
// that can be best.
#pragma once

#include <nibble/formats/fit/codes.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct power_trials {
  int first, last;      // k, for values whose greatest magnitude is in [1, 2)
  int least, greatest;  // k that the format can express
};

// Writes the codes less `least_code`; returns k, `powers.least` for a block of zeros.
template <int n, typename Codes>
inline int fit_power_scale(const float* x, const float* importance, const Codes& codes,
                           const power_trials& powers, int least_code, std::uint8_t* out) {
  block_values<n> v;
  int best = powers.least;
  float scale = 0.0f;
  if (load_values<n>(x, importance, -126, 126, v)) {
    float error = 0.0f;
    for (int trial = powers.first; trial <= powers.last; ++trial) {
      int k = v.exponent + trial;
      k = k < powers.least ? powers.least : k > powers.greatest ? powers.greatest : k;
      const float trial_scale = power_of_two(k - v.exponent);
      const auto sums = assess_scale<n>(v.x, v.w, trial_scale, codes);
      if (trial > powers.first && sums.error >= error) continue;
      best = k;
      scale = trial_scale;
      error = sums.error;
    }
  }
  write_codes<n>(v.x, scale, 0.0f, codes, least_code, out);
  return best;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
