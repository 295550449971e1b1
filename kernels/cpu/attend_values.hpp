// Weights times the values of a block.
//
// A scale of a whole row is multiplied into the row's weights, one of 32 values into the values,
// exactly. Then values are added up column by column, token after token, so that it makes no
// difference for a column which others are worked on beside it.
#pragma once

#include <cstdint>

#include "cpu/attend_block.hpp"
#include "cpu/code_words.hpp"
#include "cpu/kv_rows.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// What is left of columns after whole vectors: single floats, whose products are rounded before
// they are added; or eight at once, so that codes' columns are all added up alike.
template <typename Floats>
struct rest_of {
  using floats = plain_floats<1>;
  using codes = Floats;
};
#if defined(__AVX512F__)
template <>
struct rest_of<avx512::floats> {
  using floats = plain_floats<1>;
  using codes = avx2::floats;
};
#endif

// Vectors of values: column j + c of token t, c a constant; j starts a group of 32 if the columns
// are not in order.
template <typename Floats, typename Storage>
struct plain_values {
  const Storage* data;
  std::int64_t length;
  using rest = typename rest_of<Floats>::floats;

  template <typename Vector>
  Vector get(int t, std::int64_t j, int c) const {
    return load<Vector>(data + t * length + j + c);
  }
};
// Codes as floats in memory, or codes in bytes without scales.
template <typename Floats, typename Storage>
struct unpacked_values : plain_values<Floats, Storage> {
  using rest = typename rest_of<Floats>::codes;
};
template <typename Floats>
struct scaled_bytes : unpacked_values<Floats, std::int8_t> {
  const float* scales;  // [tokens, groups]
  std::int64_t groups;

  template <typename Vector>
  Vector get(int t, std::int64_t j, int c) const {
    return load<Vector>(this->data + t * this->length + j + c) *
           Vector(scales[t * groups + (j + c) / 32]);
  }
};

// Codes of bytes' low or high bits.
template <typename Floats>
inline Floats nibble_floats(const std::uint8_t* bytes, bool high) {
#if defined(__AVX512F__)
  if constexpr (Floats::size == 16) {
    const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i codes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    return Floats(_mm512_permutexvar_ps(high ? _mm512_srli_epi32(codes, 4) : codes, values));
  }
#endif
#if defined(__AVX2__)
  if constexpr (Floats::size == 8) {
    const __m256i both =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
    const __m256i codes =
        high ? _mm256_srli_epi32(both, 4) : _mm256_and_si256(both, _mm256_set1_epi32(15));
    return Floats(_mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(8))));
  }
#elif defined(__SSE4_2__)
  if constexpr (Floats::size == 4) {
    const __m128i both = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(read<std::int32_t>(bytes)));
    const __m128i codes = high ? _mm_srli_epi32(both, 4) : _mm_and_si128(both, _mm_set1_epi32(15));
    return Floats(_mm_cvtepi32_ps(_mm_sub_epi32(codes, _mm_set1_epi32(8))));
  }
#elif defined(NIBBLE_NEON)
  if constexpr (Floats::size == 4) {
    const uint8x8_t four = vreinterpret_u8_u32(vdup_n_u32(read<std::uint32_t>(bytes)));
    const uint32x4_t both = vmovl_u16(vget_low_u16(vmovl_u8(four)));
    const uint32x4_t codes = high ? vshrq_n_u32(both, 4) : vandq_u32(both, vdupq_n_u32(15));
    return Floats(vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(codes), vdupq_n_s32(8))));
  }
#endif
  float lane[Floats::size];
  for (std::size_t i = 0; i < Floats::size; ++i) {
    lane[i] = static_cast<float>((high ? bytes[i] >> 4 : bytes[i] & 15) - 8);
  }
  return Floats::load_unaligned(lane);
}

template <bool Grouped>
struct nibble_values {
  const std::uint8_t* data;
  std::int64_t length;
  const float* scales;  // [tokens, groups]
  std::int64_t groups;

  template <typename Vector>
  Vector get(int t, std::int64_t j, int c) const {
    const Vector codes =
        nibble_floats<Vector>(data + (t * length + j) / 2 + c / 32 * 16 + c % 16, c % 32 >= 16);
    return scaled(codes, t, j / 32 + c / 32);
  }
  template <typename Vector>
  Vector scaled(const Vector& codes, int t, std::int64_t group) const {
    if constexpr (!Grouped) return codes;
    return codes * Vector(scales[t * groups + group]);
  }
};

