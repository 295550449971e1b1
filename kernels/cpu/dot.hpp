// What compilers' vectors lack: products of bytes, summed over the four columns of each row.
//
// byte_products<Arch> multiplies a strip's vector of codes by four activations. There are three
// kinds, by what the processor has:
//   pairs    x86 before VNNI: unsigned codes, sums of two in 16 bits, which may be added up there
//            as long as they cannot overflow
//   quads    VNNI: unsigned codes, added in 32 bits
//   signed   others: signed codes, added in 32 bits
// All are exact. An activation is in [-127, 127], so a sum of two products with codes up to 127 is
// at most 2 * 127 * 127 = 32258 in magnitude and fits 16 bits: vpmaddubsw never saturates.
#pragma once

#include <cstdint>

#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

enum class product_kind { pairs, quads, signed_codes };

template <typename Arch>
struct byte_products {
  using lanes = strip<Arch>;
  static constexpr product_kind kind = product_kind::signed_codes;

  // sum + codes . x, in 16 bits first: 2 * 128 * 127 = 32512 at most
  static typename lanes::i32 add(const typename lanes::i32& sum, const typename lanes::u8& codes,
                                 const typename lanes::i32& x) {
    using i16 = typename lanes::i16;
    const auto c = reinterpret_cast<i16>(codes), y = reinterpret_cast<i16>(x);
    const i16 pairs = ((c << 8) >> 8) * ((y << 8) >> 8) + (c >> 8) * (y >> 8);
    const auto both = reinterpret_cast<typename lanes::i32>(pairs);
    return sum + ((both << 16) >> 16) + (both >> 16);
  }
  // [rows] products of two 16-bit integers each, added.
  static typename lanes::i32 multiply_pairs(const typename lanes::i16& a,
                                            const typename lanes::i16& b) {
    const auto x = reinterpret_cast<typename lanes::i32>(a);
    const auto y = reinterpret_cast<typename lanes::i32>(b);
    return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
  }
};

#if defined(__SSE4_2__)
// Applies f to the registers, of `Bytes` bytes, of vectors that may be longer than one.
template <int Bytes, typename Result, typename Function, typename... Vectors>
inline Result by_register(Function f, const Vectors&... v) {
  using part_type = typename vector_type<long long, Bytes>::type;
  constexpr int n = sizeof(Result) / Bytes;
  part_type part[n];
  for (int i = 0; i < n; ++i) {
    part[i] = f(read<part_type>(reinterpret_cast<const char*>(&v) + i * Bytes)...);
  }
  return read<Result>(part);
}

inline __m128i pair_products(__m128i codes, __m128i x) {
  return _mm_maddubs_epi16(codes, x);
}
inline __m128i pair_sums(__m128i a, __m128i b) {
  return _mm_madd_epi16(a, b);
}
inline __m128i with_sign_of(__m128i x, __m128i codes) {
  return _mm_sign_epi8(x, codes);
}
inline __m128i magnitudes(__m128i codes) {
  return _mm_abs_epi8(codes);
}
#if defined(__AVX2__)
inline __m256i pair_products(__m256i codes, __m256i x) {
  return _mm256_maddubs_epi16(codes, x);
}
inline __m256i pair_sums(__m256i a, __m256i b) {
  return _mm256_madd_epi16(a, b);
}
inline __m256i with_sign_of(__m256i x, __m256i codes) {
  return _mm256_sign_epi8(x, codes);
}
inline __m256i magnitudes(__m256i codes) {
  return _mm256_abs_epi8(codes);
}
#endif
#if defined(__AVX512BW__)
inline __m512i pair_products(__m512i codes, __m512i x) {
  return _mm512_maddubs_epi16(codes, x);
}
inline __m512i pair_sums(__m512i a, __m512i b) {
  return _mm512_madd_epi16(a, b);
}
// AVX-512 has no such operation. Codes of 0 are multiplied by 0 whatever the sign.
inline __m512i with_sign_of(__m512i x, __m512i codes) {
  return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), x);
}
inline __m512i magnitudes(__m512i codes) {
  return _mm512_abs_epi8(codes);
}
#endif

template <typename Arch, int Bytes>
struct products_x86 {
  using lanes = strip<Arch>;
  static constexpr product_kind kind = product_kind::pairs;

