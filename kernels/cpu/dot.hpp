// What xsimd lacks: dot products of signed bytes.
//
// `bytes<Arch>` holds 32 of them. A product of two gives eight int32 sums of four neighbours each,
// as floats: lane i = sum of w[j] * x[j], 4 i <= j < 4 i + 4. That is the same on every instruction
// set, so the kernels above it exist once.
//
// All of them are exact. |w| <= 128 and |x| <= 127, so one product fits int16; int32 sums of four
// are far below 2^24 and convert to float exactly. x86 multiplies unsigned by signed bytes: |w|
// fits an unsigned byte, also for w = -128; x with the sign of w fits a signed one, since x is
// never -128; two products add up to 2 * 128 * 127 = 32512 <= 32767 at most in magnitude, so the
// saturating int16 addition of pmaddubsw never saturates.
#pragma once

#include <cstdint>

#include "cpu/simd.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Weights whose codes are never negative need no change of signs: `Signed` is false for them.
template <typename Arch>
struct bytes {
  std::int8_t value[32];

  static bytes load(const std::int8_t* x) {
    bytes r;
    std::memcpy(r.value, x, 32);
    return r;
  }
  template <bool Signed>
  struct weight {
    bytes w;
    explicit weight(const bytes& x) : w(x) {}
    eight<Arch> dot(const bytes& x) const {
      float sums[8];
      for (int i = 0; i < 8; ++i) {
        std::int32_t sum = 0;
        for (int j = 4 * i; j < 4 * i + 4; ++j) sum += w.value[j] * x.value[j];
        sums[i] = static_cast<float>(sum);
      }
      return eight<Arch>::load(sums);
    }
  };
};

#if defined(__SSE4_2__)
template <>
struct bytes<sse42> {
  __m128i value[2];

  static bytes load(const std::int8_t* x) {
    const auto* from = reinterpret_cast<const __m128i*>(x);
    return {{_mm_loadu_si128(from), _mm_loadu_si128(from + 1)}};
  }
  template <bool Signed>
  struct weight {
    __m128i w[2], magnitude[2];
    explicit weight(const bytes& x) {
      for (int i = 0; i < 2; ++i) {
        w[i] = x.value[i];
        magnitude[i] = Signed ? _mm_abs_epi8(w[i]) : w[i];
      }
    }
    eight<sse42> dot(const bytes& x) const {
      eight<sse42> r;
      for (int i = 0; i < 2; ++i) {
        const __m128i y = Signed ? _mm_sign_epi8(x.value[i], w[i]) : x.value[i];
        const __m128i pairs = _mm_maddubs_epi16(magnitude[i], y);
        r.part[i] = _mm_cvtepi32_ps(_mm_madd_epi16(pairs, _mm_set1_epi16(1)));
      }
      return r;
    }
  };
};
#endif

#if defined(__AVX2__)
// The operation proper for 32 bytes: int32 sums of four products.
template <typename Arch>
struct byte_products {
  static __m256i dot(__m256i magnitude, __m256i x) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, x), _mm256_set1_epi16(1));
  }
};
#if defined(__AVXVNNI__)
template <>
struct byte_products<avxvnni> {
  static __m256i dot(__m256i magnitude, __m256i x) {
    return _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), magnitude, x);
  }
};
#endif
#if defined(__AVX512VNNI__)
template <>
struct byte_products<avx512vnni> {
  static __m256i dot(__m256i magnitude, __m256i x) {
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), magnitude, x);
  }
};
#endif

template <typename Arch>
struct bytes_256 {
  __m256i value;

  static bytes_256 load(const std::int8_t* x) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))};
  }
  template <bool Signed>
  struct weight {
    __m256i w, magnitude;
    explicit weight(const bytes_256& x)
        : w(x.value), magnitude(Signed ? _mm256_abs_epi8(x.value) : x.value) {}
    eight<Arch> dot(const bytes_256& x) const {
      const __m256i y = Signed ? _mm256_sign_epi8(x.value, w) : x.value;
      return {{typename Arch::narrow(_mm256_cvtepi32_ps(byte_products<Arch>::dot(magnitude, y)))}};
    }
  };
};
template <>
struct bytes<avx2> : bytes_256<avx2> {
  bytes(const bytes_256& x) : bytes_256(x) {}
};
#endif
#if defined(__AVXVNNI__)
template <>
struct bytes<avxvnni> : bytes_256<avxvnni> {
  bytes(const bytes_256& x) : bytes_256(x) {}
};
#endif
#if defined(__AVX512BW__)
template <>
struct bytes<avx512> : bytes_256<avx512> {
  bytes(const bytes_256& x) : bytes_256(x) {}
};
#endif
#if defined(__AVX512VNNI__)
template <>
struct bytes<avx512vnni> : bytes_256<avx512vnni> {
  bytes(const bytes_256& x) : bytes_256(x) {}
};
#endif

#if defined(NIBBLE_NEON)
// The operation proper for 16 bytes: int32 sums of four products.
template <typename Arch>
struct byte_products {
  static int32x4_t dot(int8x16_t w, int8x16_t x) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    const int16x8_t high = vmull_high_s8(w, x);
    return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
  }
};
#if defined(__ARM_FEATURE_DOTPROD)
template <>
struct byte_products<neon_dotprod> {
  static int32x4_t dot(int8x16_t w, int8x16_t x) { return vdotq_s32(vdupq_n_s32(0), w, x); }
};
#endif

template <typename Arch>
struct bytes_neon {
  int8x16_t value[2];

  static bytes_neon load(const std::int8_t* x) { return {{vld1q_s8(x), vld1q_s8(x + 16)}}; }
  template <bool Signed>
  struct weight {
    bytes_neon w;
    explicit weight(const bytes_neon& x) : w(x) {}
    eight<Arch> dot(const bytes_neon& x) const {
      eight<Arch> r;
      for (int i = 0; i < 2; ++i) {
        const int32x4_t sums = byte_products<Arch>::dot(w.value[i], x.value[i]);
        r.part[i] = typename Arch::narrow(vcvtq_f32_s32(sums));
      }
      return r;
    }
  };
};
template <>
struct bytes<neon> : bytes_neon<neon> {
  bytes(const bytes_neon& x) : bytes_neon(x) {}
};
template <>
struct bytes<neon_dotprod> : bytes_neon<neon_dotprod> {
  bytes(const bytes_neon& x) : bytes_neon(x) {}
};
#endif

}  // namespace nibble::inline NIBBLE_ABI::kernels
