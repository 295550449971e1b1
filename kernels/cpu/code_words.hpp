// Vectors of 16-bit integers ("words") and exact sums of their products in 32 bits, for codes of
// keys.
//
// Codes are taken in groups of 32. Four-bit codes of a group lie in 16 bytes, the lower half of the
// words coming from low bits, the upper half from high ones. What is left at the end of a row is
// filled up: bytes with zeros, so that the words beyond mean nothing and have to meet zeros.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Sixteen bytes, of which `n` (a multiple of 4, less than 16) are read and the rest are 0.
struct sixteen_bytes {
  std::uint64_t low, high;
};
inline sixteen_bytes read_part(const void* from, int n) {
  const auto* const bytes = static_cast<const unsigned char*>(from);
  if (n < 8) return {n == 4 ? read<std::uint32_t>(bytes) : 0, 0};
  return {read<std::uint64_t>(bytes), n == 12 ? read<std::uint32_t>(bytes + 8) : 0};
}

#if defined(__AVX512BW__)
using word_vector = __m512i;
using word_sums = __m512i;
inline constexpr int word_lanes = 32;

inline word_vector load_words(const std::int16_t* x) {
  return _mm512_loadu_si512(x);
}
inline void store_words(std::int16_t* to, word_vector x) {
  _mm512_storeu_si512(to, x);
}
inline word_vector widen(const std::int8_t* x) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
}
inline word_vector widen_part(const std::int8_t* x, int n) {
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8((1u << n) - 1, x));
}
inline void unpack_nibbles(__m128i bytes, word_vector* out) {
  const __m256i low = _mm256_cvtepu8_epi16(bytes);
  const __m512i both =
      _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm256_srli_epi16(low, 4), 1);
  out[0] = _mm512_sub_epi16(_mm512_and_si512(both, _mm512_set1_epi16(15)), _mm512_set1_epi16(8));
}
inline word_sums no_sums() {
  return _mm512_setzero_si512();
}
inline word_sums add_products(word_sums sum, word_vector a, word_vector b) {
#if defined(__AVX512VNNI__)
  return _mm512_dpwssd_epi32(sum, a, b);
#else
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
template <typename Floats>
inline Floats floats_of_sums(word_sums x) {
  return Floats(_mm512_cvtepi32_ps(x));
}
#elif defined(__AVX2__)
using word_vector = __m256i;
using word_sums = __m256i;
inline constexpr int word_lanes = 16;

inline word_vector load_words(const std::int16_t* x) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}
inline void store_words(std::int16_t* to, word_vector x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
}
inline word_vector widen(const std::int8_t* x) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}
inline word_vector widen_part(const std::int8_t* x, int) {  // eight of them
  return _mm256_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x)));
}
inline void unpack_nibbles(__m128i bytes, word_vector* out) {
  const __m256i both = _mm256_cvtepu8_epi16(bytes), eight = _mm256_set1_epi16(8);
  out[0] = _mm256_sub_epi16(_mm256_and_si256(both, _mm256_set1_epi16(15)), eight);
  out[1] = _mm256_sub_epi16(_mm256_srli_epi16(both, 4), eight);
}
inline word_sums no_sums() {
  return _mm256_setzero_si256();
}
inline word_sums add_products(word_sums sum, word_vector a, word_vector b) {
#if defined(__AVXVNNI__)
  return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}
template <typename Floats>
inline Floats floats_of_sums(word_sums x) {
  return Floats(_mm256_cvtepi32_ps(x));
}
#elif defined(__SSE4_2__)
using word_vector = __m128i;
using word_sums = __m128i;
inline constexpr int word_lanes = 8;

