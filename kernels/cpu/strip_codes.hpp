// From a strip's block to codes and scales of its rows.
//
// Columns are taken in units of 32, which share one activation scale. unit_codes() gives the codes
// of a unit as eight vectors, four columns each: less than 128 and not negative, `code_bias`
// greater than the format's, or signed as they are where those of the format do not fit seven bits
// (`wide_codes`). unit_scale(), small_scale() and group_offset() give what sums are multiplied by.
// What the bits mean is said by each format's codes() and scale(); the numbers are the same.
#pragma once

#include <cstdint>
#include <nibble/formats/list.hpp>

#include "cpu/strip_layout.hpp"
#include "cpu/unpack.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int unit = 32;       // columns that share an activation scale
inline constexpr int unit_words = 8;  // of four columns

template <typename F>
inline constexpr bool wide_codes = F::max_code - F::min_code > 127;
// What was added to codes so that none is negative.
template <typename F>
inline constexpr int code_bias = wide_codes<F> ? 0 : -F::min_code;
// Groups in a unit.
template <typename F>
inline constexpr int unit_groups = unit / F::group_size;
// Formats with two groups in a unit have scales that are small integers times the block's: sums are
// multiplied by those as integers, and become floats once a unit.
template <typename F>
inline constexpr bool small_scales = unit_groups<F> == 2;

// A block of a strip: its fields by their number in strip_fields.
template <typename Arch, typename F>
struct strip_block {
  using lanes = strip<Arch>;
  const unsigned char* data;

  template <std::size_t Field>
  const unsigned char* element(int i) const {
    constexpr std::size_t width = strip_fields<F>[Field].width;
    return data + (bytes_before<F>(Field) + static_cast<std::size_t>(i) * width) * lanes::rows;
  }
  // Four bytes of each row.
  template <std::size_t Field>
  typename lanes::u8 bytes(int i) const {
    return read<typename lanes::u8>(element<Field>(i));
  }
  template <std::size_t Field>
  typename lanes::u32 words(int i) const {
    return read<typename lanes::u32>(element<Field>(i));
  }
  template <std::size_t Field>
  typename lanes::f32 halves() const {
    return read_halves<Arch>(element<Field>(0));
  }
};

// index[i] = table[index[i]], indices below 16; table: 16 bytes.
template <typename Arch>
inline void look_up_strip(const void* table, typename strip<Arch>::u8& index) {
#if defined(__AVX512BW__)
  if constexpr (sizeof index == 64) {
    const __m512i t = _mm512_broadcast_i32x4(read<__m128i>(table));
    index = reinterpret_cast<typename strip<Arch>::u8>(
        _mm512_shuffle_epi8(t, reinterpret_cast<__m512i>(index)));
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof index == 32) {
    const __m256i t = _mm256_broadcastsi128_si256(read<__m128i>(table));
    index = reinterpret_cast<typename strip<Arch>::u8>(
        _mm256_shuffle_epi8(t, reinterpret_cast<__m256i>(index)));
    return;
  }
#endif
  u8x16 part[sizeof index / 16];
  std::memcpy(part, &index, sizeof index);
  for (u8x16& p : part) look_up(table, p);
  std::memcpy(&index, part, sizeof index);
}

// The bits `mask` of each byte after it was shifted, to the right or (negative) to the left. All 16
// bits are shifted together, as no instruction shifts bytes: a mask that keeps no bit which came
// from the neighbour makes that the same.
template <typename Arch>
inline typename strip<Arch>::u8 bits(const typename strip<Arch>::u8& v, int shift,
                                     std::uint8_t mask) {
  using u8 = typename strip<Arch>::u8;
  const auto both = reinterpret_cast<typename strip<Arch>::u16>(v);
  return reinterpret_cast<u8>(shift < 0 ? both << -shift : both >> shift) & mask;
}

// c[w] and c[w + 4] from the halves of word `first` + w.
template <typename Arch, typename F>
inline void halves_apart(const strip_block<Arch, F>& b, int first,
                         typename strip<Arch>::u8 (&c)[unit_words]) {
  NIBBLE_UNROLL for (int w = 0; w < 4; ++w) {
    const auto v = b.template bytes<0>(first + w);
    c[w] = v & 15;
    c[w + 4] = bits<Arch>(v, 4, 15);
  }
}

// Two bits of each byte: values at a stride of 32 columns share a byte.
template <typename Arch, typename F>
inline typename strip<Arch>::u8 quarter(const strip_block<Arch, F>& b, int u, int w) {
  return bits<Arch>(b.template bytes<0>(8 * (u / 4) + w), 2 * (u % 4), 3);
}