// out[j] = out[j] * keep + sum of p[t] * values[t][j] for `Vectors` vectors of columns from j + c
// on.
template <typename Floats, int Queries, int Vectors, int C, typename Values>
inline void add_values(const cpu::attend_query* queries, const float* keep, const float* p,
                       const Values& values, seen_tokens seen, std::int64_t j) {
  constexpr auto width = static_cast<int>(Floats::size);
  Floats acc[Queries][Vectors];
  NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
    NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) {
      acc[q][v] = Floats::load_unaligned(queries[q].out + j + C + v * width) * Floats(keep[q]);
    }
  }
  for (int t = seen.begin; t < seen.end; ++t) {
    Floats x[Vectors];
    NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) {
      x[v] = values.template get<Floats>(t, j, C + v * width);
    }
    NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
      const Floats weight(p[q * attend_block + t]);
      NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) acc[q][v] = mul_add(weight, x[v], acc[q][v]);
    }
  }
  NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
    NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) {
      acc[q][v].store_unaligned(queries[q].out + j + C + v * width);
    }
  }
}

// Vectors of columns that are worked on at once.
template <int Queries>
inline constexpr int value_vectors = Queries == 1 ? 4 : 2;

template <typename Floats, int Queries, typename Values>
inline void value_block(const cpu::attend_query* queries, const float* keep, const float* p,
                        const Values& values, std::int64_t length, seen_tokens seen) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  constexpr int vectors = value_vectors<Queries>;
  std::int64_t j = 0;
  for (; j + vectors * width <= length; j += vectors * width) {
    add_values<Floats, Queries, vectors, 0>(queries, keep, p, values, seen, j);
  }
  for (; j + width <= length; j += width) {
    add_values<Floats, Queries, 1, 0>(queries, keep, p, values, seen, j);
  }
  using rest = typename Values::rest;
  for (; j < length; j += static_cast<std::int64_t>(rest::size)) {
    add_values<rest, Queries, 1, 0>(queries, keep, p, values, seen, j);
  }
}

// What is left of groups of 32: columns [j, j + n), from low or from high bits of the bytes at
// `at`; for one query.
template <typename Floats, typename Values>
inline void add_rest(const cpu::attend_query& query, float keep, const float* p,
                     const Values& values, seen_tokens seen, std::int64_t j, int n, bool high,
                     std::int64_t at) {
  constexpr auto width = static_cast<int>(Floats::size);
  for (int c = 0; c < n; c += width) {
    const int m = least(width, n - c);
    float* const out = query.out + j + c;
    Floats acc = load_part<Floats>(out, m) * Floats(keep);
    for (int t = seen.begin; t < seen.end; ++t) {
      const sixteen_bytes part = read_part(values.data + t * values.length / 2 + at + c, m);
      const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&part);
      const Floats codes = high ? nibble_floats<Floats>(bytes, true)  // a constant
                                : nibble_floats<Floats>(bytes, false);
      acc = mul_add(Floats(p[t]), values.scaled(codes, t, values.groups - 1), acc);
    }
    store_part(acc, out, m);
  }
}

template <typename Floats, int Queries, bool Grouped>
inline void value_block(const cpu::attend_query* queries, const float* keep, const float* p,
                        const nibble_values<Grouped>& values, std::int64_t length,
                        seen_tokens seen) {
  constexpr int width = static_cast<int>(Floats::size);
  constexpr int most = value_vectors<Queries> * width;  // columns
  constexpr int part = least(most, 32);
  std::int64_t j = 0;
  if constexpr (most > 32) {
    for (; j + most <= length; j += most) {
      add_values<Floats, Queries, most / width, 0>(queries, keep, p, values, seen, j);
    }
  }
  for (; j + 32 <= length; j += 32) {
    unrolled<32 / part>([&](auto i) {
      add_values<Floats, Queries, part / width, i * part>(queries, keep, p, values, seen, j);
    });
  }
  if (j == length) return;
  const int n = static_cast<int>(length - j) / 2;
  for (int q = 0; q < Queries; ++q) {
    for (const bool high : {false, true}) {
      add_rest<Floats>(queries[q], keep[q], p + q * attend_block, values, seen, j + (high ? n : 0),
                       n, high, j / 2);
    }
  }
}

