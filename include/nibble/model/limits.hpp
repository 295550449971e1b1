// Bounds of the numbers that define a model. No real model reaches them; they keep products of
// these numbers far from overflow.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI::model_limits {

inline constexpr std::int32_t layers = 4096, width = 1 << 20, vocabulary = 1 << 24;
inline constexpr std::int32_t heads = 1 << 16, head_length = 1 << 14, context = 1 << 28;
inline constexpr std::int32_t experts = 1 << 14;

// The same for numbers that are not whole: far from where a frequency, a scale or a logarithm of
// them would be no number any more.
struct range {
  double low, high;
};
inline constexpr range epsilons{0, 1}, rope_bases{2, 1e12}, rope_factors{1e-3, 1e6};
inline constexpr range rope_betas{1e-3, 1e6}, multipliers{0, 1e3}, magnitudes{1e-3, 1e3};
inline constexpr range softcaps{0, 1e6};  // 0: none

}  // namespace nibble::inline NIBBLE_ABI::model_limits
