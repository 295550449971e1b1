// Weights of any format times float activations.
//
// The unit of work is a tile: four rows times a few tokens over a stretch of columns, summed in as
// many vectors as the tile has results, so that each loaded vector serves several products and no
// sum leaves its register. A panel of rows is decoded to floats once for all tokens; with no more
// tokens than a tile has, rows of floats are used where they lie.
//
// A result is the sum, stretch by stretch, of the lanes of one vector that runs over the stretch.
// Nothing in that order depends on how many rows or tokens are worked on together.
#pragma once

#include <cstdint>
#include <nibble/formats/concepts.hpp>

#include "cpu/kernel_table.hpp"
#include "cpu/unpack.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// How products of floats are cut. A panel fits the nearest cache beside the tokens of a tile, a
// block of tokens the next one; the sums of a tile, its tokens and a weight fit the registers.
template <typename Floats>
struct float_blocking {
  static constexpr int width = static_cast<int>(Floats::size);
  static constexpr int rows = 4;  // of a tile; see lane_sums
  static constexpr int tokens = vector_registers<Floats> == 32 ? 6 : width == 4 ? 2 : 3;
  static constexpr int stretch = width == 16 ? 512 : 256;  // columns, a multiple of every block
  static constexpr int panel_rows = 4096 / stretch;
  static constexpr int block_tokens = width == 16 ? 48 : 64;  // whole tiles, best
  static constexpr int few_tokens = 8;  // which do not repay a panel of decoded floats
};

// acc[t][r] += rows[r] * x[t] for one vector of columns.
template <typename Floats, int Tokens, int Rows, typename Storage>
[[gnu::always_inline]] inline void multiply_vector(const Storage* rows, std::int64_t row_stride,
                                                   const float* x, std::int64_t x_stride,
                                                   Floats (&acc)[Tokens][Rows]) {
  Floats y[Tokens];
  unrolled<Tokens>([&](auto t) { y[t] = load<Floats>(x + t * x_stride); });
  unrolled<Rows>([&](auto r) {
    const Floats w = load<Floats>(rows + r * row_stride);
    unrolled<Tokens>([&](auto t) { acc[t][r] = mul_add(w, y[t], acc[t][r]); });
  });
}

// Copies columns that do not fill a vector, with zeros after them.
template <int Width, typename Storage>
inline void copy_tail(const Storage* from, std::int64_t stride, int n, int count, Storage* to) {
  for (int k = 0; k < count; ++k) {
    for (int i = 0; i < Width; ++i) to[k * Width + i] = i < n ? from[k * stride + i] : Storage{};
  }
}

// sums[t][r] = rows[r] . x[t] over n columns; row r starts `row_stride` values after the one
// before. Storage is that of an element format.
template <typename Floats, int Tokens, int Rows, typename Storage>
inline void multiply_tile(const Storage* rows, std::int64_t row_stride, const float* x,
                          std::int64_t x_stride, int n, float (&sums)[Tokens][Rows]) {
  constexpr int width = static_cast<int>(Floats::size);
  Floats acc[Tokens][Rows];
  unrolled<Tokens>([&](auto t) { unrolled<Rows>([&](auto r) { acc[t][r] = Floats(0.0f); }); });
  int i = 0;
  for (; i + width <= n; i += width) {
    multiply_vector(rows + i, row_stride, x + i, x_stride, acc);
  }
  if (i < n) {
    Storage last_rows[Rows * width];
    float last_x[Tokens * width];
    copy_tail<width>(rows + i, row_stride, n - i, Rows, last_rows);
    copy_tail<width>(x + i, x_stride, n - i, Tokens, last_x);
    multiply_vector(last_rows, width, last_x, width, acc);
  }
  unrolled<Tokens>([&](auto t) { lane_sums(acc[t], sums[t]); });
}