// floor(3 v / 256) of the low byte of each 16 bits, after v was multiplied modulo 256.
template <typename V>
inline V trits_of_halves(const V& v, int power) {
  return (v * static_cast<std::uint16_t>(power) & 0xff) * 3 >> 8;
}
template <typename Arch>
inline typename strip<Arch>::u8 trits(const typename strip<Arch>::u8& v, int digit) {
  constexpr int powers[] = {1, 3, 9, 27, 81};
  using u16 = typename strip<Arch>::u16;
  const auto both = reinterpret_cast<u16>(v);
  const u16 low = trits_of_halves<u16>(both & 0xff, powers[digit]);
  const u16 high = trits_of_halves<u16>(both >> 8, powers[digit]);
  return reinterpret_cast<typename strip<Arch>::u8>(low | high << 8);
}

template <typename Arch, typename F>
inline void unit_codes(const strip_block<Arch, F>& b, int u,
                       typename strip<Arch>::u8 (&c)[unit_words]) {
  using u8 = typename strip<Arch>::u8;
  using namespace formats;
  if constexpr (!has_strip_fields<F>) {  // by the definition
    for (int r = 0; r < strip_rows<Arch>; ++r) {
      typename F::block block;
      unpack_block<Arch, F>(b.data, r, block);
      std::int8_t codes[unit];
      for (int g = 0; g < unit_groups<F>; ++g) {
        F::codes(block, u * unit_groups<F> + g, codes + g * F::group_size);
      }
      for (int i = 0; i < unit; ++i) {
        c[i / 4][4 * r + i % 4] = static_cast<std::uint8_t>(codes[i] + code_bias<F>);
      }
    }
  } else if constexpr (table_format<F>) {
    halves_apart(b, 4 * u, c);
    std::uint8_t table[16];
    for (int i = 0; i < 16; ++i) table[i] = static_cast<std::uint8_t>(F::table[i] + code_bias<F>);
    NIBBLE_UNROLL for (int w = 0; w < unit_words; ++w) look_up_strip<Arch>(table, c[w]);
  } else if constexpr (std::is_same_v<F, q4_0> || std::is_same_v<F, q4_1>) {
    halves_apart(b, 0, c);
  } else if constexpr (std::is_same_v<F, q5_0> || std::is_same_v<F, q5_1>) {
    halves_apart(b, 0, c);
    const u8 fifth = b.template bytes<1>(0);
    NIBBLE_UNROLL for (int w = 0; w < unit_words; ++w) c[w] |= bits<Arch>(fifth, w - 4, 16);
  } else if constexpr (std::is_same_v<F, q8_0>) {
    NIBBLE_UNROLL for (int w = 0; w < unit_words; ++w) c[w] = b.template bytes<0>(w);
  } else if constexpr (std::is_same_v<F, tq1_0>) {
    NIBBLE_UNROLL for (int w = 0; w < unit_words; ++w) {
      if (u < 5) {
        c[w] = trits<Arch>(b.template bytes<0>(w), u);
      } else if (u == 7 && w >= 4) {
        c[w] = trits<Arch>(b.template bytes<1>(0), w - 4);
      } else {
        c[w] = trits<Arch>(b.template bytes<0>(8 + w % 4), 2 * (u - 5) + w / 4);
      }
    }
  } else {
    NIBBLE_UNROLL for (int w = 0; w < unit_words; ++w) {
      if constexpr (std::is_same_v<F, q2_k> || std::is_same_v<F, tq2_0>) {
        c[w] = quarter(b, u, w);
      } else if constexpr (std::is_same_v<F, q3_k>) {
        c[w] = quarter(b, u, w) | bits<Arch>(b.template bytes<1>(w), u - 2, 4);
      } else if constexpr (std::is_same_v<F, q4_k>) {
        c[w] = bits<Arch>(b.template bytes<0>(8 * (u / 2) + w), 4 * (u % 2), 15);
      } else if constexpr (std::is_same_v<F, q5_k>) {
        c[w] = bits<Arch>(b.template bytes<0>(8 * (u / 2) + w), 4 * (u % 2), 15) |
               bits<Arch>(b.template bytes<1>(w), u - 4, 16);
      } else {
        static_assert(std::is_same_v<F, q6_k>);
        c[w] =
            bits<Arch>(b.template bytes<0>(16 * (u / 4) + 8 * (u % 2) + w), 4 * (u / 2 % 2), 15) |
            bits<Arch>(b.template bytes<1>(8 * (u / 4) + w), 2 * (u % 4) - 4, 0x30);
      }
    }
  }
}

// Scales that hold for a whole block, read once.
template <typename Arch>
struct block_scales {
  typename strip<Arch>::f32 d, m;  // m: of offsets, where the format has them
};

