// Rows of keys and values: what is stored of them, and the transform that spreads outliers.
#pragma once

#include <bit>
#include <cstdint>
#include <nibble/formats/head_row.hpp>

#include "cpu/elementwise.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// In the order of kv_type (device/kv_type.hpp).
enum class row_type { f32, f16, bf16, q8_0, q4_0, q8, q4 };

constexpr bool has_codes(row_type type) {
  return type >= row_type::q8_0;
}
constexpr bool four_bits(row_type type) {
  return type == row_type::q4_0 || type == row_type::q4;
}
// Whether 32 values share a scale, not all of a row.
constexpr bool grouped(row_type type) {
  return type == row_type::q8_0 || type == row_type::q4_0;
}
constexpr std::int64_t scales_of_row(row_type type, std::int64_t length) {
  return has_codes(type) ? row_scales(length, grouped(type) ? 32 : whole_row) : 0;
}
constexpr std::int64_t row_code_bytes(row_type type, std::int64_t length) {
  if (!has_codes(type)) return length * (type == row_type::f32 ? 4 : 2);
  return four_bits(type) ? length / 2 : length;
}

// Rows from row `at` on.
inline cpu::kv_rows rows_from(row_type type, const cpu::kv_rows& rows, std::int64_t length,
                              std::int64_t at) {
  const auto* const codes = static_cast<const unsigned char*>(rows.codes);
  const auto* const scales = static_cast<const half*>(rows.scales);
  return {codes + at * row_code_bytes(type, length),
          has_codes(type) ? scales + at * scales_of_row(type, length) : nullptr};
}

inline void store_halves(const float* x, std::int64_t n, half* to) {
  std::int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(NIBBLE_NEON)
  for (; i + 4 <= n; i += 4) {
    vst1_u16(reinterpret_cast<std::uint16_t*>(to + i),
             vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
  }
#endif
  for (; i < n; ++i) to[i] = to_half(x[i]);
}

// The greatest magnitude of n values, and whether a positive one has it. As bits, which compare as
// integers: every NaN is above infinity then.
struct span_extremes {
  std::int32_t magnitude;
  bool positive;
};
inline span_extremes extremes_of(const float* __restrict x, std::int64_t n) {
  std::int32_t magnitude = 0, positive = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(x[i]);
    const std::int32_t without_sign = bits & 0x7fffffff;
    magnitude = without_sign > magnitude ? without_sign : magnitude;
    positive = bits > positive ? bits : positive;
  }
  return {magnitude, positive == magnitude};
}

constexpr float round_by = 12582912.0f;  // 1.5 * 2^23: added and taken away, it rounds

// The same scale as choose_head_scale() in formats/head_row.hpp; all eight candidates at once, one
// in each lane of a vector, so that no sum runs across one.
template <int Bits>
inline float choose_head_scale(const float* __restrict x, std::int64_t n, float greatest,
                               bool turned) {
  constexpr code_levels code = levels_of_code(Bits);
  candidates levels{};
  NIBBLE_UNROLL for (int i = 0; i < 8; ++i) {
    levels[i] = code.first - code.step * static_cast<float>(i);
  }
  float exact[8], rounded[8];
  half stored[8];
  write(exact, greatest / levels);
  store_halves(exact, 8, stored);
  for (int i = 0; i < 8; ++i) rounded[i] = to_float(stored[i]);
  candidates scales = read<candidates>(rounded);
  scales = scales < 0x1p-24f ? 0x1p-24f - candidates{} : scales;
  scales = scales > 65504.0f ? 65504.0f - candidates{} : scales;
  const candidates inverse = (turned ? -1.0f : 1.0f) / scales;
  const candidates least_code = code.least - candidates{}, most_code = code.most - candidates{};
  candidates sum[8] = {};  // of every eighth value, as the definition adds them
  for (std::int64_t i = 0; i < n; i += 8) {
    NIBBLE_UNROLL for (int j = 0; j < 8; ++j) {
      const candidates scaled = x[i + j] * inverse;
      candidates nearest = scaled < most_code ? scaled : most_code;
      nearest = nearest > least_code ? nearest : least_code;
      const candidates rest = scaled - ((nearest + round_by) - round_by);
      sum[j] += rest * rest;
    }
  }
  const candidates low = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  const candidates high = (sum[4] + sum[5]) + (sum[6] + sum[7]);
  const candidates error = (low + high) * (scales * scales);
  // the first, which is the least, of those with the least error
  constexpr auto lesser = [](candidates a, candidates b) { return a < b ? a : b; };
  const candidates least_error = over_lanes(error, lesser);
  const float best =
      over_lanes(error == least_error ? scales : 131072.0f - candidates{}, lesser)[0];
  return turned ? -best : best;
}

