// How rows of activations become the input of a product: normalised or gated if asked, and brought
// to eight bits, with the numbers that quantise_activations() in formats/dot.hpp defines.
//
// Eight lanes share a block of 32 columns: lane j has columns j, j + 8, j + 16 and j + 24. So each
// holds one of the eight sums that the definition adds up, and the eight scales to choose from are
// one for each lane.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <nibble/device/steps.hpp>

#include "gpu/dialect.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Threads of a block for whatever works on a row. The same everywhere: the sum of a row's squares
// depends on it, and results are not to depend on which kernel makes the input.
inline constexpr int row_threads = 512;

// a * b, rounded: not contracted with an addition that follows.
NIBBLE_DEVICE float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
#if defined(__clang__)
#pragma clang fp contract(off)
#endif
  return a * b;
#endif
}

// Sums each of n values over groups of `lanes` lanes. Lane i of a group gets one of the sums, that
// of value scattered_index<n>(i); n is a power of two, and so is lanes >= n. Partners are one, two,
// four.. lanes away, so the order of additions does not depend on n.
template <int lanes, int mask = 1, int n>
NIBBLE_DEVICE float scattered_sum(const float (&value)[n]) {
  if constexpr (n > 1) {
    const bool upper = (lane() & mask) != 0;
    float kept[n / 2];
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < n / 2; ++i) {
      const float given = upper ? value[i] : value[i + n / 2];
      kept[i] = (upper ? value[i + n / 2] : value[i]) + shuffle_xor(given, mask);
    }
    return scattered_sum<lanes, 2 * mask>(kept);
  } else {
    float sum = value[0];
    NIBBLE_UNROLL_DEVICE
    for (int m = mask; m < lanes; m *= 2) sum += shuffle_xor(sum, m);
    return sum;
  }
}
template <int n>
NIBBLE_HD constexpr int scattered_index(int i) {
  int index = 0;
  for (int left = n; left > 1; left /= 2, i /= 2) index = 2 * index + i % 2;
  return index;
}

// ---- values ----

// The sum of (unit * x)^2 over a row, in every thread. scratch: [row_threads / warp_size]
NIBBLE_DEVICE float sum_of_squares(const float* x, std::int64_t columns, float unit,
                                   float* scratch) {
  float sum = 0;
  for (std::int64_t c = thread_index(); c < columns; c += row_threads) {
    const float scaled = unit * x[c];
    sum = ::fmaf(scaled, scaled, sum);
  }
  return block_sum<row_threads>(sum, scratch);
}

// What a row is multiplied by before its gain: 1 if there is no norm. scratch: shared memory,
// [row_threads / warp_size].
NIBBLE_DEVICE float norm_scale(const gpu::input_rows& in, std::int64_t row, float* scratch) {
  if (in.kind != gpu::input_kind::norm) return 1;
  const float* const x = in.x + row * in.columns;
  const auto n = static_cast<float>(in.columns);
  const float sum = sum_of_squares(x, in.columns, 1, scratch);
  if (sum < 0x1p127f) return 1.0f / ::sqrtf(sum / n + in.epsilon);
  // squares overflow: in a smaller unit, in which the epsilon is nothing
  constexpr float unit = 0x1p-80f;
  return unit / ::sqrtf(sum_of_squares(x, in.columns, unit, scratch) / n);
}

// The second one if either is a NaN: a NaN is never lost where it comes second.
NIBBLE_DEVICE float lesser(float a, float b) {
  return a < b ? a : b;
}
NIBBLE_DEVICE float greater(float a, float b) {
  return a > b ? a : b;
}

// x * sigmoid(k x); where the exponential is infinite that is -0.
NIBBLE_DEVICE float swish(float x, float kx) {
  return x * fast_reciprocal(1.0f + fast_exp(-kx));
}

// To the 11 significant bits of binary16 (Veltkamp 1968).
NIBBLE_DEVICE float round_to_half(float x) {
  const float scaled = rounded_product(x, 8193.0f);
  return scaled - (scaled - x);
}

