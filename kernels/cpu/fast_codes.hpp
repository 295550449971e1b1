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

}  // namespace nibble::inline NIBBLE_ABI::kernels
