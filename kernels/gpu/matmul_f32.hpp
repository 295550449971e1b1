// Products with float activations and weights of any format, which are decoded to floats on the
// way.
//
// A few tokens: a warp takes a row of a matrix, and each lane a unit of its columns at a time.
// Many: a block takes a tile of rows and tokens, and each thread a smaller one in registers.
#pragma once

#include "gpu/dialect.hpp"
#include "gpu/products.hpp"
#include "gpu/unit.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using gpu::unit_columns;

// ---- few tokens ----

inline constexpr int f32_row_threads = 256;
inline constexpr int f32_row_tokens = 4;

// A unit in shared memory: 16 bytes more, so that lanes which read 16 bytes each of units in a row
// meet all banks.
inline constexpr int padded_unit = unit_columns + 4;

// Rows of a block, and its shared memory.
inline int f32_rows_of_block(const gpu::device_facts& facts) {
  return f32_row_threads / facts.warp;
}
inline std::size_t f32_row_shared(const gpu::device_facts& facts) {
  return sizeof(float) * f32_row_tokens * padded_unit * static_cast<std::size_t>(facts.warp);
}

// Activations of a unit for each lane, from column `first` on: x[token][unit][column]. Columns
// beyond the last are 0.
NIBBLE_DEVICE void stage_row_activations(const float* in, std::int64_t columns, std::int64_t first,
                                         const chosen_rows& rows, std::int64_t begin, int n,
                                         float* x) {
  constexpr int width = warp_size * unit_columns;
  for (int t = 0; t < n; ++t) {
    const float* const from = in + rows.input(begin + t) * columns + first;
    for (int c = thread_index(); c < width; c += f32_row_threads) {
      x[(t * warp_size + c / unit_columns) * padded_unit + c % unit_columns] =
          first + c < columns ? from[c] : 0.0f;
    }
  }
}

// grid: blocks of rows of all products; groups of f32_row_tokens rows of activations; matrices or
// pairs (row_choice)
template <typename F>
NIBBLE_KERNEL_RESIDENT(f32_row_threads, 2)
matmul_f32_rows(const float* in, std::int64_t columns, row_choice choice, product_set set) {
  auto* const x = reinterpret_cast<float*>(shared_memory());
  std::int32_t tile = block_x();
  const gpu::product& p = set.products[product_of_tile(set, tile)];
  const unit_reader<F> weights(p.matrix);
  wait_for_previous();
  allow_next();
  const chosen_rows rows = choose_rows(choice, block_z());
  const std::int64_t begin = rows.begin + static_cast<std::int64_t>(block_y()) * f32_row_tokens;
  if (begin >= rows.end) return;
  const int n =
      static_cast<int>(rows.end - begin < f32_row_tokens ? rows.end - begin : f32_row_tokens);
  const std::int64_t row =
      static_cast<std::int64_t>(tile) * (f32_row_threads / warp_size) + warp_index();

  float sums[f32_row_tokens] = {};
  for (std::int64_t first = 0; first < columns; first += warp_size * unit_columns) {
    sync_block();
    stage_row_activations(in, columns, first, rows, begin, n, x);
    sync_block();
    const std::int64_t unit = first / unit_columns + lane();
    if (row >= p.matrix.rows || unit * unit_columns >= columns) continue;
    float w[unit_columns];
    weights.floats(rows.matrix, row, unit, w);
    NIBBLE_UNROLL_DEVICE
    for (int t = 0; t < f32_row_tokens; ++t) {
      if (t >= n) break;
      const float* const mine = x + (t * warp_size + lane()) * padded_unit;
      NIBBLE_UNROLL_DEVICE
      for (int c = 0; c < unit_columns; c += 4) {
        const words4 four = load16(mine + c);
        NIBBLE_UNROLL_DEVICE
        for (int i = 0; i < 4; ++i) sums[t] += w[c + i] * std::bit_cast<float>(four.w[i]);
      }
    }
  }
  NIBBLE_UNROLL_DEVICE
  for (int t = 0; t < f32_row_tokens; ++t) {
    const float sum = warp_sum(sums[t]);
    if (t < n && lane() == 0 && row < p.matrix.rows) {
      finish_sum(p, rows.matrix, row, rows.pair(begin + t), sum, set.accumulate);
    }
  }
}

// ---- many tokens ----

inline constexpr int f32_tile_threads = 128;
inline constexpr int f32_tile_rows = 64, f32_tile_tokens = 64, f32_tile_units = 2;
inline constexpr int f32_tile_columns = f32_tile_units * unit_columns;
// of a thread
inline constexpr int f32_thread_rows = 4, f32_thread_tokens = 8;
static_assert(f32_tile_rows * f32_tile_units == f32_tile_threads);
static_assert(f32_tile_rows * f32_tile_tokens ==
              f32_tile_threads * f32_thread_rows * f32_thread_tokens);