// activation(g) * u, as cpu/elementwise.hpp defines them.
NIBBLE_DEVICE float gated(std::int32_t kind, float g, float u) {
  switch (static_cast<gate_kind>(kind)) {
    case gate_kind::silu:
      return swish(g, g) * u;
    case gate_kind::gelu_tanh: {
      const float x = round_to_half(greater(-10.0f, lesser(10.0f, g)));
      const float inner = ::fmaf(0.044715f * x * x, x, x);
      const float y = round_to_half(swish(x, 1.5957691216057308f * inner));
      return (y + greater(0.0f, g - 10.0f)) * u;
    }
    case gate_kind::relu_squared: {
      const float positive = greater(0.0f, g);
      return positive * positive * u;
    }
    case gate_kind::swiglu_clamped:
      break;
  }
  const float gate = lesser(7.0f, g);
  const float up = greater(-7.0f, lesser(7.0f, u));
  return swish(gate, 1.702f * gate) * (up + 1.0f);
}

// scale: norm_scale()
NIBBLE_DEVICE float input_value(const gpu::input_rows& in, std::int64_t row, std::int64_t column,
                                float scale) {
  const std::int64_t at = row * in.columns + column;
  const float x = in.x[at];
  if (in.kind == gpu::input_kind::norm) return x * scale * in.gain[column];
  if (in.kind == gpu::input_kind::gate) return gated(in.gate_kind, x, in.up[at]);
  return x;
}

// ---- eight bits ----

// scale_step() of formats/dot.hpp: the power of two that scales of 512 columns are multiples of.
NIBBLE_DEVICE float power_of_stretch(float greatest) {
  const std::uint32_t rounded = std::bit_cast<std::uint32_t>(greatest / 121.75f) + 0x7ff;
  const float power = std::bit_cast<float>(rounded & 0x7f800000) * 0x1p-12f;
  return power > 0x1p-76f ? power : 0x1p-76f;
}

// Added and taken away, 1.5 * 2^23 rounds to the nearest integer, ties to even; added, it leaves
// the integer in the low bits.
inline constexpr float rounding_float = 12582912.0f;
inline constexpr std::int32_t rounding_bits = 0x4b400000;

// choose_scale() of formats/dot.hpp. x: the lane's four values of a block.
NIBBLE_DEVICE float scale_of_block(const float (&x)[4], float greatest, float power) {
  // division by a power of two: by its reciprocal, exactly
  const float inverse_power = std::bit_cast<float>(0x7f000000 - std::bit_cast<std::int32_t>(power));
  const int own = scattered_index<8>(lane() % 8);
  const float exact =
      rounded_product(greatest, inverse_power) / (127.0f - 0.75f * static_cast<float>(own));
  float steps = exact > 1 ? ::ceilf(exact) : 1;
  const float own_inverse = 1.0f / rounded_product(steps, power);

  float errors[8];  // of this lane's values, by candidate
  NIBBLE_UNROLL_DEVICE
  for (int candidate = 0; candidate < 8; ++candidate) {
    const float inverse = shuffle(own_inverse, (lane() & ~7) + scattered_index<8>(candidate));
    errors[candidate] = 0;
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i) {
      const float scaled = rounded_product(x[i], inverse);
      const float rest = scaled - ((scaled + rounding_float) - rounding_float);
      errors[candidate] += rounded_product(rest, rest);
    }
  }
  float error = rounded_product(scattered_sum<8>(errors), rounded_product(steps, steps));
  // the least of those with the least error
  NIBBLE_UNROLL_DEVICE
  for (int mask = 1; mask < 8; mask *= 2) {
    const float other = shuffle_xor(error, mask), other_steps = shuffle_xor(steps, mask);
    if (other < error || (other == error && other_steps < steps)) {
      error = other;
      steps = other_steps;
    }
  }
  return rounded_product(steps, power);
}

