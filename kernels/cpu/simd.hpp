// The vectors that the CPU kernels are written with, one set for each instruction set.
//
// A unit compiled for one instruction set shares no inline function with the rest of the program:
// NIBBLE_ABI and the macro `xsimd` (both set in cmake/isa.cmake) give it namespaces of its own, so
// that the linker can never keep a copy that an older CPU cannot run. For the same reason the
// kernels call no inline function of std.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <nibble/base/config.hpp>
#include <nibble/base/half.hpp>
#include <type_traits>
#include <utility>

// Every aarch64 has NEON; NIBBLE_NEON (set in cmake/isa.cmake) keeps it out of the scalar unit.
#if defined(__SSE4_2__)
#include <immintrin.h>

#include <xsimd/xsimd.hpp>
#elif defined(NIBBLE_NEON)
#include <arm_neon.h>

#include <xsimd/xsimd.hpp>
#endif

namespace nibble::inline NIBBLE_ABI::kernels {

// What a kernel needs of a vector of floats, as plain loops.
template <int N>
struct plain_floats {
  static constexpr std::size_t size = N;
  float lane[N];

  plain_floats() = default;
  explicit plain_floats(float x) {
    for (float& l : lane) l = x;
  }
  static plain_floats load_unaligned(const float* x) {
    plain_floats r;
    for (int i = 0; i < N; ++i) r.lane[i] = x[i];
    return r;
  }
  void store_unaligned(float* x) const {
    for (int i = 0; i < N; ++i) x[i] = lane[i];
  }
};

template <int N, typename Function>
inline plain_floats<N> each_lane(const plain_floats<N>& a, const plain_floats<N>& b, Function f) {
  plain_floats<N> r;
  for (int i = 0; i < N; ++i) r.lane[i] = f(a.lane[i], b.lane[i]);
  return r;
}

template <int N>
inline plain_floats<N> operator+(const plain_floats<N>& a, const plain_floats<N>& b) {
  return each_lane(a, b, [](float x, float y) { return x + y; });
}
template <int N>
inline plain_floats<N> operator-(const plain_floats<N>& a, const plain_floats<N>& b) {
  return each_lane(a, b, [](float x, float y) { return x - y; });
}
template <int N>
inline plain_floats<N> operator*(const plain_floats<N>& a, const plain_floats<N>& b) {
  return each_lane(a, b, [](float x, float y) { return x * y; });
}
template <int N>
inline plain_floats<N> operator/(const plain_floats<N>& a, const plain_floats<N>& b) {
  return each_lane(a, b, [](float x, float y) { return x / y; });
}
// The lesser and the greater; the second one if either is a NaN, as on x86.
template <int N>
inline plain_floats<N> min(const plain_floats<N>& a, const plain_floats<N>& b) {
  return each_lane(a, b, [](float x, float y) { return x < y ? x : y; });
}
template <int N>
inline plain_floats<N> max(const plain_floats<N>& a, const plain_floats<N>& b) {
  return each_lane(a, b, [](float x, float y) { return x > y ? x : y; });
}
template <int N>
inline plain_floats<N> exp(const plain_floats<N>& a) {
  return each_lane(a, a, [](float x, float) { return ::expf(x); });
}
template <int N>
inline plain_floats<N> tanh(const plain_floats<N>& a) {
  return each_lane(a, a, [](float x, float) { return ::tanhf(x); });
}
// a * b + c; whether it is rounded once or twice depends on the instruction set.
template <int N>
inline plain_floats<N> mul_add(const plain_floats<N>& a, const plain_floats<N>& b,
                               const plain_floats<N>& c) {
  return a * b + c;
}

// Loops, on any machine.
//   floats   the widest vector of floats
struct scalar {
  using floats = plain_floats<4>;
};

// exp(x) for x <= 0; 0 below -87, and a NaN stays one.
template <int N>
inline plain_floats<N> exp_negative(const plain_floats<N>& a) {
  return each_lane(a, a, [](float x, float) { return x < -87.0f ? 0.0f : ::expf(x); });
}

// The generic exp and tanh of xsimd call functions on scalars only in branches not taken here.
#if defined(__SSE4_2__) || defined(NIBBLE_NEON)
template <typename A>
inline xsimd::batch<float, A> mul_add(const xsimd::batch<float, A>& a,
                                      const xsimd::batch<float, A>& b,
                                      const xsimd::batch<float, A>& c) {
  return xsimd::fma(a, b, c);
}

// The sign is known and nothing overflows, so half the work of exp() will do: x = n ln 2 + r with
// |r| <= ln 2 / 2, then 2^n (1 + r + r^2 p(r)), p as in Cephes' expf (Moshier).
template <typename A>
inline xsimd::batch<float, A> exp_negative(const xsimd::batch<float, A>& x) {
  using floats = xsimd::batch<float, A>;
  using integers = xsimd::batch<std::int32_t, A>;
  const floats least(-87.0f), one(1.0f);
  const floats nearest(12583039.0f);  // 1.5 * 2^23 + 127: n + 127 in the low bits
  const floats bounded = max(least, x);
  const floats shifted = mul_add(bounded, floats(1.44269504f), nearest);
  const floats n = shifted - nearest;
  const floats r = mul_add(n, floats(2.12194440e-4f), mul_add(n, floats(-0.693359375f), bounded));
  floats p = mul_add(floats(1.9875691500e-4f), r, floats(1.3981999507e-3f));
  p = mul_add(p, r, floats(8.3334519073e-3f));
  p = mul_add(p, r, floats(4.1665795894e-2f));
  p = mul_add(p, r, floats(1.6666665459e-1f));
  p = mul_add(p, r, floats(5.0000001201e-1f));
  p = mul_add(p, r * r, r + one);
  const floats power = xsimd::bitwise_cast<floats>(xsimd::bitwise_cast<integers>(shifted) << 23);
  return xsimd::select(x < least, floats(0.0f), p * power);
}
#endif

#if defined(__SSE4_2__)
struct sse42 {
  using floats = xsimd::batch<float, xsimd::sse4_2>;
};
#endif

#if defined(__AVX2__) && defined(__FMA__)
struct avx2 {
  using floats = xsimd::batch<float, xsimd::fma3<xsimd::avx2>>;
};
#endif

#if defined(__AVXVNNI__)
struct avxvnni : avx2 {};
#endif

#if defined(__AVX512BW__)
struct avx512 {
  using floats = xsimd::batch<float, xsimd::avx512bw>;
};
// xsimd 8 has no fused operation for AVX-512.
inline avx512::floats mul_add(const avx512::floats& a, const avx512::floats& b,
                              const avx512::floats& c) {
  return _mm512_fmadd_ps(a, b, c);
}
#endif

#if defined(__AVX512VNNI__)
struct avx512vnni : avx512 {};
#endif

#if defined(NIBBLE_NEON)
struct neon {
  using floats = xsimd::batch<float, xsimd::neon64>;
};
struct neon_dotprod : neon {};
#endif

// How many vectors the processor holds in registers.
template <typename Floats>
inline constexpr int vector_registers =
#if defined(__AVX512F__) || defined(__aarch64__)
    32;
#else
    16;
#endif

// f(0), ..., f(N - 1) with constants. A loop would be unrolled too late for the compiler to see
// that an array of vectors indexed by it can live in registers, or that a shift is by a constant.
template <int N, typename Function>
inline void unrolled(Function f) {
  [&]<int... I>(std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

// The sum of all lanes, always in the same order: halves are added until one lane is left.
template <int N>
inline float halving_sum(float (&lane)[N]) {
  for (int half = N / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[half + i];
  }
  return lane[0];
}

template <typename Floats>
inline float lane_sum(const Floats& x) {
  float lane[Floats::size];
  x.store_unaligned(lane);
  return halving_sum(lane);
}

#if defined(__SSE4_2__)
// Four lanes, what halving leaves of more.
inline __m128 lower_half_sums(__m128 x) {
  return x;
}
#if defined(__AVX__)
inline __m128 lower_half_sums(__m256 x) {
  return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
}
inline __m256 eight_lanes(__m256 x) {
  return x;
}
#endif
#if defined(__AVX512F__)
inline __m256 eight_lanes(__m512 x) {
  return _mm256_add_ps(_mm512_castps512_ps256(x),
                       _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
}
inline __m128 lower_half_sums(__m512 x) {
  return lower_half_sums(eight_lanes(x));
}
#endif

// The last two halvings of four rows (of two times four), whose results then lie side by side.
inline __m128 four_sums(__m128 a, __m128 b, __m128 c, __m128 d) {
  const __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
  const __m128 cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
  return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd));
}
#if defined(__AVX__)
inline __m256 four_sums(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 ab = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  const __m256 cd = _mm256_add_ps(_mm256_shuffle_ps(c, d, 0x44), _mm256_shuffle_ps(c, d, 0xee));
  return _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x88), _mm256_shuffle_ps(ab, cd, 0xdd));
}
// The first halving of two rows of eight lanes: a's in the lower half, b's in the upper one.
inline __m256 halved(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_insertf128_ps(a, _mm256_castps256_ps128(b), 1),
                       _mm256_permute2f128_ps(a, b, 0x31));
}
#endif
#endif

