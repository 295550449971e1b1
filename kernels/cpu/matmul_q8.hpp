// Quantised weights times int8 activations.
//
// A stretch of `tile_rows` rows is unpacked to bytes and float scales in a buffer that fits L1,
// then multiplied with all tokens. A result is the sum, stretch by stretch, of eight float lanes
// that run over the stretch's units of 32 columns; nothing in that order depends on how many rows
// or tokens are worked on together.
#pragma once

#include <cstdint>
#include <nibble/formats/concepts.hpp>

#include "cpu/dot.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/unpack.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int unit = 32;       // columns that share an activation scale
inline constexpr int stretch = 2048;  // columns unpacked at a time, a multiple of all blocks
inline constexpr int units = stretch / unit;

// A stretch of one row.
template <typename F>
struct unpacked {
  static constexpr bool split_units = F::group_size < unit;  // two groups of 16 in a unit
  static constexpr int groups = stretch / F::group_size;
  static_assert(F::group_size == 16 || F::group_size == unit);
  static_assert(stretch % F::block_size == 0);

  alignas(64) std::int8_t codes[stretch];
  float scales[groups];
  float offsets[F::has_offset ? groups : 1];  // one a group; up to a multiple of eight, zeros
};

// Unpacks columns [first, first + n) of a row.
template <typename Arch, typename F>
inline void unpack_stretch(const void* row, std::int64_t first, int n, unpacked<F>& to) {
  using block = typename F::block;
  constexpr int groups = F::block_size / F::group_size;
  const auto* from = static_cast<const block*>(row) + first / F::block_size;
  int g = 0;
  for (int at = 0; at < n; at += F::block_size, ++from) {
    unpack_codes<Arch, F>(*from, to.codes + at);
    if constexpr (requires { fast_scales(*from, to.scales, to.offsets); }) {
      // without offsets nothing is written there
      fast_scales(*from, to.scales + g, to.offsets + (F::has_offset ? g : 0));
    } else {
      // apart, so that each loop can become vector code
      for (int i = 0; i < groups; ++i) to.scales[g + i] = F::scale(*from, i).scale;
      if constexpr (F::has_offset) {
        for (int i = 0; i < groups; ++i) to.offsets[g + i] = F::scale(*from, i).offset;
      }
    }
    g += groups;
  }
  if constexpr (F::has_offset) {
    for (; g % 8 != 0; ++g) to.offsets[g] = 0;
  }
}

// A stretch of one token.
struct activations {
  const std::int8_t* q;
  const float* scale;
  const std::int16_t* sum;
};

inline activations stretch_of(const cpu::q8_matrix& x, std::int64_t token, std::int64_t first) {
  const std::int64_t at = token * x.columns + first;
  return {x.q + at, x.scale + at / 32, x.sum + at / 16};
}

// out[g] = activation scale * sum of activations in group g: what a weight offset multiplies.
template <typename F>
inline void scaled_sums(const activations& x, int n, float* out) {
  int g = 0;
  for (; g < n / F::group_size; ++g) {
    if constexpr (unpacked<F>::split_units) {
      out[g] = x.scale[g / 2] * static_cast<float>(x.sum[g]);
    } else {
      out[g] = x.scale[g] * static_cast<float>(x.sum[2 * g] + x.sum[2 * g + 1]);
    }
  }
  for (; g % 8 != 0; ++g) out[g] = 0;
}