  // Codes up to 127.
  static typename lanes::i16 multiply(const typename lanes::u8& codes,
                                      const typename lanes::i32& x) {
    return by_register<Bytes, typename lanes::i16>(
        [](auto c, auto y) { return pair_products(c, y); }, codes, x);
  }
  // Signed codes, all of them: |codes| times x with their sign. -128 becomes 128, and -x is one of
  // [-127, 127] as well; two products come to 2 * 128 * 127 = 32512 at most.
  static typename lanes::i16 multiply_signed(const typename lanes::u8& codes,
                                             const typename lanes::i32& x) {
    return by_register<Bytes, typename lanes::i16>(
        [](auto c, auto y) { return pair_products(magnitudes(c), with_sign_of(y, c)); }, codes, x);
  }
  static typename lanes::i32 multiply_pairs(const typename lanes::i16& a,
                                            const typename lanes::i16& b) {
    return by_register<Bytes, typename lanes::i32>([](auto c, auto d) { return pair_sums(c, d); },
                                                   a, b);
  }
};
template <>
struct byte_products<sse42> : products_x86<sse42, 16> {};
#endif
#if defined(__AVX2__)
template <>
struct byte_products<avx2> : products_x86<avx2, 32> {};
#endif
#if defined(__AVXVNNI__)
template <>
struct byte_products<avxvnni> : products_x86<avxvnni, 32> {
  static constexpr product_kind kind = product_kind::quads;
  static lanes::i32 add(lanes::i32 sum, lanes::u8 codes, lanes::i32 x) {
    return reinterpret_cast<lanes::i32>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sum),
                                                                reinterpret_cast<__m256i>(codes),
                                                                reinterpret_cast<__m256i>(x)));
  }
};
#endif
#if defined(__AVX512BW__)
template <>
struct byte_products<avx512> : products_x86<avx512, 64> {};
#endif
#if defined(__AVX512VNNI__)
template <>
struct byte_products<avx512vnni> : products_x86<avx512vnni, 64> {
  static constexpr product_kind kind = product_kind::quads;
  static lanes::i32 add(lanes::i32 sum, lanes::u8 codes, lanes::i32 x) {
    return reinterpret_cast<lanes::i32>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum),
                                                            reinterpret_cast<__m512i>(codes),
                                                            reinterpret_cast<__m512i>(x)));
  }
};
#endif

#if defined(NIBBLE_NEON)
// The operation proper for 16 bytes: int32 sums of four products.
template <typename Arch>
inline int32x4_t add_products(int32x4_t sum, int8x16_t w, int8x16_t x) {
  const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
  const int16x8_t high = vmull_high_s8(w, x);
  return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
#if defined(__ARM_FEATURE_DOTPROD)
template <>
inline int32x4_t add_products<neon_dotprod>(int32x4_t sum, int8x16_t w, int8x16_t x) {
  return vdotq_s32(sum, w, x);
}
#endif

template <typename Arch>
struct products_neon {
  using lanes = strip<Arch>;
  static constexpr product_kind kind = product_kind::signed_codes;

  static typename lanes::i32 add(const typename lanes::i32& sum, const typename lanes::u8& codes,
                                 const typename lanes::i32& x) {
    int32x4_t s[2];
    int8x16_t c[2], y[2];
    std::memcpy(s, &sum, sizeof s);
    std::memcpy(c, &codes, sizeof c);
    std::memcpy(y, &x, sizeof y);
    for (int i = 0; i < 2; ++i) s[i] = add_products<Arch>(s[i], c[i], y[i]);
    return read<typename lanes::i32>(s);
  }
  static typename lanes::i32 multiply_pairs(const typename lanes::i16& a,
                                            const typename lanes::i16& b) {
    int16x8_t x[2], y[2];
    int32x4_t s[2];
    std::memcpy(x, &a, sizeof x);
    std::memcpy(y, &b, sizeof y);
    for (int i = 0; i < 2; ++i) {
      s[i] =
          vpaddq_s32(vmull_s16(vget_low_s16(x[i]), vget_low_s16(y[i])), vmull_high_s16(x[i], y[i]));
    }
    return read<typename lanes::i32>(s);
  }
};
template <>
struct byte_products<neon> : products_neon<neon> {};
#if defined(__ARM_FEATURE_DOTPROD)
template <>
struct byte_products<neon_dotprod> : products_neon<neon_dotprod> {};
#endif
#endif

}  // namespace nibble::inline NIBBLE_ABI::kernels