template <typename Floats, typename Values>
inline void add_all(const seen_block& block, const float* keep, const Values& values) {
  block.by_fours([&]<int Queries>(std::integral_constant<int, Queries>, int q) {
    value_block<Floats, Queries>(block.args().queries + q, keep + q, block.weights(q), values,
                                 block.args().value_length, block.seen(q));
  });
}

template <typename Floats, typename Storage>
inline void add_floats(const seen_block& block, const float* keep, const void* rows) {
  const auto* const values = static_cast<const Storage*>(rows);
  const std::int64_t length = block.args().value_length;
  if (block.few()) {
    return add_all<Floats>(block, keep, plain_values<Floats, Storage>{values, length});
  }
  const float* const unpacked =
      rows_as_floats<Floats>(values, length, block.all(), block.scratch(block.space().rows));
  add_all<Floats>(block, keep, plain_values<Floats, float>{unpacked, length});
}

// Rows [seen] of codes as floats, times the scales of groups.
template <typename Floats, row_type Type>
inline void unpack_values(const void* rows, std::int64_t length, const float* scales,
                          seen_tokens seen, float* to) {
  const auto* const codes = static_cast<const unsigned char*>(rows);
  const std::int64_t groups = scales_of_row(Type, length);
  const std::int64_t span = grouped(Type) ? 32 : length;
  for (int t = seen.begin; t < seen.end; ++t) {
    const unsigned char* const row = codes + t * row_code_bytes(Type, length);
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t at = g * span;
      decode_codes<Floats, four_bits(Type)>(
          row + row_code_bytes(Type, at), least(span, length - at),
          grouped(Type) ? scales[t * groups + g] : 1.0f, to + t * length + at);
    }
  }
}

template <typename Floats, row_type Type>
inline void add_codes(const seen_block& block, const float* keep, const cpu::kv_rows& rows) {
  const std::int64_t length = block.args().value_length, groups = scales_of_row(Type, length);
  float* const scales = block.scratch(block.space().scales);
  scales_as_floats<Floats>(rows.scales, groups, block.all(), scales);
  if constexpr (!grouped(Type)) {
    block.each([&](int, float* p, seen_tokens seen) {
      map<Floats>(
          seen.end - seen.begin, p + seen.begin,
          [](const Floats& x, const Floats& s) { return x * s; },
          static_cast<const float*>(p + seen.begin),
          static_cast<const float*>(scales + seen.begin));
    });
  }
  if (!block.few()) {
    float* const to = block.scratch(block.space().rows);
    unpack_values<Floats, Type>(rows.codes, length, scales, block.all(), to);
    return add_all<Floats>(block, keep, unpacked_values<Floats, float>{{to, length}});
  }
  if constexpr (four_bits(Type)) {
    const auto* const codes = static_cast<const std::uint8_t*>(rows.codes);
    add_all<Floats>(block, keep, nibble_values<grouped(Type)>{codes, length, scales, groups});
  } else {
    const unpacked_values<Floats, std::int8_t> codes{
        {static_cast<const std::int8_t*>(rows.codes), length}};
    if constexpr (grouped(Type)) {
      add_all<Floats>(block, keep, scaled_bytes<Floats>{codes, scales, groups});
    } else {
      add_all<Floats>(block, keep, codes);
    }
  }
}

// Adds the values of a block, which are `rows`, with the queries' weights to what they have, times
// `keep`. The weights are used up.
template <typename Floats>
inline void add_values_of(const seen_block& block, const float* keep, const cpu::kv_rows& rows) {
  switch (static_cast<row_type>(block.args().value_type)) {
    case row_type::f32:
      return add_floats<Floats, float>(block, keep, rows.codes);
    case row_type::f16:
      return add_floats<Floats, half>(block, keep, rows.codes);
    case row_type::bf16:
      return add_floats<Floats, bfloat16>(block, keep, rows.codes);
    case row_type::q8_0:
      return add_codes<Floats, row_type::q8_0>(block, keep, rows);
    case row_type::q4_0:
      return add_codes<Floats, row_type::q4_0>(block, keep, rows);
    case row_type::q8:
      return add_codes<Floats, row_type::q8>(block, keep, rows);
    case row_type::q4:
      return add_codes<Floats, row_type::q4>(block, keep, rows);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
