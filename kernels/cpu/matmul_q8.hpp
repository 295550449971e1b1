// Packed weights times int8 activations.
//
// A result is one chain of float operations over the units of 32 columns of a stretch of 512: the
// exact integer sum of a unit times the scale of the activations, rounded, times the scale of the
// weights is added, then the offset of each of its groups times the sum of the activations. The
// stretches are added up in order. The chain is the same for any number of tokens and on every
// instruction set, save for operations that one fuses and another does not.
//
// Few tokens use the codes where they are unpacked, in registers; many take the way of
// matmul_q8_tile.hpp.
#pragma once

#include <cstdint>

#include "cpu/dot.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/strip_codes.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

template <typename Arch>
inline constexpr product_kind products_of = byte_products<Arch>::kind;

// What is added to the format's codes before they are multiplied.
template <typename Arch, typename F>
inline constexpr int product_bias = products_of<Arch> == product_kind::signed_codes ? 0
                                    : !wide_codes<F>                                ? code_bias<F>
                                    : products_of<Arch> == product_kind::quads      ? 128
                                                                                    : 0;

// From what unit_codes() gives to what is multiplied.
template <typename Arch, typename F>
inline void to_product_codes(typename strip<Arch>::u8 (&c)[unit_words]) {
  if constexpr (products_of<Arch> == product_kind::signed_codes && code_bias<F> != 0) {
    NIBBLE_UNROLL for (auto& v : c) v -= static_cast<std::uint8_t>(code_bias<F>);
  } else if constexpr (products_of<Arch> == product_kind::quads && wide_codes<F>) {
    NIBBLE_UNROLL for (auto& v : c) v ^= 128;
  }
}

// How many vectors of pairs of products may be added in 16 bits: each has two products of a code
// with an activation of up to 127. A power of two, so that it divides a group's words.
template <typename F>
constexpr int pairs_in_16_bits() {
  constexpr int most = 32767 / (2 * 127 * (F::max_code - F::min_code));
  return most >= 8 ? 8 : most >= 4 ? 4 : most >= 2 ? 2 : 1;
}

inline constexpr int stretch = static_cast<int>(cpu::q8_stretch);  // a multiple of all blocks

// A stretch of one token.
struct activations {
  const std::int8_t* q;
  const float* scale;
  const std::int16_t* sum;
};

inline activations token_of(const cpu::q8_matrix& x, std::int64_t token, std::int64_t first) {
  const std::int64_t at = token * x.columns + first;
  return {x.q + at, x.scale + at / 32, x.sum + at / 16};
}

// The same 16 bits in both halves of each row's lane, or those of two groups.
template <typename Arch>
inline typename strip<Arch>::i16 pairs_of(const typename strip<Arch>::i32& low,
                                          const typename strip<Arch>::i32& high) {
  return reinterpret_cast<typename strip<Arch>::i16>((low & 0xffff) | high << 16);
}

// What the sums of one unit need beside its codes and floats.
template <typename Arch, typename F>
struct unit_integers {
  using i32 = typename strip<Arch>::i32;
  using i16 = typename strip<Arch>::i16;
  static constexpr int bias = product_bias<Arch, F>;
  static constexpr bool by_pairs = products_of<Arch> == product_kind::pairs;

  // of small_scales: as it multiplies pairs of sums, or sums
  std::conditional_t<by_pairs, i16, i32> scale[unit_groups<F>];
  i16 start;  // what the sums of the activations of its halves are multiplied by, for the bias

  unit_integers(const strip_block<Arch, F>& b, int u) {
    if constexpr (small_scales<F>) {
      const i32 first = small_scale(b, 2 * u), second = small_scale(b, 2 * u + 1);
      if constexpr (by_pairs) {
        scale[0] = pairs_of<Arch>(first, first);
        scale[1] = pairs_of<Arch>(second, second);
      } else {
        scale[0] = first;
        scale[1] = second;
      }
      // at most 128 * 32
      start = pairs_of<Arch>(first, second) * static_cast<std::int16_t>(-bias);
    } else {
      start = static_cast<std::int16_t>(-bias) - i16{};
    }
  }
};

