// Whole blocks to codes, for formats whose plain loops compilers do not turn into vectors well.
//
// fast_codes(block, out) writes what F::codes() writes for all groups of the block. The vectors are
// the compiler's own (g++ and clang): they become whatever the instruction set has, pairs of
// registers if need be. They are passed by reference, since by value they would have another
// calling convention on each instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <nibble/formats/list.hpp>

#include "cpu/simd.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using u8x16 = std::uint8_t __attribute__((vector_size(16)));
using u64x2 = std::uint64_t __attribute__((vector_size(16)));
using u8x32 = std::uint8_t __attribute__((vector_size(32)));

template <typename Vector>
inline void read(Vector& to, const void* from) {
  std::memcpy(&to, from, sizeof to);
}
template <typename Vector>
inline void write(std::int8_t* to, const Vector& from) {
  std::memcpy(to, &from, sizeof from);
}

// index[i] = table[index[i]], indices below 16; table: 16 bytes.
inline void look_up(const void* table, u8x16& index) {
#if defined(__SSSE3__)
  __m128i t, i;
  read(t, table);
  read(i, &index);
  i = _mm_shuffle_epi8(t, i);
  std::memcpy(&index, &i, 16);
#elif defined(NIBBLE_NEON)
  index = reinterpret_cast<u8x16>(vqtbl1q_u8(vld1q_u8(static_cast<const std::uint8_t*>(table)),
                                             reinterpret_cast<uint8x16_t>(index)));
#else
  const auto* const entries = static_cast<const std::uint8_t*>(table);
  std::uint8_t at[16];
  std::memcpy(at, &index, 16);
  for (std::uint8_t& i : at) i = entries[i];
  read(index, at);
#endif
}

// 16 bytes -> 32 codes, low halves first; f(half, first) finishes 16 codes in place.
template <typename Function>
inline void split_halves(const std::uint8_t* packed, std::int8_t* out, Function f) {
  u8x16 v;
  read(v, packed);
  u8x16 low = v & 15, high = v >> 4;
  f(low, 0);
  f(high, 16);
  write(out, low);
  write(out + 16, high);
}

inline void fast_codes(const formats::q4_0::block& b, std::int8_t* out) {
  split_halves(b.qs, out, [](u8x16& v, int) { v -= 8; });
}
inline void fast_codes(const formats::q4_1::block& b, std::int8_t* out) {
  split_halves(b.qs, out, [](u8x16&, int) {});
}

// Table formats keep 16 bytes for 32 values.
template <table_format F>
inline void table_codes(const typename F::block& b, std::int8_t* out) {
  static_assert(sizeof F::table == 16 && F::group_size == 32 && sizeof b.qs == F::block_size / 2);
  for (int g = 0; g < F::block_size / 32; ++g) {
    split_halves(b.qs + 16 * g, out + 32 * g, [](u8x16& v, int) { look_up(&F::table, v); });
  }
}

// v += 16 where the bit of `bits` is set, the lowest bit for the first value.
inline void add_fifth_bits(u8x16& v, const std::uint8_t* bits) {
  // a byte eight times, and the bit that matters at each place
  const std::uint64_t ones = 0x0101010101010101u, place = 0x8040201008040201u;
  const u64x2 bytes = {bits[0] * ones, bits[1] * ones}, places = {place, place};
  const auto s = reinterpret_cast<u8x16>(bytes), p = reinterpret_cast<u8x16>(places);
  v |= reinterpret_cast<u8x16>((s & p) == p) & 16;
}

inline void fast_codes(const formats::q5_0::block& b, std::int8_t* out) {
  split_halves(b.qs, out, [&](u8x16& v, int first) {
    add_fifth_bits(v, b.qh + first / 8);
    v -= 16;
  });
}
inline void fast_codes(const formats::q5_1::block& b, std::int8_t* out) {
  split_halves(b.qs, out, [&](u8x16& v, int first) { add_fifth_bits(v, b.qh + first / 8); });
}