template <typename Arch, typename F>
inline block_scales<Arch> read_block_scales(const strip_block<Arch, F>& b) {
  using namespace formats;
  using f32 = typename strip<Arch>::f32;
  constexpr std::size_t n = strip_fields<F>.size();
  if constexpr (!has_strip_fields<F>) {
    return {};
  } else if constexpr (std::is_same_v<F, mxfp4>) {
    // 2^(e - 128), a subnormal number for small e, as a product of two powers of half the exponent
    using u32 = typename strip<Arch>::u32;
    u32 e{};
    NIBBLE_UNROLL for (int r = 0; r < strip_rows<Arch>; ++r) e[r] = b.template element<1>(0)[r];
    const u32 a = e >> 1, c = e - a;
    return {reinterpret_cast<f32>((a + 63) << 23) * reinterpret_cast<f32>((c + 63) << 23), f32{}};
  } else if constexpr (std::is_same_v<F, iq4_xs>) {
    return {b.template halves<2>(), f32{}};
  } else if constexpr (F::has_offset) {
    // the minima of blocks of 256 are subtracted
    const f32 m = b.template halves<n - 1>();
    return {b.template halves<n - 2>(), F::block_size == 256 ? -m : m};
  } else {
    return {b.template halves<n - 1>(), f32{}};
  }
}

// Where a format has no fields, by the definition: what `part` takes of group g's scale.
template <typename Arch, typename F>
inline typename strip<Arch>::f32 defined_scale(const strip_block<Arch, F>& b, int g,
                                               float affine::*part) {
  typename strip<Arch>::f32 out{};
  for (int r = 0; r < strip_rows<Arch>; ++r) {
    typename F::block block;
    unpack_block<Arch, F>(b.data, r, block);
    out[r] = F::scale(block, g).*part;
  }
  return out;
}

// Six bits of Q4_K and Q5_K: the scale of unit g or its minimum.
template <typename Arch, typename F>
inline typename strip<Arch>::u32 six_bits(const strip_block<Arch, F>& b, int g, bool minimum) {
  using u32 = typename strip<Arch>::u32;
  constexpr std::size_t field = std::is_same_v<F, formats::q4_k> ? 1 : 2;
  const int at = 8 * (g % 4);
  const u32 own = b.template words<field>(minimum ? 1 : 0);
  if (g < 4) return own >> at & 63;
  const u32 low = b.template words<field>(2) >> (minimum ? at + 4 : at) & 15;
  return low | (own >> (at + 2) & 0x30);
}

// [rows] what the sum of unit u is multiplied by.
template <typename Arch, typename F>
inline typename strip<Arch>::f32 unit_scale(const strip_block<Arch, F>& b,
                                            const block_scales<Arch>& of, int u) {
  using u32 = typename strip<Arch>::u32;
  using namespace formats;
  if constexpr (!has_strip_fields<F>) {
    return defined_scale(b, u, &affine::scale);
  } else if constexpr (std::is_same_v<F, q4_k> || std::is_same_v<F, q5_k>) {
    return of.d * to_floats<Arch>(six_bits(b, u, false));
  } else if constexpr (std::is_same_v<F, iq4_xs>) {
    const u32 low = b.template words<1>(0) >> (4 * u) & 15;
    using halves = typename vector_type<std::uint16_t, 2 * strip_rows<Arch>>::type;
    const u32 all = __builtin_convertvector(read<halves>(b.template element<3>(0)), u32);
    return of.d * to_floats<Arch>((low | (all >> (2 * u) & 3) << 4) - 32);
  } else {
    return of.d;
  }
}

// [rows] what the sum of group g of the block is multiplied by before: small_scales.
template <typename Arch, typename F>
inline typename strip<Arch>::i32 small_scale(const strip_block<Arch, F>& b, int g) {
  using u32 = typename strip<Arch>::u32;
  using i32 = typename strip<Arch>::i32;
  using namespace formats;
  if constexpr (std::is_same_v<F, q2_k>) {
    return reinterpret_cast<i32>(b.template words<1>(g / 4) >> (8 * (g % 4)) & 15);
  } else if constexpr (std::is_same_v<F, q3_k>) {
    const u32 low = b.template words<2>(g % 8 / 4) >> (8 * (g % 4) + 4 * (g / 8)) & 15;
    const u32 high = b.template words<2>(2) >> (8 * (g % 4) + 2 * (g / 4)) & 3;
    return reinterpret_cast<i32>((low | high << 4) - 32);
  } else {
    static_assert(std::is_same_v<F, q6_k>);
    return reinterpret_cast<i32>(b.template words<2>(g / 4)) << (24 - 8 * (g % 4)) >> 24;
  }
}

// [rows] what the sum of the activations of group g of the block is multiplied by.
template <typename Arch, typename F>
inline typename strip<Arch>::f32 group_offset(const strip_block<Arch, F>& b,
                                              const block_scales<Arch>& of, int g) {
  using namespace formats;
  if constexpr (!has_strip_fields<F>) {
    return defined_scale(b, g, &affine::offset);
  } else if constexpr (std::is_same_v<F, q2_k>) {
    return of.m * to_floats<Arch>(b.template words<1>(g / 4) >> (8 * (g % 4) + 4) & 15);
  } else if constexpr (std::is_same_v<F, q4_k> || std::is_same_v<F, q5_k>) {
    return of.m * to_floats<Arch>(six_bits(b, g, true));
  } else {
    return of.m;
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