// [rows] factors (of the lower and the upper half of a unit) times the sums of the activations.
template <typename Arch>
inline typename strip<Arch>::i32 times_sums(const typename strip<Arch>::i16& factors,
                                            const void* sums) {
  return byte_products<Arch>::multiply_pairs(
      reinterpret_cast<typename strip<Arch>::i16>(broadcast_word<Arch>(sums)), factors);
}

// [rows] the sum of the activations of group g of a unit, of whose halves `sums` are.
template <typename Arch, typename F>
inline typename strip<Arch>::i32 group_sum(const std::int16_t* sums, int g) {
  const std::int32_t halves = unit_groups<F> == 1 ? 0x10001 : g == 0 ? 1 : 0x10000;
  const auto ones = halves - typename strip<Arch>::i32{};
  return times_sums<Arch>(reinterpret_cast<typename strip<Arch>::i16>(ones), sums);
}

template <typename Arch>
inline typename strip<Arch>::i32 add_pairs(const typename strip<Arch>::i32& sum,
                                           const typename strip<Arch>::i16& pairs,
                                           const typename strip<Arch>::i16& scale) {
  return sum + byte_products<Arch>::multiply_pairs(pairs, scale);
}

// sum + codes . x over the words of a group, times its scale, for few tokens. On its way a unit's
// sum stays below 2^26, as sums of pairs do not exceed 2^15 nor small scales 2^7. At its end it is
// 32 x 32 x 127 x 128 = 16,646,144 at most (Q6_K), less than 2^24, and so exact as a float.
template <typename Arch, typename F>
inline typename strip<Arch>::i32 add_group(typename strip<Arch>::i32 sum,
                                           const typename strip<Arch>::u8* codes,
                                           const std::int8_t* x,
                                           const unit_integers<Arch, F>& integers, int g) {
  using dot = byte_products<Arch>;
  using lanes = strip<Arch>;
  constexpr int words = F::group_size / 4;
  if constexpr (dot::kind == product_kind::pairs) {
    constexpr int run = wide_codes<F> ? 1 : least(pairs_in_16_bits<F>(), words);
    NIBBLE_UNROLL for (int w = 0; w < words; w += run) {
      typename lanes::i16 pairs{};
      NIBBLE_UNROLL for (int i = w; i < w + run; ++i) {
        const auto y = broadcast_word<Arch>(x + 4 * i);
        pairs += wide_codes<F> ? dot::multiply_signed(codes[i], y) : dot::multiply(codes[i], y);
        pin<Arch>(pairs);
      }
      sum = add_pairs<Arch>(sum, pairs,
                            small_scales<F> ? integers.scale[g] : 1 - typename lanes::i16{});
    }
    return sum;
  } else {
    typename lanes::i32 own{};
    if constexpr (!small_scales<F>) own = sum;
    NIBBLE_UNROLL for (int w = 0; w < words; ++w) {
      own = dot::add(own, codes[w], broadcast_word<Arch>(x + 4 * w));
    }
    if constexpr (small_scales<F>) return sum + own * integers.scale[g];
    return own;
  }
}

// The two places that say how a stretch is added up. product: the sum of a unit times the scale of
// the activations, rounded; x_sum: the sum of a group of them, scaled.
template <typename Arch>
inline void add_unit(const typename strip<Arch>::f32& product,
                     const typename strip<Arch>::f32& scale, typename strip<Arch>::f32& acc) {
  acc = fused<Arch>::mul_add(product, scale, acc);
}
template <typename Arch>
inline void add_offset(const typename strip<Arch>::f32& offset,
                       const typename strip<Arch>::f32& x_sum, typename strip<Arch>::f32& acc) {
  acc = fused<Arch>::mul_add(offset, x_sum, acc);
}