inline void fast_codes(const formats::q2_k::block& b, std::int8_t* out) {
  for (int h = 0; h < 2; ++h, out += 128) {
    u8x32 low;
    read(low, b.qs + 32 * h);
    unrolled<4>([&](auto index) {
      constexpr int j = index;
      write(out + 32 * j, low >> (2 * j) & 3);
    });
  }
}

inline void fast_codes(const formats::q3_k::block& b, std::int8_t* out) {
  u8x32 high;
  read(high, b.hmask);
  for (int h = 0; h < 2; ++h, out += 128, high >>= 4) {
    u8x32 low;
    read(low, b.qs + 32 * h);
    unrolled<4>([&](auto index) {
      constexpr int j = index;
      write(out + 32 * j, ((low >> (2 * j) & 3) | (high >> j & 1) << 2) - 4);
    });
  }
}

inline void fast_codes(const formats::q4_k::block& b, std::int8_t* out) {
  for (int h = 0; h < 4; ++h, out += 64) {
    u8x32 v;
    read(v, b.qs + 32 * h);
    write(out, v & 15);
    write(out + 32, v >> 4);
  }
}

inline void fast_codes(const formats::q5_k::block& b, std::int8_t* out) {
  u8x32 fifth;
  read(fifth, b.qh);
  for (int h = 0; h < 4; ++h, out += 64, fifth >>= 2) {
    u8x32 v;
    read(v, b.qs + 32 * h);
    write(out, (v & 15) | (fifth & 1) << 4);
    write(out + 32, v >> 4 | (fifth & 2) << 3);
  }
}

inline void fast_codes(const formats::q6_k::block& b, std::int8_t* out) {
  for (int h = 0; h < 2; ++h, out += 128) {
    u8x32 low[2], high;
    read(low[0], b.ql + 64 * h);
    read(low[1], b.ql + 64 * h + 32);
    read(high, b.qh + 32 * h);
    unrolled<4>([&](auto index) {
      constexpr int j = index;

      const u8x32 upper = (high >> (2 * j) & 3) << 4;
      const u8x32 lower = low[j % 2] >> (4 * (j / 2)) & 15;
      write(out + 32 * j, (lower | upper) - 32);
    });
  }
}

// The first base-3 digit of each byte, read as a fraction, less 1; then moves on to the next digit.
// A digit is 3 v / 256 rounded down: 1 from 86 on, 2 from 171 on. Comparisons give 0 or -1.
inline void next_trits(u8x16& v, std::int8_t* out) {
  const u8x16 one = reinterpret_cast<u8x16>(v >= 86);
  const u8x16 two = reinterpret_cast<u8x16>(v >= 171);
  write(out, u8x16{} - 1 - one - two);
  v += v + v;
}

inline void fast_codes(const formats::tq1_0::block& b, std::int8_t* out) {
  // 16 bytes at a time: older instruction sets have no comparison of 32
  for (int run = 0; run < 3; ++run) {
    u8x16 v;
    read(v, b.qs + 16 * run);
    // bytes 0..31 hold values at a stride of 32, the last 16 bytes at a stride of 16
    std::int8_t* const to = run < 2 ? out + 16 * run : out + 160;
    for (int k = 0; k < 5; ++k) next_trits(v, to + (run < 2 ? 32 : 16) * k);
  }
  // four bytes at each of their four digits
  u8x16 rest = {1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27};
  u8x16 bytes;
  for (int i = 0; i < 4; ++i) std::memcpy(reinterpret_cast<char*>(&bytes) + 4 * i, b.qh, 4);
  rest *= bytes;
  next_trits(rest, out + 240);
}

