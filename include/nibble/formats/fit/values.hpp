// What an encoder works on: a block's values and weights, scaled by powers of two so that their
// squares neither overflow nor vanish. Steps are rounded to the file's 16 bits in true units.
#pragma once

#include <bit>
#include <cstdint>
#include <nibble/base/half.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

inline constexpr std::int32_t magnitude_bits = 0x7fffffff;
inline constexpr std::int32_t infinity_bits = 0x7f800000;

constexpr float power_of_two(int exponent) {  // -126 .. 127
  return std::bit_cast<float>((exponent + 127) << 23);
}

// The bits of the greatest magnitude; those of an infinity or a NaN are beyond all finite ones.
template <int n>
inline std::int32_t greatest_bits(const float* x) {
  std::int32_t greatest = 0;
  for (int i = 0; i < n; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(x[i]) & magnitude_bits;
    greatest = bits > greatest ? bits : greatest;
  }
  return greatest;
}

template <int n>
inline float greatest_magnitude(const float* x) {
  return std::bit_cast<float>(greatest_bits<n>(x));
}

template <int n>
struct block_values {
  static constexpr int count = n;
  alignas(16) float x[n];  // the values times 2^-exponent; the greatest magnitude is in [1, 2)
  alignas(16) float w[n];  // how much each squared error counts; positive, at most 2
  int exponent = 0;
};

// The greatest weight is in [1, 2). No weight is 0: what seems unimportant is not quite, and every
// sum of weights is positive. Weights that are none (an infinity, a NaN, only zeros) become 1.
template <int n>
inline void load_weights(const float* importance, float* w) {
  const std::int32_t greatest = importance == nullptr ? 0 : greatest_bits<n>(importance);
  if (greatest < 0x00800000 || greatest >= infinity_bits) {
    for (int i = 0; i < n; ++i) w[i] = 1.0f;
    return;
  }
  const int exponent = (greatest >> 23) - 127;
  const float factor = power_of_two(exponent < 126 ? -exponent : -126);
  for (int i = 0; i < n; ++i) {
    const float weight = importance[i] * factor;
    w[i] = (weight < 0.0f ? 0.0f : weight) + 0x1p-20f;
  }
}

// False, and values 0, if all are smaller than 2^least_exponent. Magnitudes are cut at
// 2^(greatest_exponent + 1), far beyond what the format expresses; a NaN becomes one of them.
template <int n>
inline bool load_values(const float* x, const float* importance, int least_exponent,
                        int greatest_exponent, block_values<n>& out) {
  const std::int32_t bits = greatest_bits<n>(x);
  out.exponent = (bits >> 23) - 127;
  if (out.exponent < least_exponent) {
    for (int i = 0; i < n; ++i) out.x[i] = 0.0f;
    return false;
  }
  load_weights<n>(importance, out.w);
  if (out.exponent <= greatest_exponent) {
    const float factor = power_of_two(-out.exponent);
    for (int i = 0; i < n; ++i) out.x[i] = x[i] * factor;
    return true;
  }
  out.exponent = greatest_exponent;
  const float factor = power_of_two(-greatest_exponent), limit = 2.0f;
  for (int i = 0; i < n; ++i) {
    const float scaled = x[i] * factor;
    const float above = scaled > -limit ? scaled : -limit;  // where a NaN ends, too
    out.x[i] = above < limit ? above : limit;
  }
  return true;
}

// For steps of 16 bits, which are 2^-24 or more: what is smaller than half of that becomes 0. The
// greatest value that any format expresses is 65504 * 127 * 32.
template <int n>
inline bool load_values(const float* x, const float* importance, block_values<n>& out) {
  return load_values<n>(x, importance, -25, 40, out);
}

// A number as the file holds it, and what that means in the units of block_values.
struct rounded {
  half bits;
  float value;
};

// To the nearest half, but not to an infinity.
inline rounded round_to_half(float x, int exponent) {
  half h = to_half(x * power_of_two(exponent));
  if ((h.bits & 0x7fffu) >= 0x7c00u)
    h.bits = static_cast<std::uint16_t>((h.bits & 0x8000u) | 0x7bffu);
  return {h, to_float(h) * power_of_two(-exponent)};
}

// The same, but not to 0 either: the codes can still be 0.
inline rounded round_step(float x, int exponent) {
  rounded r = round_to_half(x, exponent);
  if ((r.bits.bits & 0x7fffu) != 0) return r;
  r.bits.bits |= 1u;
  return {r.bits, to_float(r.bits) * power_of_two(-exponent)};
}

}  // namespace nibble::inline NIBBLE_ABI::formats
