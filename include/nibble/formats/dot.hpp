// Dot products of weight rows with 8-bit activations, written for clarity: the reference that the
// kernels of all backends are tested against.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nibble/formats/concepts.hpp>
#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {

inline constexpr int activation_block_size = 32;

// 32 activations: value i is scale * codes[i], codes in [-127, 127].
struct activation_block {
  float scale;
  std::int8_t codes[activation_block_size];
};

// Blocks needed for n activations; the last may be partly used.
constexpr std::uint64_t activation_blocks(std::uint64_t n) {
  return n / activation_block_size + (n % activation_block_size != 0);
}

// Activations whose scales are multiples of one power of two.
inline constexpr int activation_stretch = 512;

// That power of two, by the greatest magnitude of a stretch: scales are less than 2^13 times it, so
// that kernels may multiply by them as integers. What rounding scales up costs is at most that step
// for each code, which in the block with the greatest values is 1 / 4096 of the distance of codes.
// Not less than 2^-76: 1 / scale is finite.
inline float scale_step(float greatest) {
  const float most = greatest / 121.75f;  // the greatest scale of a block, see choose_scale()
  // rounded up to 13 bits; then 2^-12 of its power of two
  const std::uint32_t rounded = std::bit_cast<std::uint32_t>(most) + 0x7ff;
  const float power = std::bit_cast<float>(rounded & 0x7f800000) * 0x1p-12f;
  return power > 0x1p-76f ? power : 0x1p-76f;
}

// The scale of a block, a multiple of `power` (scale_step): max |x| / 127 or a little more; of
// eight candidates the one that loses least to rounding. Of values that fall anywhere between two
// codes that takes about a tenth off the rms error, because the best of eight error sums of 32
// terms lies 1.4 standard deviations below their mean. x: [32]; greatest: the greatest magnitude
// among them.
inline float choose_scale(const float* x, float greatest, float power) {
  float best = 0, least = std::numeric_limits<float>::infinity();
  for (int candidate = 0; candidate < 8; ++candidate) {
    const float levels = 127.0f - 0.75f * static_cast<float>(candidate);
    const float exact = greatest / power / levels;
    const float steps = exact > 1 ? std::ceil(exact) : 1;
    const float inverse = 1.0f / (steps * power);
    float lane[8] = {};  // the order in which vectors of eight would sum
    for (int i = 0; i < activation_block_size; ++i) {
      const float scaled = x[i] * inverse;
      const float rest = scaled - std::nearbyint(scaled);
      lane[i % 8] += rest * rest;
    }
    const float low = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    const float high = (lane[4] + lane[5]) + (lane[6] + lane[7]);
    const float error = (low + high) * (steps * steps);
    if (error < least) {
      best = steps * power;
      least = error;
    }
  }
  return best;
}

// The greatest magnitude of n values; infinity if one of them is an infinity or a NaN.
inline float greatest_magnitude(const float* x, std::uint64_t n) {
  float greatest = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const float magnitude = std::fabs(x[i]);
    if (!(magnitude <= std::numeric_limits<float>::max())) {
      return std::numeric_limits<float>::infinity();
    }
    greatest = std::fmax(greatest, magnitude);
  }
  return greatest;
}

// Quantises n activations into activation_blocks(n) blocks, to the nearest code (ties to even).
// Missing values of the last block are 0. A block of zeros has scale 0. A block with an infinity or
// a NaN gets a NaN scale, so that the fault shows in every result.
inline void quantise_activations(const float* x, std::uint64_t n, activation_block* out) {
  const auto block_at = [&](std::uint64_t first) {
    return std::min<std::uint64_t>(n - first, activation_block_size);
  };
  float power = 0;
  for (std::uint64_t first = 0; first < n; first += activation_block_size, ++out) {
    if (first % activation_stretch == 0) {
      float most = 0;
      for (std::uint64_t at = first; at < n && at < first + activation_stretch;
           at += activation_block_size) {
        const float greatest = greatest_magnitude(x + at, block_at(at));
        if (std::isfinite(greatest)) most = std::fmax(most, greatest);
      }
      power = scale_step(most);
    }
    float values[activation_block_size] = {};
    std::copy_n(x + first, block_at(first), values);
    const float greatest = greatest_magnitude(values, activation_block_size);
    *out = {};
    if (!std::isfinite(greatest)) {
      out->scale = std::numeric_limits<float>::quiet_NaN();
    } else if (greatest > 0) {
      out->scale = choose_scale(values, greatest, power);
      const float inverse = 1.0f / out->scale;
      for (int i = 0; i < activation_block_size; ++i) {
        // |x * inverse| < 127.5 in spite of two roundings
        out->codes[i] = static_cast<std::int8_t>(std::nearbyint(values[i] * inverse));
      }
    }
  }
}

// The dot product of n weights with n activations. For one group:
//   activation scale * (scale * sum(weight code * activation code) + offset * sum(activation code))
// with exact integer sums; everything outside of them is computed and summed in double, in order.
// n must be a multiple of block_size; activations: [activation_blocks(n)].
template <weight_format F>
inline double dot_row(const typename F::block* row, const activation_block* activations,
                      std::uint64_t n) {
  double sum = 0.0;
  if constexpr (element_format<F>) {
    for (std::uint64_t i = 0; i < n; ++i) {
      const activation_block& a = activations[i / activation_block_size];
      sum += static_cast<double>(F::value(row[i])) * a.scale * a.codes[i % activation_block_size];
    }
  } else {
    static_assert(activation_block_size % F::group_size == 0);
    static_assert(F::block_size % activation_block_size == 0);
    constexpr int groups = F::block_size / F::group_size;
    for (std::uint64_t g = 0; g < n / F::group_size; ++g) {
      const typename F::block& b = row[g / groups];
      const int group = static_cast<int>(g % groups);
      const std::uint64_t at = g * F::group_size;
      const activation_block& a = activations[at / activation_block_size];
      const std::int8_t* const codes = a.codes + at % activation_block_size;

      std::int8_t weights[F::group_size];
      F::codes(b, group, weights);
      int products = 0, total = 0;
      for (int i = 0; i < F::group_size; ++i) {
        products += weights[i] * codes[i];
        total += codes[i];
      }
      const affine map = F::scale(b, group);
      double value = static_cast<double>(map.scale) * products;
      if constexpr (F::has_offset) value += static_cast<double>(map.offset) * total;
      sum += static_cast<double>(a.scale) * value;
    }
  }
  return sum;
}

// The same for a format known at run time only; `row` is aligned for the format's block (2 bytes
// are enough for all but f32). Throws error: unsupported, or invalid_argument for a wrong n.
inline double dot_row(format_id id, const void* row, const activation_block* activations,
                      std::uint64_t n) {
  return with_format(id, [&]<typename F>(F) {
    static_cast<void>(row_bytes(id, n));  // checks n
    return dot_row<F>(static_cast<const typename F::block*>(row), activations, n);
  });
}

}  // namespace nibble::inline NIBBLE_ABI
