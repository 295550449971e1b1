// Rows of keys and values as integer codes with scales, written for clarity: the reference that the
// kernels of all backends are tested against.
//
// value = scale * code; a scale (f16) is for 32 values, the last one for what is left, or for the
// whole row. A row has a multiple of 8 values.
//
// Eight bits: codes lie one after another, -127 to 127. Four bits: codes -8 to 7 are stored plus 8.
// Of each 32 values (of the last m, m a multiple of 8) the first half has the low bits of the
// bytes, the second half the high ones, as in q4_0.
#pragma once

#include <cmath>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/base/half.hpp>

namespace nibble::inline NIBBLE_ABI {

// Instead of a number of values that share a scale: all of a row do.
inline constexpr int whole_row = -1;

// Scales of a row.
NIBBLE_HD constexpr std::int64_t row_scales(std::int64_t length, int values_of_scale) {
  return values_of_scale == whole_row ? 1 : (length + values_of_scale - 1) / values_of_scale;
}

// Where a row keeps four-bit code i.
struct four_bit_place {
  std::int64_t byte;
  int shift;
};
NIBBLE_HD constexpr four_bit_place place_of_code(std::int64_t length, std::int64_t i) {
  const std::int64_t first = i / 32 * 32;
  const std::int64_t half = (length - first < 32 ? length - first : 32) / 2;
  const std::int64_t at = i - first;
  return {first / 2 + at % half, at < half ? 0 : 4};
}

// Code i of a row of `length` codes of 8 or 4 bits.
NIBBLE_HD inline int head_code(const void* codes, std::int64_t length, int bits, std::int64_t i) {
  if (bits == 8) return static_cast<const std::int8_t*>(codes)[i];
  const four_bit_place at = place_of_code(length, i);
  return (static_cast<const std::uint8_t*>(codes)[at.byte] >> at.shift & 15) - 8;
}

inline void set_head_code(void* codes, std::int64_t length, int bits, std::int64_t i, int code) {
  if (bits == 8) {
    static_cast<std::int8_t*>(codes)[i] = static_cast<std::int8_t>(code);
    return;
  }
  const four_bit_place at = place_of_code(length, i);
  std::uint8_t& byte = static_cast<std::uint8_t*>(codes)[at.byte];
  byte = static_cast<std::uint8_t>((byte & (0xf0 >> at.shift)) | ((code + 8) << at.shift));
}

// Scales are chosen among eight: the greatest magnitude divided by each of
// levels_of_code(bits).first - step * i.
//
// Four bits have one level more on the negative side, which the greatest value gets. It may lie up
// to 1.6 levels outside: what that costs the greatest few, the others gain. Root mean square error
// of normal values, one scale for 32, 64, 128 of them: 0.0816, 0.0900, 0.0967 of their deviation;
// with the one scale greatest / 8: 0.0858, 0.0946, 0.1031; with 160 candidates from 6 to 14:
// 0.0808, 0.0894, 0.0965. 7 + 0.35 i: 0.0815, 0.0899, 0.0969; steps above 0.4 or below 0.25 lose
// more. One of these is 8, for rows of one value. Eight bits: 0.0049, 0.0056, 0.0062; with one
// scale 0.0053, 0.0059, 0.0065.
struct code_levels {
  float first, step;
  float least, most;  // codes
};
NIBBLE_HD constexpr code_levels levels_of_code(int bits) {
  return bits == 8 ? code_levels{127.0f, 0.75f, -127.0f, 127.0f}
                   : code_levels{9.5625f, 0.3125f, -8.0f, 7.0f};
}

// Scales are stored as f16, here normal or subnormal but neither zero nor infinite.
NIBBLE_HD inline float stored_scale(float magnitude) {
  const float stored = to_float(to_half(magnitude));
  return stored < 0x1p-24f ? 0x1p-24f : stored > 65504.0f ? 65504.0f : stored;
}

// The code of a value divided by its scale: the nearest (ties to even), as a float.
NIBBLE_HD inline float nearest_code(float scaled, const code_levels& levels) {
  return std::nearbyint(std::fmax(levels.least, std::fmin(levels.most, scaled)));
}

// The scale of n values (a multiple of 8), `greatest` the greatest magnitude among them, that loses
// least to rounding. turned: the greatest value is positive and is to get a negative code.
inline float choose_head_scale(const float* x, std::int64_t n, float greatest, bool turned,
                               int bits) {
  const code_levels levels = levels_of_code(bits);
  float best = 0, least = HUGE_VALF;
  for (int candidate = 0; candidate < 8; ++candidate) {
    const float scale =
        stored_scale(greatest / (levels.first - levels.step * static_cast<float>(candidate)));
    const float inverse = (turned ? -1.0f : 1.0f) / scale;
    float lane[8] = {};  // the order in which vectors of eight would sum
    for (std::int64_t i = 0; i < n; ++i) {
      const float scaled = x[i] * inverse;
      const float rest = scaled - nearest_code(scaled, levels);
      lane[i % 8] += rest * rest;
    }
    const float low = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    const float high = (lane[4] + lane[5]) + (lane[6] + lane[7]);
    const float error = (low + high) * (scale * scale);
    if (candidate == 0 || error < least) {
      best = scale;
      least = error;
    }
  }
  return turned ? -best : best;
}

// Stores a row of `length` values; bits: 8 or 4. Values of zero have scale 0. Where one is infinite
// or not a number the scale is a NaN and the codes are 0, so that the fault shows.
inline void quantise_head_row(const float* x, std::int64_t length, int bits, int values_of_scale,
                              void* codes, half* scales) {
  const std::int64_t span = values_of_scale == whole_row ? length : values_of_scale;
  for (std::int64_t first = 0; first < length; first += span) {
    const std::int64_t n = length - first < span ? length - first : span;
    float greatest = 0, positive = 0;
    bool finite = true;
    for (std::int64_t i = first; i < first + n; ++i) {
      finite = finite && std::isfinite(x[i]);
      greatest = std::fmax(greatest, std::fabs(x[i]));
      positive = std::fmax(positive, x[i]);
    }
    const bool usable = finite && greatest > 0;
    const float scale =
        usable ? choose_head_scale(x + first, n, greatest, bits == 4 && positive == greatest, bits)
               : 0;
    const float inverse = usable ? 1.0f / scale : 0;
    *scales++ = finite ? to_half(scale) : half{0x7e00};
    for (std::int64_t i = first; i < first + n; ++i) {
      const float code = usable ? nearest_code(x[i] * inverse, levels_of_code(bits)) : 0;
      set_head_code(codes, length, bits, i, static_cast<int>(code));
    }
  }
}

// And back, exactly: the products fit a float.
inline void decode_head_row(const void* codes, const half* scales, std::int64_t length, int bits,
                            int values_of_scale, float* out) {
  for (std::int64_t i = 0; i < length; ++i) {
    const half scale = scales[values_of_scale == whole_row ? 0 : i / values_of_scale];
    out[i] = to_float(scale) * static_cast<float>(head_code(codes, length, bits, i));
  }
}

}  // namespace nibble::inline NIBBLE_ABI
