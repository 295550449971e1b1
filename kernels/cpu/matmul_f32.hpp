// Weights of any format times float activations.
//
// A stretch of `tile_rows` rows is decoded to floats, then multiplied with all tokens. A stretch is
// summed in the lanes of four vectors or more; its result does not depend on how many rows or
// tokens are worked on together.
#pragma once

#include <cstdint>
#include <nibble/formats/concepts.hpp>

#include "cpu/kernel_table.hpp"
#include "cpu/unpack.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int float_stretch = 512;  // columns decoded at a time

// sums[t][r] = rows[r] . x[t] over n <= float_stretch columns; rows: [Rows, float_stretch], padded
// with zeros to a multiple of the width. Even and odd vectors add up apart: shorter chains, less
// rounding.
template <typename Floats, int Rows, int Tokens>
inline void multiply_floats(const float* rows, const float* x, std::int64_t x_stride, int n,
                            float (&sums)[Tokens][Rows]) {
  constexpr int width = static_cast<int>(Floats::size);
  Floats acc[2][Tokens][Rows];
  for (auto& half_sum : acc) {
    for (auto& token : half_sum) {
      for (Floats& a : token) a = Floats(0.0f);
    }
  }
  const auto step = [&](int i, Floats(&into)[Tokens][Rows], auto load_x) {
    Floats w[Rows];
    for (int r = 0; r < Rows; ++r) w[r] = Floats::load_unaligned(rows + r * float_stretch + i);
    for (int t = 0; t < Tokens; ++t) {
      const Floats y = load_x(x + t * x_stride + i);
      for (int r = 0; r < Rows; ++r) into[t][r] = mul_add(w[r], y, into[t][r]);
    }
  };
  const auto whole = [](const float* from) { return Floats::load_unaligned(from); };
  int i = 0;
  for (; i + 2 * width <= n; i += 2 * width) {
    step(i, acc[0], whole);
    step(i + width, acc[1], whole);
  }
  for (; i + width <= n; i += width) step(i, acc[0], whole);
  if (i < n) {
    step(i, acc[1], [&](const float* from) { return load_part<Floats>(from, n - i); });
  }
  for (int t = 0; t < Tokens; ++t) {
    for (int r = 0; r < Rows; ++r) sums[t][r] = lane_sum(acc[0][t][r] + acc[1][t][r]);
  }
}

template <typename Arch, typename F, int Rows>
inline void multiply_float_rows(const unsigned char* data, const cpu::weight_rows& shape,
                                const float* x, std::int64_t x_stride, std::int64_t tokens,
                                float* out, std::int64_t out_stride) {
  using floats = typename Arch::floats;
  constexpr int tile_tokens = 2;
  alignas(64) float rows[Rows * float_stretch];
  for (std::int64_t first = 0; first < shape.columns; first += float_stretch) {
    const int n = static_cast<int>(least<std::int64_t>(float_stretch, shape.columns - first));
    for (int r = 0; r < Rows; ++r) {
      float* const row = rows + r * float_stretch;
      decode_stretch<Arch, F>(data + static_cast<std::size_t>(r) * shape.stride, first, n, row);
      for (int i = n; i % static_cast<int>(floats::size) != 0; ++i) row[i] = 0;
    }
    const auto tile = [&]<int Tokens>(std::int64_t t, float(&sums)[Tokens][Rows]) {
      multiply_floats<floats, Rows, Tokens>(rows, x + t * x_stride + first, x_stride, n, sums);
      for (int i = 0; i < Tokens; ++i) {
        float* const to = out + (t + i) * out_stride;
        for (int r = 0; r < Rows; ++r) to[r] = first == 0 ? sums[i][r] : to[r] + sums[i][r];
      }
    };
    std::int64_t t = 0;
    for (float sums[tile_tokens][Rows]; t + tile_tokens <= tokens; t += tile_tokens) tile(t, sums);
    for (float sums[1][Rows]; t < tokens; ++t) tile(t, sums);
  }
}

// See cpu::matmul_f32_fn.
template <typename Arch, typename F>
void matmul_f32(const cpu::weight_rows& rows, const float* x, std::int64_t x_stride,
                std::int64_t tokens, float* out, std::int64_t out_stride) {
  constexpr int tile_rows = 2;
  const auto* data = static_cast<const unsigned char*>(rows.data);
  const auto at = [&](std::int64_t r) { return data + static_cast<std::size_t>(r) * rows.stride; };
  std::int64_t r = 0;
  for (; r + tile_rows <= rows.count; r += tile_rows) {
    multiply_float_rows<Arch, F, tile_rows>(at(r), rows, x, x_stride, tokens, out + r, out_stride);
  }
  for (; r < rows.count; ++r) {
    multiply_float_rows<Arch, F, 1>(at(r), rows, x, x_stride, tokens, out + r, out_stride);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
