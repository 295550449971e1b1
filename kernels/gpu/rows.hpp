// Kernels over rows of floats. A block works on some columns of a row; where there is a norm, on
// all of them if it writes floats (which may take the place of those that it reads).
#pragma once

#include <cmath>
#include <cstdint>

#include "gpu/activations.hpp"
#include "gpu/unit.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Columns of a row that a block is to do.
struct column_range {
  std::int64_t first, end;
};
// grid: rows; parts of rows
NIBBLE_DEVICE column_range columns_of_block(std::int64_t columns, std::int64_t columns_each) {
  const std::int64_t first = block_y() * columns_each;
  return {first, columns - first < columns_each ? columns : first + columns_each};
}

// columns_each: a multiple of 512
NIBBLE_KERNEL(row_threads)
quantise_rows(gpu::quantise_args args, std::int64_t columns_each) {
  auto& scratch = *reinterpret_cast<row_scratch*>(shared_memory());
  wait_for_previous();
  allow_next();
  const std::int64_t row = block_x(), columns = args.in.columns;
  const column_range range = columns_of_block(columns, columns_each);
  const float scale = norm_scale(args.in, row, scratch.sums);
  quantise_row(args.in, row, scale, range.first, range.end, args.out.codes + row * columns,
               args.out.scales + row * (columns / 32), args.out.sums + row * (columns / 16),
               scratch);
}

// out = in, or out += in; after what in.kind asks for.
template <bool adds>
NIBBLE_KERNEL(row_threads)
transform_rows(gpu::input_rows in, float* out, std::int64_t columns_each) {
  auto& scratch = *reinterpret_cast<row_scratch*>(shared_memory());
  wait_for_previous();
  allow_next();
  const std::int64_t row = block_x();
  const column_range range = columns_of_block(in.columns, columns_each);
  const float scale = norm_scale(in, row, scratch.sums);
  float* const to = out + row * in.columns;
  for (std::int64_t c = range.first + thread_index(); c < range.end; c += row_threads) {
    const float value = input_value(in, row, c, scale);
    to[c] = adds ? to[c] + value : value;
  }
}

inline constexpr int embed_threads = 128;

// A unit for each thread. grid: rows; parts of rows
template <weight_format F>
NIBBLE_KERNEL(embed_threads)
embed_rows(gpu::embed_args args) {
  const std::int64_t columns = args.table.columns;
  const unit_reader<F> table(args.table);
  wait_for_previous();
  allow_next();
  const std::int64_t unit = std::int64_t{block_y()} * embed_threads + thread_index();
  if (unit >= table.units()) return;
  float values[layout_columns];
  table.floats(0, args.tokens[block_x()], unit, values);
  const std::int64_t first = unit * layout_columns;
  float* const out = args.out + block_x() * columns + first;
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < layout_columns; ++i) {
    if (first + i < columns) out[i] = args.scale * values[i];
  }
}

inline constexpr int simple_threads = 256;

// grid: rows; parts of rows
NIBBLE_KERNEL(simple_threads) combine_rows(gpu::combine_args args) {
  wait_for_previous();
  allow_next();
  const std::int64_t row = block_x();
  const std::int64_t c = std::int64_t{block_y()} * simple_threads + thread_index();
  if (c >= args.width) return;
  const float* const weights = args.weights + row * args.n_used;
  const float* const in = args.in + row * args.n_used * args.width + c;
  float sum = args.out[row * args.width + c];
  for (int slot = 0; slot < args.n_used; ++slot) {
    sum = ::fmaf(weights[slot], in[slot * args.width], sum);
  }
  args.out[row * args.width + c] = sum;
}

// grid: rows; parts of rows
NIBBLE_KERNEL(simple_threads) select_rows(gpu::select_args args) {
  wait_for_previous();
  allow_next();
  const std::int64_t row = block_x();
  const std::int64_t c = std::int64_t{block_y()} * simple_threads + thread_index();
  if (c < args.width) {
    args.out[row * args.width + c] = args.in[args.which[row] * args.width + c];
  }
}

NIBBLE_KERNEL(simple_threads) softcap_values(gpu::softcap_args args) {
  wait_for_previous();
  allow_next();
  const std::int64_t i = std::int64_t{block_x()} * simple_threads + thread_index();
  if (i < args.n) args.x[i] = args.cap * ::tanhf(args.x[i] / args.cap);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