// The greatest magnitude of a block as bits, which compare as integers; a NaN is above infinity.
NIBBLE_DEVICE std::int32_t greatest_of_block(const float (&x)[4]) {
  std::int32_t greatest = 0;
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < 4; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(x[i]) & 0x7fffffff;
    greatest = bits > greatest ? bits : greatest;
  }
  NIBBLE_UNROLL_DEVICE
  for (int mask = 1; mask < 8; mask *= 2) {
    const std::int32_t other = shuffle_xor(greatest, mask);
    greatest = other > greatest ? other : greatest;
  }
  return greatest;
}

// Codes, scale and sums of a block, with q8_rows' meaning; codes: of its first column.
NIBBLE_DEVICE void quantise_block(const float (&x)[4], std::int32_t greatest, float power,
                                  bool stores, std::int8_t* codes, float* scale,
                                  std::int16_t* sums) {
  const bool finite = greatest < 0x7f800000, usable = finite && greatest != 0;
  const float chosen = scale_of_block(x, usable ? std::bit_cast<float>(greatest) : 0.0f, power);
  const float inverse = 1.0f / chosen;
  std::int32_t code[4];
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < 4; ++i) {
    const float shifted = rounded_product(x[i], inverse) + rounding_float;
    code[i] = usable ? std::bit_cast<std::int32_t>(shifted) - rounding_bits : 0;
  }
  // both sums in one word; a negative lower one takes 1 from the upper one
  std::int32_t both = (code[0] + code[1]) + (code[2] + code[3]) * 65536;
  NIBBLE_UNROLL_DEVICE
  for (int mask = 1; mask < 8; mask *= 2) both += shuffle_xor(both, mask);
  if (!stores) return;
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < 4; ++i) codes[lane() % 8 + 8 * i] = static_cast<std::int8_t>(code[i]);
  if (lane() % 8 == 0) {
    const auto first = static_cast<std::int16_t>(both & 0xffff);
    *scale = usable ? chosen : std::bit_cast<float>(finite ? 0 : 0x7fc00000);
    sums[0] = first;
    sums[1] = static_cast<std::int16_t>((both - first) >> 16);
  }
}

// Columns that a block of threads quantises at once, whole stretches of 512.
inline constexpr int quantised_columns = 4 * row_threads;
inline constexpr int stretch_blocks = 16;

// Shared memory that quantising a row takes for itself.
struct row_scratch {
  float greatest[row_threads / 8];  // of each block of 32
  float sums[row_threads / 32];     // of warps
};

// Brings columns [first, end) of a row to eight bits; by all threads of a block. first: a multiple
// of 512; end: a multiple of 32, and of 512 unless it is the row's. scale: norm_scale(). The
// pointers are those of the row's column 0.
NIBBLE_DEVICE void quantise_row(const gpu::input_rows& in, std::int64_t row, float scale,
                                std::int64_t first, std::int64_t end, std::int8_t* codes,
                                float* scales, std::int16_t* sums, row_scratch& scratch) {
  const int block = thread_index() / 8;
  for (std::int64_t at = first; at < end; at += quantised_columns) {
    const std::int64_t column = at + block * 32;
    const bool inside = column < end;
    float x[4] = {};
    if (inside) {
      NIBBLE_UNROLL_DEVICE
      for (int i = 0; i < 4; ++i) x[i] = input_value(in, row, column + lane() % 8 + 8 * i, scale);
    }
    const std::int32_t greatest = greatest_of_block(x);
    if (lane() % 8 == 0) {
      scratch.greatest[block] = std::bit_cast<float>(greatest < 0x7f800000 ? greatest : 0);
    }
    sync_block();
    float most = 0;
    for (int i = 0; i < stretch_blocks; ++i) {
      most = greater(most, scratch.greatest[block / stretch_blocks * stretch_blocks + i]);
    }
    sync_block();
    quantise_block(x, greatest, power_of_stretch(most), inside, codes + column,
                   scales + column / 32, sums + column / 16);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
