// Packed weights times int8 activations.
//
// A result is one chain of float operations over the units of 32 columns: the exact integer sum of
// a group, times its scale and that of the activations, is added, then its offset times the sum of
// the activations. The chain is the same for any number of tokens and on every instruction set,
// save for operations that one fuses and another does not.
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

// [rows] factor * the sum of the activations in group g of a unit; sums: two of 16 columns.
template <typename Arch, typename F>
inline typename strip<Arch>::i32 group_sum(const std::int16_t* sums, int g, std::int16_t factor) {
  using i32 = typename strip<Arch>::i32;
  using i16 = typename strip<Arch>::i16;
  const std::uint32_t f = static_cast<std::uint16_t>(factor);
  const std::uint32_t both = unit_groups<F> == 1 ? f | f << 16 : g == 0 ? f : f << 16;
  const i32 factors = static_cast<std::int32_t>(both) - i32{};
  return byte_products<Arch>::multiply_pairs(reinterpret_cast<i16>(broadcast_word<Arch>(sums)),
                                             reinterpret_cast<i16>(factors));
}

template <typename Arch>
inline typename strip<Arch>::i32 add_pairs(const typename strip<Arch>::i32& sum,
                                           const typename strip<Arch>::i16& pairs) {
  return sum + byte_products<Arch>::multiply_pairs(pairs, 1 - typename strip<Arch>::i16{});
}

// sum + codes . x over the words of a group, for few tokens.
template <typename Arch, typename F>
inline typename strip<Arch>::i32 add_group(typename strip<Arch>::i32 sum,
                                           const typename strip<Arch>::u8* codes,
                                           const std::int8_t* x) {
  using dot = byte_products<Arch>;
  constexpr int words = F::group_size / 4;
  if constexpr (dot::kind == product_kind::pairs) {
    constexpr int run = wide_codes<F> ? 1 : least(pairs_in_16_bits<F>(), words);
    NIBBLE_UNROLL for (int w = 0; w < words; w += run) {
      typename strip<Arch>::i16 pairs{};
      NIBBLE_UNROLL for (int i = w; i < w + run; ++i) {
        const auto y = broadcast_word<Arch>(x + 4 * i);
        pairs += wide_codes<F> ? dot::multiply_signed(codes[i], y) : dot::multiply(codes[i], y);
        pin<Arch>(pairs);
      }
      sum = add_pairs<Arch>(sum, pairs);
    }
  } else {
    NIBBLE_UNROLL for (int w = 0; w < words; ++w) {
      sum = dot::add(sum, codes[w], broadcast_word<Arch>(x + 4 * w));
    }
  }
  return sum;
}

// The floats of one group of one token: the only place that says how a result is added up. xs: the
// scale of the activations; x_sum: their sum, scaled, for formats with an offset.
template <typename Arch, typename F>
inline void add_scaled_group(const typename strip<Arch>::i32& sum,
                             const typename strip<Arch>::f32& scale,
                             const typename strip<Arch>::f32& offset,
                             const typename strip<Arch>::f32& xs,
                             const typename strip<Arch>::f32& x_sum,
                             typename strip<Arch>::f32& acc) {
  acc = fused<Arch>::mul_add(to_floats<Arch>(sum), scale * xs, acc);
  if constexpr (F::has_offset) acc = fused<Arch>::mul_add(offset, x_sum, acc);
}

// acc[t] += strip . x[t]
template <typename Arch, typename F, int Tokens>
inline void multiply_strip(const unsigned char* packed, std::int64_t columns,
                           const activations (&x)[Tokens],
                           typename strip<Arch>::f32 (&acc)[Tokens]) {
  using lanes = strip<Arch>;
  constexpr int groups = unit_groups<F>;
  constexpr int bias = product_bias<Arch, F>;
  constexpr int units = F::block_size / unit;
  std::int64_t at = 0;
  for (std::int64_t b = 0; b < columns / F::block_size; ++b) {
    fetch_ahead<sizeof(typename F::block) * lanes::rows>(packed);
    const strip_block<Arch, F> block{packed};
    const auto scales = read_block_scales(block);
    NIBBLE_UNROLL_UNITS for (int u = 0; u < units; ++u, at += unit) {
      const strip_block<Arch, F> again{forget(packed)};
      typename lanes::u8 codes[unit_words];
      unit_codes(again, u, codes);
      to_product_codes<Arch, F>(codes);
      typename lanes::f32 scale[groups], offset[groups];
      unit_scales(again, scales, u, scale, offset);
      NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
        NIBBLE_UNROLL for (int g = 0; g < groups; ++g) {
          const std::int16_t* const sums = x[t].sum + at / 16;
          typename lanes::i32 sum{};
          if constexpr (bias != 0) sum = group_sum<Arch, F>(sums, g, -bias);
          sum = add_group<Arch, F>(sum, codes + g * F::group_size / 4,
                                   x[t].q + at + g * F::group_size);
          const auto xs = broadcast<Arch>(x[t].scale[at / unit]);
          typename lanes::f32 x_sum{};
          if constexpr (F::has_offset) {
            x_sum = xs * to_floats<Arch>(group_sum<Arch, F>(sums, g, 1));
          }
          add_scaled_group<Arch, F>(sum, scale[g], offset[g], xs, x_sum, acc[t]);
        }
      }
    }
    packed += sizeof(typename F::block) * lanes::rows;
  }
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
  multiply_strip<Arch, F, Tokens>(packed, x.columns, tokens, acc);
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