// A stretch of `Rows` rows times `Tokens` tokens, added to the outputs unless it is the first.
template <typename Floats, int Tokens, int Rows, typename Storage>
inline void add_tile(const Storage* rows, std::int64_t row_stride, const float* x,
                     std::int64_t x_stride, int n, bool first, float* out,
                     std::int64_t out_stride) {
  float sums[Tokens][Rows];
  multiply_tile<Floats>(rows, row_stride, x, x_stride, n, sums);
  for (int t = 0; t < Tokens; ++t) {
    float* const to = out + t * out_stride;
    for (int r = 0; r < Rows; ++r) to[r] = first ? sums[t][r] : to[r] + sums[t][r];
  }
}

// Any number of rows times `Tokens` tokens.
template <typename Floats, int Tokens, typename Storage>
inline void add_rows(const Storage* rows, std::int64_t row_stride, std::int64_t n_rows,
                     const float* x, std::int64_t x_stride, int n, bool first, float* out,
                     std::int64_t out_stride) {
  constexpr int tile = float_blocking<Floats>::rows;
  std::int64_t r = 0;
  for (; r + tile <= n_rows; r += tile) {
    add_tile<Floats, Tokens, tile>(rows + r * row_stride, row_stride, x, x_stride, n, first,
                                   out + r, out_stride);
  }
  for (; r < n_rows; ++r) {
    add_tile<Floats, Tokens, 1>(rows + r * row_stride, row_stride, x, x_stride, n, first, out + r,
                                out_stride);
  }
}

// Any number of rows times any number of tokens, a tile of `Tokens` or fewer at a time.
template <typename Floats, int Tokens, typename Storage>
inline void add_tokens(std::int64_t tokens, const Storage* rows, std::int64_t row_stride,
                       std::int64_t n_rows, const float* x, std::int64_t x_stride, int n,
                       bool first, float* out, std::int64_t out_stride) {
  std::int64_t t = 0;
  for (; t + Tokens <= tokens; t += Tokens) {
    add_rows<Floats, Tokens>(rows, row_stride, n_rows, x + t * x_stride, x_stride, n, first,
                             out + t * out_stride, out_stride);
  }
  if constexpr (Tokens > 1) {
    if (t == tokens) return;
    add_tokens<Floats, Tokens - 1>(tokens - t, rows, row_stride, n_rows, x + t * x_stride, x_stride,
                                   n, first, out + t * out_stride, out_stride);
  }
}

// Bytes of rows that are wanted soon.
struct upcoming_rows {
  const unsigned char* data;
  std::size_t stride;
  std::int64_t count;
  std::int64_t bytes;  // of each row

  // always_inline: g++ takes a function that only fetches for one without effect, and drops it
  [[gnu::always_inline]] void fetch(std::int64_t row) const {
    if (row >= count) return;
    const unsigned char* const from = data + static_cast<std::size_t>(row) * stride;
    for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
  }
};

// A stretch of a panel of decoded rows times all tokens; one function for all formats. Between
// tiles the rows of the next panel are fetched: they lie too far apart for the processor to
// guess.
template <typename Floats>
void multiply_panel(std::int64_t tokens, const float* panel, std::int64_t n_rows, const float* x,
                    std::int64_t x_stride, int n, bool first, const upcoming_rows& next, float* out,
                    std::int64_t out_stride) {
  using blocking = float_blocking<Floats>;
  constexpr std::int64_t tile = blocking::tokens;
  const std::int64_t each = (next.count * tile + tokens - 1) / tokens;
  std::int64_t fetched = 0;
  for (std::int64_t t = 0; t < tokens; t += tile) {
    for (std::int64_t i = 0; i < each; ++i) next.fetch(fetched++);
    add_tokens<Floats, blocking::tokens>(least(tile, tokens - t), panel, blocking::stretch, n_rows,
                                         x + t * x_stride, x_stride, n, first, out + t * out_stride,
                                         out_stride);
  }
}

// A stretch of some tokens, copied side by side: rows of activations lie a power of two apart as
// a rule, and would take each other's place in the caches.
template <typename Floats>
void copy_tokens(const float* x, std::int64_t x_stride, std::int64_t tokens, int n, float* to) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    map<Floats>(
        n, to + t * float_blocking<Floats>::stretch, [](const Floats& v) { return v; },
        x + t * x_stride);
  }
}

