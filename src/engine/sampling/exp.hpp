// exp for whole vocabularies: without branches and tables, so that compilers make vectors of it.
#pragma once

#include <bit>
#include <cstdint>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI::sampling {

// The least x whose exp is a normal number.
constexpr float least_exponent = -87;

// exp(x) for least_exponent <= x <= 0, within 2e-7 of its value. (A comparison in here would keep
// g++ 12 from making vectors.) x = n log 2 + r with |r| <= log(2) / 2; 2^n is made in the
// exponent's bits, exp(r) is its Taylor polynomial of degree 6, whose remainder is below 1.3e-7
// there.
inline float exp_of_negative(float x) {
  const auto n = static_cast<std::int32_t>(x * 1.44269504f - 0.5f);
  const auto whole = static_cast<float>(n);
  // log(2) in two parts, the first with so few bits that its product with n is exact
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float power = std::bit_cast<float>((n + 127) << 23);
  return p * power;
}

}  // namespace nibble::inline NIBBLE_ABI::sampling