inline word_vector load_words(const std::int16_t* x) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
}
inline void store_words(std::int16_t* to, word_vector x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), x);
}
inline word_vector widen(const std::int8_t* x) {
  return _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x)));
}
inline void unpack_nibbles(__m128i bytes, word_vector* out) {
  const __m128i fifteen = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
  const __m128i low = _mm_sub_epi8(_mm_and_si128(bytes, fifteen), eight);
  const __m128i high = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), fifteen), eight);
  out[0] = _mm_cvtepi8_epi16(low);
  out[1] = _mm_cvtepi8_epi16(_mm_srli_si128(low, 8));
  out[2] = _mm_cvtepi8_epi16(high);
  out[3] = _mm_cvtepi8_epi16(_mm_srli_si128(high, 8));
}
inline word_sums no_sums() {
  return _mm_setzero_si128();
}
inline word_sums add_products(word_sums sum, word_vector a, word_vector b) {
  return _mm_add_epi32(sum, _mm_madd_epi16(a, b));
}
template <typename Floats>
inline Floats floats_of_sums(word_sums x) {
  return Floats(_mm_cvtepi32_ps(x));
}
#elif defined(NIBBLE_NEON)
using word_vector = int16x8_t;
using word_sums = int32x4_t;
inline constexpr int word_lanes = 8;

inline word_vector load_words(const std::int16_t* x) {
  return vld1q_s16(x);
}
inline void store_words(std::int16_t* to, word_vector x) {
  vst1q_s16(to, x);
}
inline word_vector widen(const std::int8_t* x) {
  return vmovl_s8(vld1_s8(x));
}
inline void unpack_nibbles(uint8x16_t bytes, word_vector* out) {
  const int8x16_t eight = vdupq_n_s8(8);
  const int8x16_t low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), eight);
  const int8x16_t high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), eight);
  out[0] = vmovl_s8(vget_low_s8(low));
  out[1] = vmovl_s8(vget_high_s8(low));
  out[2] = vmovl_s8(vget_low_s8(high));
  out[3] = vmovl_s8(vget_high_s8(high));
}
inline word_sums no_sums() {
  return vdupq_n_s32(0);
}
inline word_sums add_products(word_sums sum, word_vector a, word_vector b) {
  sum = vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b));
  return vmlal_s16(sum, vget_high_s16(a), vget_high_s16(b));
}
template <typename Floats>
inline Floats floats_of_sums(word_sums x) {
  return Floats(vcvtq_f32_s32(x));
}
#else
struct word_vector {
  std::int16_t lane[8];
};
struct word_sums {
  std::int32_t lane[4];
};
inline constexpr int word_lanes = 8;

inline word_vector load_words(const std::int16_t* x) {
  return read<word_vector>(x);
}
inline void store_words(std::int16_t* to, const word_vector& x) {
  write(to, x);
}
inline word_vector widen(const std::int8_t* x) {
  word_vector out;
  for (int i = 0; i < 8; ++i) out.lane[i] = x[i];
  return out;
}
inline void unpack_nibbles(const sixteen_bytes& bytes, word_vector* out) {
  std::uint8_t byte[16];
  write(byte, bytes);
  for (int i = 0; i < 16; ++i) {
    out[i / 8].lane[i % 8] = static_cast<std::int16_t>((byte[i] & 15) - 8);
    out[2 + i / 8].lane[i % 8] = static_cast<std::int16_t>((byte[i] >> 4) - 8);
  }
}
inline word_sums no_sums() {
  return {};
}
inline word_sums add_products(word_sums sum, const word_vector& a, const word_vector& b) {
  for (int i = 0; i < 4; ++i) {
    sum.lane[i] += a.lane[2 * i] * b.lane[2 * i] + a.lane[2 * i + 1] * b.lane[2 * i + 1];
  }
  return sum;
}
template <typename Floats>
inline Floats floats_of_sums(const word_sums& x) {
  Floats out;
  for (int i = 0; i < 4; ++i) out.lane[i] = static_cast<float>(x.lane[i]);
  return out;
}
#endif

inline constexpr int group_words = 32 / word_lanes;

// Groups of eight-bit codes, and what is left of them: n, a multiple of 8.
inline void widen_group(const std::int8_t* x, word_vector (&out)[group_words]) {
  NIBBLE_UNROLL for (int i = 0; i < group_words; ++i) out[i] = widen(x + i * word_lanes);
}
inline void widen_rest(const std::int8_t* x, int n, word_vector (&out)[group_words]) {
  NIBBLE_UNROLL for (int i = 0; i < group_words; ++i) {
    const int left = n - i * word_lanes;
    if (left >= word_lanes) {
      out[i] = widen(x + i * word_lanes);
#if defined(__AVX2__)  // others have no more than eight lanes
    } else if (left > 0) {
      out[i] = widen_part(x + i * word_lanes, left);
#endif
    } else {
      std::memset(&out[i], 0, sizeof out[i]);
    }
  }
}

