// 16-bit floats as storage: IEEE binary16 and bfloat16. Arithmetic happens in float.
#pragma once

#include <bit>
#include <cstdint>
#include <nibble/base/config.hpp>

#if defined(__F16C__) && !defined(__CUDACC__) && !defined(__HIPCC__)
#include <immintrin.h>
#define NIBBLE_HAS_F16C
#endif

namespace nibble::inline NIBBLE_ABI {

// IEEE 754 binary16.
struct half {
  std::uint16_t bits;
};

// The upper half of a binary32.
struct bfloat16 {
  std::uint16_t bits;
};

NIBBLE_HD inline float to_float(bfloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

// Exact for every input, subnormals, infinities and NaN included. Branch-free: the magnitude is
// scaled by a power of two in float, which also normalises subnormals.
NIBBLE_HD inline float to_float(half x) {
#if defined(NIBBLE_HAS_F16C)
  return _cvtsh_ss(x.bits);
#elif defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#elif defined(__HIP_DEVICE_COMPILE__)
  return static_cast<float>(std::bit_cast<_Float16>(x.bits));
#else
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
  // exponent field of binary16 moved to binary32's place is 112 too small
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const std::uint32_t special = (x.bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;  // inf, NaN
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
#endif
}

// Rounds to nearest even; a NaN stays a (quiet) NaN.
NIBBLE_HD inline bfloat16 to_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  }
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// Rounds to nearest even; values beyond 65504 become infinities; a NaN stays a (quiet) NaN.
NIBBLE_HD inline half to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // below the smallest normal half: adding 0.5 lets the FPU round to a multiple of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {
        static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

}  // namespace nibble::inline NIBBLE_ABI
