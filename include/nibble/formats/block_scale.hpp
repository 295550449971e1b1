// Choosing scales and rounding to codes, for encoders (host only).
#pragma once

#include <cmath>
#include <nibble/base/half.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// The step d >= 0 nearest to magnitude / codes for which magnitude / d still rounds to a code of
// `codes` at most. Plain rounding to 16 bits fails that only below 2^-14, where halfs get coarse.
// Magnitudes beyond what the greatest half reaches get that one, and their codes are clipped.
inline half covering_scale(float magnitude, int codes) {
  half d = to_half(magnitude / static_cast<float>(codes));
  if (d.bits >= 0x7c00u) return {0x7bff};
  if (to_float(d) * (static_cast<float>(codes) + 0.5f) < magnitude) ++d.bits;
  return d.bits >= 0x7c00u ? half{0x7bff} : d;
}

// The code in [least, greatest] whose value code * d is nearest to x; 0 where d is 0.
inline int nearest_code(float x, float d, int least, int greatest) {
  if (d == 0.0f) return 0;
  const float code = std::nearbyint(x / d);
  if (!(code > static_cast<float>(least))) return least;  // NaN goes here, too
  return code < static_cast<float>(greatest) ? static_cast<int>(code) : greatest;
}

}  // namespace nibble::inline NIBBLE_ABI::formats