// sums[r] = lane_sum(x[r]), the same bits.
template <typename Floats, int Rows>
inline void lane_sums(const Floats (&x)[Rows], float (&sums)[Rows]) {
#if defined(__SSE4_2__)
  constexpr bool plain = std::is_same_v<Floats, plain_floats<Floats::size>>;
#if defined(__AVX__)
  if constexpr (Rows == 8 && !plain) {
    __m256 v[4];
    unrolled<4>([&](auto r) { v[r] = halved(eight_lanes(x[r]), eight_lanes(x[r + 4])); });
    _mm256_storeu_ps(sums, four_sums(v[0], v[1], v[2], v[3]));
    return;
  }
#endif
  if constexpr (Rows % 4 == 0 && !plain) {
    for (int r = 0; r < Rows; r += 4) {
      __m128 v[4];
      unrolled<4>([&](auto i) { v[i] = lower_half_sums(x[r + i]); });
      _mm_storeu_ps(sums + r, four_sums(v[0], v[1], v[2], v[3]));
    }
    return;
  }
#endif
  for (int r = 0; r < Rows; ++r) sums[r] = lane_sum(x[r]);
}

template <typename T>
constexpr T least(T a, T b) {
  return b < a ? b : a;
}

// Vectors of `storage` (float, half or bfloat16) as floats.
template <typename Floats>
inline Floats load(const float* x) {
  return Floats::load_unaligned(x);
}
template <typename Floats>
inline Floats load(const half* x) {
#if defined(__AVX512F__)
  if constexpr (Floats::size == 16) {
    return Floats(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))));
  }
