// Kernels over single rows: quantising, norms, rotation, gates.
#pragma once

#include <bit>
#include <cstdint>

#include "cpu/kernel_table.hpp"
#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using candidates = vector_type<float, 32>::type;

// f over all lanes, in each of them.
template <typename Function>
inline candidates over_lanes(candidates x, Function f) {
  x = f(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
  x = f(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
  return f(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6));
}

// The same scale as choose_scale() in formats/dot.hpp: all eight candidates at once, one in each
// lane of a vector, so that no sum runs across one.
inline float choose_scale(const float* __restrict x, float greatest, float step) {
  constexpr float nearest = 12582912.0f;  // 1.5 * 2^23: added and taken away, it rounds
  candidates levels{};
  NIBBLE_UNROLL for (int i = 0; i < 8; ++i) levels[i] = 127.0f - 0.75f * static_cast<float>(i);
  const candidates exact = (greatest / step) / levels;  // less than 2^13
  const candidates rounded = (exact + nearest) - nearest;
  candidates steps = rounded < exact ? rounded + 1.0f : rounded;
  steps = exact > 1.0f ? steps : 1.0f - candidates{};
  const candidates inverse = 1.0f / (steps * step);
  candidates sum[8] = {};  // of every eighth value, as the definition adds them
  for (int i = 0; i < 32; i += 8) {
    NIBBLE_UNROLL for (int j = 0; j < 8; ++j) {
      const candidates scaled = x[i + j] * inverse;
      const candidates rest = scaled - ((scaled + nearest) - nearest);
      sum[j] += rest * rest;
    }
  }
  const candidates low = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  const candidates high = (sum[4] + sum[5]) + (sum[6] + sum[7]);
  const candidates error = (low + high) * (steps * steps);
  // the least of those with the least error; without branches, which could not be foreseen
  constexpr auto lesser = [](candidates a, candidates b) { return a < b ? a : b; };
  const candidates least = over_lanes(error, lesser);
  return over_lanes(error == least ? steps : 8192.0f - candidates{}, lesser)[0] * step;
}

// The same as scale_step() there.
inline float scale_step(float greatest) {
  const std::uint32_t rounded = std::bit_cast<std::uint32_t>(greatest / 121.75f) + 0x7ff;
  const float step = std::bit_cast<float>(rounded & 0x7f800000) * 0x1p-12f;
  return step > 0x1p-76f ? step : 0x1p-76f;
}

// The greatest magnitude of 32 values, as bits: they compare as integers, and every NaN is above
// infinity then.
inline std::int32_t greatest_magnitude(const float* x) {
  std::int32_t greatest = 0;
  for (int i = 0; i < 32; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(x[i]) & 0x7fffffff;
    greatest = bits > greatest ? bits : greatest;
  }
  return greatest;
}
inline bool finite_magnitude(std::int32_t bits) {
  return bits < 0x7f800000;
}

// q = x / scale to the nearest, ties to even; sum: [2], of 16 each.
inline void quantise_q8_block(const float* __restrict x, std::int32_t greatest, float step,
                              std::int8_t* __restrict q, float& scale,
                              std::int16_t* __restrict sum) {
  const bool finite = finite_magnitude(greatest), usable = finite && greatest != 0;
  scale = usable ? choose_scale(x, std::bit_cast<float>(greatest), step)
                 : std::bit_cast<float>(finite ? 0 : 0x7fc00000);
  const float inverse = usable ? 1.0f / scale : 0.0f;
  for (int half_block = 0; half_block < 2; ++half_block) {
    std::int32_t total = 0;
    for (int i = 16 * half_block; i < 16 * half_block + 16; ++i) {
      // 1.5 * 2^23 puts the nearest integer into the low bits; |x * inverse| < 127.5
      const float shifted = x[i] * inverse + 12582912.0f;
      const std::int32_t code = usable ? std::bit_cast<std::int32_t>(shifted) - 0x4b400000 : 0;
      q[i] = static_cast<std::int8_t>(code);
      total += code;
    }
    sum[half_block] = static_cast<std::int16_t>(total);
  }
}

// The same numbers as quantise_activations() in formats/dot.hpp.
template <typename Arch>
void quantise_q8(const float* x, std::int64_t n, std::int8_t* q, float* scale, std::int16_t* sum) {
  constexpr std::int64_t stretch_blocks = cpu::q8_stretch / 32;
  for (std::int64_t first = 0; first < n / 32; first += stretch_blocks) {
    const std::int64_t end = least(n / 32, first + stretch_blocks);
    std::int32_t greatest[stretch_blocks], most = 0;
    for (std::int64_t i = first; i < end; ++i) {
      const std::int32_t bits = greatest_magnitude(x + 32 * i);
      greatest[i - first] = bits;
      if (finite_magnitude(bits) && bits > most) most = bits;
    }
    const float step = scale_step(std::bit_cast<float>(most));
    for (std::int64_t i = first; i < end; ++i) {
      quantise_q8_block(x + 32 * i, greatest[i - first], step, q + 32 * i, scale[i], sum + 2 * i);
    }
  }
}

// The sum of squares is taken in double: exact products, and no overflow.
template <typename Arch>
void rms_norm(const float* x, const float* gain, float epsilon, std::int64_t n, float* out) {
  using floats = typename Arch::floats;
  double lane[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) {
      lane[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
    }
  }
  for (int j = 0; i < n; ++i, ++j) {
    lane[j] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  double sum = 0;
  for (double l : lane) sum += l;
  const double mean = sum / static_cast<double>(n);
  const floats scale(static_cast<float>(1.0 / ::sqrt(mean + static_cast<double>(epsilon))));
  map<floats>(
      n, out, [&](const floats& value, const floats& g) { return value * scale * g; }, x, gain);
}

// Pairs (2 i, 2 i + 1).
template <typename Arch>
void rope_norm(float* __restrict x, const float* __restrict cosine, const float* __restrict sine,
               std::int64_t n_pairs) {
  for (std::int64_t i = 0; i < n_pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cosine[i] - b * sine[i];
    x[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

// Pairs (i, i + n_pairs).
template <typename Arch>
void rope_neox(float* x, const float* __restrict cosine, const float* __restrict sine,
               std::int64_t n_pairs) {
  float* __restrict first = x;
  float* __restrict second = x + n_pairs;
  for (std::int64_t i = 0; i < n_pairs; ++i) {
    const float a = first[i], b = second[i];
    first[i] = a * cosine[i] - b * sine[i];
    second[i] = a * sine[i] + b * cosine[i];
  }
}

// x * sigmoid(k x), safe for every x: exp overflows to infinity, the quotient then is -0.
template <typename Floats>
inline Floats swish(const Floats& x, const Floats& kx) {
  return x / (Floats(1.0f) + exp(Floats(0.0f) - kx));
}

// Activations of a gate: f(gate, up). min and max give their second argument if either is a NaN,
// so a NaN is never lost.
struct silu {
  template <typename Floats>
  Floats operator()(const Floats& g, const Floats& u) const {
    return swish(g, g) * u;
  }
};

// To the 11 significant bits of binary16, nearest (Veltkamp 1968); below 2^-14, where binary16 has
// fewer, to more of them.
template <typename Floats>
inline Floats round_to_half(const Floats& x) {
  const Floats scaled = x * Floats(8193.0f);
  return scaled - (scaled - x);
}

// (1 + tanh(y)) / 2 is sigmoid(2 y), which keeps its relative accuracy where tanh is near -1.
// Argument and result are rounded to binary16 between -10 and 10, as the engines that made the
// reference outputs do (they read a table of binary16): exact values differ from those by 1.6e-4.
struct gelu_tanh {
  template <typename Floats>
  Floats operator()(const Floats& g, const Floats& u) const {
    const Floats x = round_to_half(max(Floats(-10.0f), min(Floats(10.0f), g)));
    // 2 sqrt(2 / pi) (x + 0.044715 x^3)
    const Floats inner = mul_add(Floats(0.044715f) * x * x, x, x);
    const Floats y = round_to_half(swish(x, Floats(1.5957691216057308f) * inner));
    return (y + max(Floats(0.0f), g - Floats(10.0f))) * u;
  }
};

struct relu_squared {
  template <typename Floats>
  Floats operator()(const Floats& g, const Floats& u) const {
    const Floats positive = max(Floats(0.0f), g);
    return positive * positive * u;
  }
};

struct swiglu_clamped {
  template <typename Floats>
  Floats operator()(const Floats& g, const Floats& u) const {
    const Floats gate = min(Floats(7.0f), g);
    const Floats up = max(Floats(-7.0f), min(Floats(7.0f), u));
    return swish(gate, Floats(1.702f) * gate) * (up + Floats(1.0f));
  }
};

template <typename Arch, typename Activation>
void gate(const float* gate, const float* up, std::int64_t n, float* out) {
  map<typename Arch::floats>(n, out, Activation{}, gate, up);
}

template <typename Arch>
void add_scaled(const float* x, float scale, std::int64_t n, float* out) {
  using floats = typename Arch::floats;
  const floats s(scale);
  map<floats>(
      n, out, [&](const floats& value, const floats& sum) { return mul_add(s, value, sum); }, x,
      static_cast<const float*>(out));
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