// out[i] = d * (bytes[i] + shift), eight signed bytes.
inline void scale_eight(const void* bytes, float d, float shift, float* out) {
#if defined(__SSE4_2__)
  const __m128i all = _mm_loadl_epi64(static_cast<const __m128i*>(bytes));
  const __m128i wide[2] = {_mm_cvtepi8_epi32(all), _mm_cvtepi8_epi32(_mm_srli_si128(all, 4))};
  for (int i = 0; i < 2; ++i) {
    const __m128 shifted = _mm_add_ps(_mm_cvtepi32_ps(wide[i]), _mm_set1_ps(shift));
    _mm_storeu_ps(out + 4 * i, _mm_mul_ps(shifted, _mm_set1_ps(d)));
  }
#elif defined(NIBBLE_NEON)
  const int16x8_t wide = vmovl_s8(vld1_s8(static_cast<const std::int8_t*>(bytes)));
  const int32x4_t halves[2] = {vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)};
  for (int i = 0; i < 2; ++i) {
    const float32x4_t shifted = vaddq_f32(vcvtq_f32_s32(halves[i]), vdupq_n_f32(shift));
    vst1q_f32(out + 4 * i, vmulq_f32(shifted, vdupq_n_f32(d)));
  }
#else
  std::int8_t from[8];
  std::memcpy(from, bytes, 8);
  for (int i = 0; i < 8; ++i) out[i] = d * (static_cast<float>(from[i]) + shift);
#endif
}

// Where a byte needs its low or high half, its low six bits, or its low two.
inline constexpr std::uint64_t four_bits = 0x0f0f0f0f0f0f0f0f;
inline constexpr std::uint32_t six_bits = 0x3f3f3f3f, two_bits = 0x03030303;

inline std::uint64_t join(std::uint32_t low, std::uint32_t high) {
  return low | std::uint64_t{high} << 32;
}

// fast_scales(block, scale, offset) writes what F::scale() gives for all groups of the block. Eight
// bytes are worked on in one word; what they hold is said by each format's scale().
inline void fast_scales(const formats::q2_k::block& b, float* scale, float* offset) {
  const float d = to_float(b.d), m = -to_float(b.dmin);
  for (int g = 0; g < 16; g += 8) {
    std::uint64_t packed;
    std::memcpy(&packed, b.scales + g, 8);
    const std::uint64_t scales = packed & four_bits, minima = packed >> 4 & four_bits;
    scale_eight(&scales, d, 0, scale + g);
    scale_eight(&minima, m, 0, offset + g);
  }
}

inline void fast_scales(const formats::q3_k::block& b, float* scale, float*) {
  std::uint64_t low;
  std::uint32_t high;
  std::memcpy(&low, b.scales, 8);
  std::memcpy(&high, b.scales + 8, 4);
  for (int g = 0; g < 16; g += 8, low >>= 4, high >>= 4) {
    const std::uint64_t upper = join(high & two_bits, high >> 2 & two_bits);
    const std::uint64_t scales = (low & four_bits) | upper << 4;
    scale_eight(&scales, to_float(b.d), -32, scale + g);
  }
}

inline void fast_scales(const formats::q6_k::block& b, float* scale, float*) {
  for (int g = 0; g < 16; g += 8) {
    scale_eight(b.scales + g, to_float(b.d), 0, scale + g);
  }
}

// Q4_K and Q5_K, see formats/k_scales.hpp.
template <typename Block>
inline void k_scales(const Block& b, float* scale, float* offset) {
  std::uint32_t low, middle, high;
  std::memcpy(&low, b.scales, 4);
  std::memcpy(&middle, b.scales + 4, 4);
  std::memcpy(&high, b.scales + 8, 4);
  const auto lower = static_cast<std::uint32_t>(four_bits);
  const std::uint64_t scales = join(low & six_bits, (high & lower) | (low >> 6 & two_bits) << 4);
  const std::uint64_t minima =
      join(middle & six_bits, (high >> 4 & lower) | (middle >> 6 & two_bits) << 4);
  scale_eight(&scales, to_float(b.d), 0, scale);
  scale_eight(&minima, -to_float(b.dmin), 0, offset);
}
inline void fast_scales(const formats::q4_k::block& b, float* scale, float* offset) {
  k_scales(b, scale, offset);
}
inline void fast_scales(const formats::q5_k::block& b, float* scale, float* offset) {
  k_scales(b, scale, offset);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