// What a block holds in shared memory: some columns of its rows and of its tokens.
struct f32_stage {
  static constexpr int padding = 4;
  float weights[f32_tile_columns][f32_tile_rows + padding];
  float activations[f32_tile_tokens][f32_tile_columns + padding];
};

// Each thread brings a unit of a row, and some activations. What is beyond the matrix is 0 or of a
// row whose results are not kept.
template <typename F>
NIBBLE_DEVICE void fill_f32_stage(f32_stage& stage, const unit_reader<F>& weights,
                                  const chosen_rows& rows, std::int64_t row, std::int64_t last_row,
                                  const float* in, std::int64_t columns, std::int64_t first,
                                  std::int64_t place) {
  const int r = thread_index() % f32_tile_rows, u = thread_index() / f32_tile_rows;
  float w[unit_columns] = {};
  if (first + u * unit_columns < columns) {
    weights.floats(rows.matrix, row + r < last_row ? row + r : last_row, first / unit_columns + u,
                   w);
  }
  NIBBLE_UNROLL_DEVICE
  for (int c = 0; c < unit_columns; ++c) stage.weights[u * unit_columns + c][r] = w[c];
  for (int i = thread_index(); i < f32_tile_tokens * f32_tile_columns; i += f32_tile_threads) {
    const int t = i / f32_tile_columns, c = i % f32_tile_columns;
    const bool inside = place + t < rows.end && first + c < columns;
    stage.activations[t][c] = inside ? in[rows.input(place + t) * columns + first + c] : 0.0f;
  }
}

struct f32_sums {
  float of[f32_thread_tokens][f32_thread_rows];
};

NIBBLE_DEVICE void multiply_f32_stage(const f32_stage& stage, int row, int token, f32_sums& sums) {
  for (int c = 0; c < f32_tile_columns; c += 4) {
    words4 x[f32_thread_tokens];
    NIBBLE_UNROLL_DEVICE
    for (int t = 0; t < f32_thread_tokens; ++t) x[t] = load16(stage.activations[token + t] + c);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i) {
      const words4 w = load16(stage.weights[c + i] + row);
      NIBBLE_UNROLL_DEVICE
      for (int t = 0; t < f32_thread_tokens; ++t) {
        NIBBLE_UNROLL_DEVICE
        for (int r = 0; r < f32_thread_rows; ++r) {
          sums.of[t][r] += std::bit_cast<float>(w.w[r]) * std::bit_cast<float>(x[t].w[i]);
        }
      }
    }
  }
}

// grid: tiles of tokens; tiles of rows of all products; matrices (row_choice). Blocks go on to the
// tiles of tokens that are as many further as the grid has.
template <typename F>
NIBBLE_KERNEL(f32_tile_threads)
matmul_f32_tile(const float* in, std::int64_t columns, row_choice choice, product_set set) {
  auto& stage = *reinterpret_cast<f32_stage*>(shared_memory());
  std::int32_t tile = block_y();
  const gpu::product& p = set.products[product_of_tile(set, tile)];
  const unit_reader<F> weights(p.matrix);
  wait_for_previous();
  allow_next();
  const chosen_rows rows = choose_rows(choice, block_z());
  const std::int64_t first_row = static_cast<std::int64_t>(tile) * f32_tile_rows;
  constexpr int across = f32_tile_rows / f32_thread_rows;
  const int row = thread_index() % across * f32_thread_rows;
  const int token = thread_index() / across * f32_thread_tokens;

  for (std::int64_t place = rows.begin + static_cast<std::int64_t>(block_x()) * f32_tile_tokens;
       place < rows.end; place += static_cast<std::int64_t>(grid_x()) * f32_tile_tokens) {
    f32_sums sums = {};
    for (std::int64_t first = 0; first < columns; first += f32_tile_columns) {
      sync_block();
      fill_f32_stage(stage, weights, rows, first_row, p.matrix.rows - 1, in, columns, first, place);
      sync_block();
      multiply_f32_stage(stage, row, token, sums);
    }
    NIBBLE_UNROLL_DEVICE
    for (int t = 0; t < f32_thread_tokens; ++t) {
      if (place + token + t >= rows.end) break;
      const std::int64_t pair = rows.pair(place + token + t);
      NIBBLE_UNROLL_DEVICE
      for (int r = 0; r < f32_thread_rows; ++r) {
        const std::int64_t at = first_row + row + r;
        if (at >= p.matrix.rows) break;
        finish_sum(p, rows.matrix, at, pair, sums.of[t][r], set.accumulate);
      }
    }
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