#endif
#if defined(__F16C__)
  if constexpr (Floats::size == 8) {
    return Floats(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
  }
#endif
#if defined(NIBBLE_NEON)
  if constexpr (Floats::size == 4) {
    const auto* const bits = reinterpret_cast<const std::uint16_t*>(x);
    return Floats(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(bits))));
  }
#endif
  float lane[Floats::size];
  for (std::size_t i = 0; i < Floats::size; ++i) lane[i] = to_float(x[i]);
  return Floats::load_unaligned(lane);
}

template <typename Floats>
inline Floats load(const bfloat16* x) {
#if defined(__AVX512F__)
  if constexpr (Floats::size == 16) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    return Floats(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (Floats::size == 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    return Floats(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
  }
#endif
  float lane[Floats::size];
  for (std::size_t i = 0; i < Floats::size; ++i) lane[i] = to_float(x[i]);
  return Floats::load_unaligned(lane);
}

// Codes as floats.
template <typename Floats>
inline Floats load(const std::int8_t* x) {
#if defined(__AVX512F__)
  if constexpr (Floats::size == 16) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    return Floats(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (Floats::size == 8) {
    const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(x));
    return Floats(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
  }
#endif
  float lane[Floats::size];
  for (std::size_t i = 0; i < Floats::size; ++i) lane[i] = static_cast<float>(x[i]);
  return Floats::load_unaligned(lane);
}

// The first n < Floats::size values, the rest 0.
template <typename Floats, typename Storage>
inline Floats load_part(const Storage* x, std::int64_t n) {
  Storage lane[Floats::size] = {};
  for (std::int64_t i = 0; i < n; ++i) lane[i] = x[i];
  return load<Floats>(lane);
}

template <typename Floats>
inline void store_part(const Floats& value, float* x, std::int64_t n) {
  float lane[Floats::size];
  value.store_unaligned(lane);
  for (std::int64_t i = 0; i < n; ++i) x[i] = lane[i];
}

// out[i] = f(x[i]...) for i < n; f takes and gives vectors. out may be one of the inputs.
template <typename Floats, typename Function, typename... Inputs>
inline void map(std::int64_t n, float* out, Function f, const Inputs*... x) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  std::int64_t i = 0;
  for (; i + width <= n; i += width) f(load<Floats>(x + i)...).store_unaligned(out + i);
  if (i < n) store_part<Floats>(f(load_part<Floats>(x + i, n - i)...), out + i, n - i);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