// acc[t] += strip . x[t] over columns [at, end), at most a stretch; returns what follows in
// `packed`
template <typename Arch, typename F, int Tokens>
inline const unsigned char* multiply_stretch(const unsigned char* packed, std::int64_t at,
                                             std::int64_t end, const activations (&x)[Tokens],
                                             typename strip<Arch>::f32 (&acc)[Tokens]) {
  using lanes = strip<Arch>;
  constexpr int groups = unit_groups<F>;
  constexpr int bias = product_bias<Arch, F>;
  constexpr int units = F::block_size / unit;
  constexpr std::size_t block_bytes = sizeof(typename F::block) * lanes::rows;
  while (at < end) {
    const strip_block<Arch, F> block{packed};
    const auto scales = read_block_scales(block);
    NIBBLE_UNROLL_UNITS for (int u = 0; u < units; ++u, at += unit) {
      // bit by bit: all lines of a large block at once would have to wait for each other
      fetch_ahead<block_bytes / units>(packed + u * (block_bytes / units));
      const strip_block<Arch, F> again{forget(packed)};
      typename lanes::u8 codes[unit_words];
      unit_codes(again, u, codes);
      to_product_codes<Arch, F>(codes);
      const unit_integers<Arch, F> integers(again, u);
      const typename lanes::f32 scale = unit_scale(again, scales, u);
      NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
        const std::int16_t* const sums = x[t].sum + at / 16;
        typename lanes::i32 sum{};
        if constexpr (bias != 0) sum = times_sums<Arch>(integers.start, sums);
        NIBBLE_UNROLL for (int g = 0; g < groups; ++g) {
          sum = add_group<Arch, F>(sum, codes + g * F::group_size / 4,
                                   x[t].q + at + g * F::group_size, integers, g);
        }
        const auto xs = broadcast<Arch>(x[t].scale[at / unit]);
        add_unit<Arch>(to_floats<Arch>(sum) * xs, scale, acc[t]);
        if constexpr (F::has_offset) {
          NIBBLE_UNROLL for (int g = 0; g < groups; ++g) {
            add_offset<Arch>(group_offset(again, scales, groups * u + g),
                             xs * to_floats<Arch>(group_sum<Arch, F>(sums, g)), acc[t]);
          }
        }
      }
    }
    packed += block_bytes;
  }
  return packed;
}

// `n` rows of one strip for tokens [first, first + Tokens).
template <typename Arch, typename F, int Tokens>
inline void few_tokens(const unsigned char* packed, int n, const cpu::q8_matrix& x,
                       std::int64_t first, const cpu::product_output& out) {
  activations tokens[Tokens];
  typename strip<Arch>::f32 acc[Tokens];
  for (int t = 0; t < Tokens; ++t) {
    tokens[t] = token_of(x, first + t, 0);
    acc[t] = broadcast<Arch>(0);
    if (out.accumulate) {
      std::memcpy(&acc[t], out.data + (first + t) * out.stride, static_cast<std::size_t>(n) * 4);
    }
  }
  for (std::int64_t at = 0; at < x.columns; at += stretch) {
    typename strip<Arch>::f32 part[Tokens] = {};
    packed =
        multiply_stretch<Arch, F, Tokens>(packed, at, least(at + stretch, x.columns), tokens, part);
    for (int t = 0; t < Tokens; ++t) acc[t] += part[t];
  }
  for (int t = 0; t < Tokens; ++t) {
    std::memcpy(out.data + (first + t) * out.stride, &acc[t], static_cast<std::size_t>(n) * 4);
  }
}

template <typename Arch, typename F>
inline void multiply_few(const cpu::packed_rows& rows, const cpu::q8_matrix& x, std::int64_t tokens,
                         cpu::product_output out) {
  constexpr std::int64_t all = strip_rows<Arch>;
  const auto* packed = static_cast<const unsigned char*>(rows.data);
  const auto step =
      static_cast<std::size_t>(x.columns / F::block_size * all) * sizeof(typename F::block);
  for (std::int64_t r = 0; r < rows.count; r += all, packed += step, out.data += all) {
    const int n = static_cast<int>(least(all, rows.count - r));
    std::int64_t t = 0;
    for (; t + 4 <= tokens; t += 4) few_tokens<Arch, F, 4>(packed, n, x, t, out);
    for (; t + 2 <= tokens; t += 2) few_tokens<Arch, F, 2>(packed, n, x, t, out);
    for (; t < tokens; ++t) few_tokens<Arch, F, 1>(packed, n, x, t, out);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