// Rows of floats of any kind, used where they lie, for few tokens.
template <typename Floats, typename Storage>
void multiply_in_place(const cpu::weight_rows& rows, const float* x, std::int64_t x_stride,
                       std::int64_t tokens, float* out, std::int64_t out_stride) {
  using blocking = float_blocking<Floats>;
  const auto* const data = static_cast<const Storage*>(rows.data);
  const auto stride = static_cast<std::int64_t>(rows.stride / sizeof(Storage));
  for (std::int64_t r = 0; r < rows.count; r += blocking::rows) {
    const std::int64_t n_rows = least<std::int64_t>(blocking::rows, rows.count - r);
    for (std::int64_t at = 0; at < rows.columns; at += blocking::stretch) {
      const int n = static_cast<int>(least<std::int64_t>(blocking::stretch, rows.columns - at));
      add_tokens<Floats, blocking::tokens>(tokens, data + r * stride + at, stride, n_rows, x + at,
                                           x_stride, n, at == 0, out + r, out_stride);
    }
  }
}

// At most block_tokens tokens.
template <typename Arch, typename F>
inline void multiply_decoded(const cpu::weight_rows& rows, const float* x, std::int64_t x_stride,
                             std::int64_t tokens, float* out, std::int64_t out_stride) {
  using floats = typename Arch::floats;
  using blocking = float_blocking<floats>;
  alignas(64) float panel[blocking::panel_rows * blocking::stretch];
  alignas(64) float block[blocking::block_tokens * blocking::stretch];
  const auto* const data = static_cast<const unsigned char*>(rows.data);
  const auto bytes_of = [](std::int64_t values) {
    return values / F::block_size * static_cast<std::int64_t>(sizeof(typename F::block));
  };
  for (std::int64_t at = 0; at < rows.columns; at += blocking::stretch) {
    const int n = static_cast<int>(least<std::int64_t>(blocking::stretch, rows.columns - at));
    const float* y = x + at;
    std::int64_t y_stride = x_stride;
    if (rows.count > blocking::panel_rows) {  // tokens pass more than once
      copy_tokens<floats>(y, x_stride, tokens, n, block);
      y = block;
      y_stride = blocking::stretch;
    }
    for (std::int64_t r = 0; r < rows.count; r += blocking::panel_rows) {
      const std::int64_t n_rows = least<std::int64_t>(blocking::panel_rows, rows.count - r);
      for (std::int64_t i = 0; i < n_rows; ++i) {
        decode_stretch<Arch, F>(data + static_cast<std::size_t>(r + i) * rows.stride, at, n,
                                panel + i * blocking::stretch);
      }
      const bool same = r + n_rows < rows.count;  // stretch
      const std::int64_t next_row = same ? r + n_rows : 0;
      const std::int64_t next_at = same ? at : at + n;
      const upcoming_rows next = {
          data + static_cast<std::size_t>(next_row) * rows.stride + bytes_of(next_at), rows.stride,
          least<std::int64_t>(blocking::panel_rows, rows.count - next_row),
          bytes_of(least<std::int64_t>(blocking::stretch, rows.columns - next_at))};
      multiply_panel<floats>(tokens, panel, n_rows, y, y_stride, n, at == 0, next, out + r,
                             out_stride);
    }
  }
}

// See cpu::matmul_f32_fn.
template <typename Arch, typename F>
void matmul_f32(const cpu::weight_rows& rows, const float* x, std::int64_t x_stride,
                std::int64_t tokens, float* out, std::int64_t out_stride) {
  using floats = typename Arch::floats;
  using blocking = float_blocking<floats>;
  if constexpr (element_format<F>) {
    if (tokens <= blocking::few_tokens) {
      return multiply_in_place<floats, typename F::block>(rows, x, x_stride, tokens, out,
                                                          out_stride);
    }
  }
  for (std::int64_t t = 0; t < tokens; t += blocking::block_tokens) {
    multiply_decoded<Arch, F>(rows, x + t * x_stride, x_stride,
                              least<std::int64_t>(blocking::block_tokens, tokens - t),
                              out + t * out_stride, out_stride);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