// The codes of n values, by the reciprocal of their scale.
template <int Bits>
inline void make_codes(const float* __restrict x, std::int64_t n, float inverse,
                       std::int8_t* __restrict codes) {
  constexpr code_levels level = levels_of_code(Bits);
  for (std::int64_t i = 0; i < n; ++i) {
    float scaled = x[i] * inverse;
    scaled = scaled < level.most ? scaled : level.most;
    scaled = scaled > level.least ? scaled : level.least;
    const std::int32_t code = std::bit_cast<std::int32_t>(scaled + round_by) - 0x4b400000;
    codes[i] = static_cast<std::int8_t>(code);
  }
}

// Groups of 32 codes, the last one shorter, to four bits each.
inline void pack_nibbles(const std::int8_t* __restrict codes, std::int64_t n,
                         std::uint8_t* __restrict to) {
  for (std::int64_t i = 0; i < n; i += 32) {
    const std::int64_t half_group = least<std::int64_t>(32, n - i) / 2;
    for (std::int64_t j = 0; j < half_group; ++j) {
      const int low = codes[i + j] + 8, high = codes[i + half_group + j] + 8;
      to[i / 2 + j] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
}

// The same as quantise_head_row() in formats/head_row.hpp.
template <row_type Type>
inline void store_codes(const float* x, std::int64_t length, void* codes, half* scales) {
  constexpr int bits = four_bits(Type) ? 4 : 8;
  constexpr std::int64_t chunk = 512;  // of codes before they are packed
  const std::int64_t span = grouped(Type) ? 32 : length;
  for (std::int64_t first = 0; first < length; first += span) {
    const std::int64_t n = least(span, length - first);
    const span_extremes most = extremes_of(x + first, n);
    const bool finite = finite_magnitude(most.magnitude), usable = finite && most.magnitude != 0;
    const float scale =
        usable ? choose_head_scale<bits>(x + first, n, std::bit_cast<float>(most.magnitude),
                                         bits == 4 && most.positive)
               : 0;
    *scales++ = finite ? to_half(scale) : half{0x7e00};
    const float inverse = usable ? 1.0f / scale : 0;
    for (std::int64_t at = first; at < first + n; at += chunk) {
      const std::int64_t part = least(chunk, first + n - at);
      std::int8_t unpacked[chunk];
      std::int8_t* const to = bits == 8 ? static_cast<std::int8_t*>(codes) + at : unpacked;
      if (usable) {
        make_codes<bits>(x + at, part, inverse, to);
      } else {
        std::memset(to, 0, static_cast<std::size_t>(part));
      }
      if (bits == 4) pack_nibbles(to, part, static_cast<std::uint8_t*>(codes) + at / 2);
    }
  }
}

template <row_type Type>
void store_row(const float* x, std::int64_t n, void* codes, void* scales) {
  if constexpr (Type == row_type::f32) {
    std::memcpy(codes, x, static_cast<std::size_t>(n) * sizeof(float));
  } else if constexpr (Type == row_type::f16) {
    store_halves(x, n, static_cast<half*>(codes));
  } else if constexpr (Type == row_type::bf16) {
    auto* const to = static_cast<bfloat16*>(codes);
    for (std::int64_t i = 0; i < n; ++i) to[i] = to_bfloat16(x[i]);
  } else {
    store_codes<Type>(x, n, codes, static_cast<half*>(scales));
  }
}

// Four-bit codes of a group of 2 * n values, times a scale.
inline void decode_nibbles(const std::uint8_t* __restrict bytes, std::int64_t n, float scale,
                           float* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = scale * static_cast<float>((bytes[i] & 15) - 8);
  for (std::int64_t i = 0; i < n; ++i) out[n + i] = scale * static_cast<float>((bytes[i] >> 4) - 8);
}

// Codes of n values that share a scale, times it; they start a group of 32. Exact.
template <typename Floats, bool FourBits>
inline void decode_codes(const void* codes, std::int64_t n, float scale, float* out) {
  if constexpr (FourBits) {
    const auto* const bytes = static_cast<const std::uint8_t*>(codes);
    std::int64_t i = 0;
    for (; i + 32 <= n; i += 32) decode_nibbles(bytes + i / 2, 16, scale, out + i);
    if (i < n) decode_nibbles(bytes + i / 2, (n - i) / 2, scale, out + i);
  } else {
    const Floats factor(scale);
    map<Floats>(
        n, out, [&](const Floats& x) { return factor * x; },
        static_cast<const std::int8_t*>(codes));
  }
}

template <typename Floats, typename Storage>
inline void decode_floats(const void* from, std::int64_t n, float* out) {
  map<Floats>(
      n, out, [](const Floats& x) { return x; }, static_cast<const Storage*>(from));
}

template <typename Arch, row_type Type>
void load_row(const void* codes, const void* scales, std::int64_t n, float* out) {
  using floats = typename Arch::floats;
  if constexpr (Type == row_type::f32) {
    std::memcpy(out, codes, static_cast<std::size_t>(n) * sizeof(float));
  } else if constexpr (Type == row_type::f16) {
    decode_floats<floats, half>(codes, n, out);
  } else if constexpr (Type == row_type::bf16) {
    decode_floats<floats, bfloat16>(codes, n, out);
  } else {
    const std::int64_t span = grouped(Type) ? 32 : n;
    const auto* scale = static_cast<const half*>(scales);
    const auto* const bytes = static_cast<const unsigned char*>(codes);
    for (std::int64_t at = 0; at < n; at += span) {
      decode_codes<floats, four_bits(Type)>(bytes + row_code_bytes(Type, at), least(span, n - at),
                                            to_float(*scale++), out + at);
    }
  }
}

// One step of the transform inside each eight values: lanes that lie `Distance` apart.
template <int Distance>
inline candidates butterfly(candidates x) {
  candidates sign{};
  NIBBLE_UNROLL for (int i = 0; i < 8; ++i) sign[i] = i & Distance ? -1.0f : 1.0f;
  if constexpr (Distance == 1) {
    return __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6) + x * sign;
  } else if constexpr (Distance == 2) {
    return __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5) + x * sign;
  } else {
    return __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3) + x * sign;
  }
}

// See kernel_table::hadamard. Sums and differences in one order, then one product: the same bits on
// every instruction set.
inline void hadamard(float* x, std::int64_t n) {
  const std::int64_t block = n & -n;
  const float factor = 1.0f / ::sqrtf(static_cast<float>(block));
  for (float* const end = x + n; x < end; x += block) {
    std::int64_t distance = 1;
    if (block >= 8) {
      for (std::int64_t i = 0; i < block; i += 8) {
        write(x + i, butterfly<4>(butterfly<2>(butterfly<1>(read<candidates>(x + i)))));
      }
      distance = 8;
    }
    for (; distance < block; distance *= 2) {
      for (std::int64_t i = 0; i < block; i += 2 * distance) {
        float* __restrict first = x + i;
        float* __restrict second = x + i + distance;
        for (std::int64_t j = 0; j < distance; ++j) {
          const float a = first[j], b = second[j];
          first[j] = a + b;
          second[j] = a - b;
        }
      }
    }
    if (block == 1) continue;
    for (std::int64_t i = 0; i < block; ++i) x[i] *= factor;
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