// sums[t][r] = rows[r] . x[t] over one stretch.
template <typename Arch, typename F, int Rows, int Tokens>
inline void multiply_stretch(const unpacked<F>* rows, const activations* x, int n,
                             float (&sums)[Tokens][Rows]) {
  using lanes = eight<Arch>;
  using weight = typename bytes<Arch>::template weight<(F::min_code < 0)>;
  lanes acc[Tokens][Rows];
  for (auto& token : acc) {
    for (lanes& a : token) a = lanes::broadcast(0);
  }
  for (int u = 0; u < n / unit; ++u) {
    unrolled<Rows>([&](auto r) {
      const weight w(bytes<Arch>::load(rows[r].codes + u * unit));
      lanes scale;
      if constexpr (unpacked<F>::split_units) {
        scale = lanes::halves(rows[r].scales[2 * u], rows[r].scales[2 * u + 1]);
      } else {
        scale = lanes::broadcast(rows[r].scales[u]);
      }
      unrolled<Tokens>([&](auto t) {
        const lanes products = w.dot(bytes<Arch>::load(x[t].q + u * unit));
        acc[t][r] = mul_add(products, scale * lanes::broadcast(x[t].scale[u]), acc[t][r]);
      });
    });
  }
  if constexpr (F::has_offset) {
    unrolled<Tokens>([&](auto t) {
      float scaled[unpacked<F>::groups];
      scaled_sums<F>(x[t], n, scaled);
      for (int g = 0; g < n / F::group_size; g += 8) {
        const lanes y = lanes::load(scaled + g);
        unrolled<Rows>(
            [&](auto r) { acc[t][r] = mul_add(lanes::load(rows[r].offsets + g), y, acc[t][r]); });
      }
    });
  }
  unrolled<Tokens>(
      [&](auto t) { unrolled<Rows>([&](auto r) { sums[t][r] = lane_sum(acc[t][r]); }); });
}

// Adds a stretch of `Rows` rows to the outputs of `Tokens` tokens.
template <typename Arch, typename F, int Rows, int Tokens>
inline void add_stretch(const unpacked<F>* rows, const cpu::q8_matrix& x, std::int64_t token,
                        std::int64_t first, int n, float* out, std::int64_t out_stride) {
  activations tile[Tokens];
  for (int t = 0; t < Tokens; ++t) tile[t] = stretch_of(x, token + t, first);
  float sums[Tokens][Rows];
  multiply_stretch<Arch, F>(rows, tile, n, sums);
  for (int t = 0; t < Tokens; ++t) {
    float* const to = out + (token + t) * out_stride;
    for (int r = 0; r < Rows; ++r) to[r] = first == 0 ? sums[t][r] : to[r] + sums[t][r];
  }
}

template <typename Arch, typename F, int Rows>
inline void multiply_rows(const unsigned char* data, std::size_t stride, const cpu::q8_matrix& x,
                          std::int64_t tokens, float* out, std::int64_t out_stride) {
  constexpr int tile_tokens = 2;
  unpacked<F> rows[Rows];
  for (std::int64_t first = 0; first < x.columns; first += stretch) {
    const int n = static_cast<int>(least<std::int64_t>(stretch, x.columns - first));
    for (int r = 0; r < Rows; ++r) {
      unpack_stretch<Arch, F>(data + static_cast<std::size_t>(r) * stride, first, n, rows[r]);
    }
    std::int64_t t = 0;
    for (; t + tile_tokens <= tokens; t += tile_tokens) {
      add_stretch<Arch, F, Rows, tile_tokens>(rows, x, t, first, n, out, out_stride);
    }
    for (; t < tokens; ++t) {
      add_stretch<Arch, F, Rows, 1>(rows, x, t, first, n, out, out_stride);
    }
  }
}

// See cpu::matmul_q8_fn.
template <typename Arch, typename F>
void matmul_q8(const cpu::weight_rows& rows, const cpu::q8_matrix& x, std::int64_t tokens,
               float* out, std::int64_t out_stride) {
  constexpr int tile_rows = 4;
  const auto* data = static_cast<const unsigned char*>(rows.data);
  const auto at = [&](std::int64_t r) { return data + static_cast<std::size_t>(r) * rows.stride; };
  std::int64_t r = 0;
  for (; r + tile_rows <= rows.count; r += tile_rows) {
    multiply_rows<Arch, F, tile_rows>(at(r), rows.stride, x, tokens, out + r, out_stride);
  }
  for (; r < rows.count; ++r) {
    multiply_rows<Arch, F, 1>(at(r), rows.stride, x, tokens, out + r, out_stride);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