// The same of four-bit codes in bytes; the rest are n bytes, a multiple of 4.
inline void unpack_group(const std::uint8_t* x, word_vector (&out)[group_words]) {
#if defined(__SSE4_2__)
  unpack_nibbles(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)), out);
#elif defined(NIBBLE_NEON)
  unpack_nibbles(vld1q_u8(x), out);
#else
  unpack_nibbles(read<sixteen_bytes>(x), out);
#endif
}
inline void unpack_rest(const std::uint8_t* x, int n, word_vector (&out)[group_words]) {
  const sixteen_bytes bytes = read_part(x, n);
#if defined(__SSE4_2__)
  unpack_nibbles(
      _mm_set_epi64x(static_cast<std::int64_t>(bytes.high), static_cast<std::int64_t>(bytes.low)),
      out);
#elif defined(NIBBLE_NEON)
  unpack_nibbles(vcombine_u8(vcreate_u8(bytes.low), vcreate_u8(bytes.high)), out);
#else
  unpack_nibbles(bytes, out);
#endif
}

inline std::int32_t sum_of(const word_sums& x) {
  constexpr int n = sizeof(word_sums) / 4;
  std::int32_t lane[n], sum = 0;
  std::memcpy(lane, &x, sizeof lane);
  for (const std::int32_t l : lane) sum += l;
  return sum;
}

#if defined(__SSE4_2__)
// The sums of eight vectors, or of four, side by side.
#if defined(__AVX2__)
inline __m256i eight_sums(const __m256i* x) {
  const __m256i ab =
      _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
  const __m256i cd =
      _mm256_hadd_epi32(_mm256_hadd_epi32(x[4], x[5]), _mm256_hadd_epi32(x[6], x[7]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(ab, cd, 0x20),
                          _mm256_permute2x128_si256(ab, cd, 0x31));
}
#endif
inline __m128i four_sums(const __m128i* x) {
  return _mm_hadd_epi32(_mm_hadd_epi32(x[0], x[1]), _mm_hadd_epi32(x[2], x[3]));
}
// Fewer lanes with the same sums.
#if defined(__AVX2__)
inline __m128i four_lanes(__m256i x) {
  return _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
inline __m256i eight_lanes(__m256i x) {
  return x;
}
#endif
#if defined(__AVX512F__)
inline __m256i eight_lanes(__m512i x) {
  return _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
}
inline __m128i four_lanes(__m512i x) {
  return four_lanes(eight_lanes(x));
}
#endif
inline __m128i four_lanes(__m128i x) {
  return x;
}
#endif

// sums[r] = the sum of all lanes of x[r], as floats.
template <int Rows>
inline void word_lane_sums(const word_sums (&x)[Rows], float (&sums)[Rows]) {
#if defined(__AVX2__)
  if constexpr (Rows % 8 == 0) {
    for (int r = 0; r < Rows; r += 8) {
      __m256i eight[8];
      unrolled<8>([&](auto i) { eight[i] = eight_lanes(x[r + i]); });
      _mm256_storeu_ps(sums + r, _mm256_cvtepi32_ps(eight_sums(eight)));
    }
    return;
  }
#endif
#if defined(__SSE4_2__)
  if constexpr (Rows % 4 == 0) {
    for (int r = 0; r < Rows; r += 4) {
      __m128i four[4];
      unrolled<4>([&](auto i) { four[i] = four_lanes(x[r + i]); });
      _mm_storeu_ps(sums + r, _mm_cvtepi32_ps(four_sums(four)));
    }
    return;
  }
#elif defined(NIBBLE_NEON)
  if constexpr (Rows % 4 == 0) {
    for (int r = 0; r < Rows; r += 4) {
      const int32x4_t four = vpaddq_s32(vpaddq_s32(x[r], x[r + 1]), vpaddq_s32(x[r + 2], x[r + 3]));
      vst1q_f32(sums + r, vcvtq_f32_s32(four));
    }
    return;
  }
#endif
  for (int r = 0; r < Rows; ++r) sums[r] = static_cast<float>(sum_of(x[r]));
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
