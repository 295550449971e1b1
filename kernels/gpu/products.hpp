// What the kernels of products share: which rows of activations meet which matrix, the products
// that one launch makes, and what becomes of a sum.
#pragma once

#include <nibble/formats/list.hpp>

#include "gpu/dialect.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Products of one format; tiles of rows are numbered through all of them.
struct product_set {
  std::int32_t n;
  std::int32_t end_tile[gpu::max_products];  // of each product
  gpu::product products[gpu::max_products];
  bool accumulate;
};

// Rows of activations, or pairs of a token and an expert, by the matrix they meet.
struct row_choice {
  std::int64_t n;                 // rows or pairs
  std::int32_t pairs_of_row;      // that pairs come from; 1: each has a row of its own
  const std::int32_t* selection;  // [n]: every pair alone, with this matrix; or null
  const std::int32_t* order;      // [n]: pairs in order of their matrix, from start[matrix]
  const std::int32_t* start;      // to start[matrix + 1]; or null: all n with matrix 0
};

// The part of a choice that a block of threads works on: places [begin, end).
struct chosen_rows {
  std::int64_t matrix, begin, end;
  const std::int32_t* order;
  std::int32_t pairs_of_row;

  // Of a place: the row of the results, and of the activations.
  NIBBLE_DEVICE std::int64_t pair(std::int64_t place) const {
    return order != nullptr ? order[place] : place;
  }
  NIBBLE_DEVICE std::int64_t input(std::int64_t place) const {
    const std::int64_t from = pair(place);
    if (pairs_of_row == 1) return from;
    return static_cast<std::int32_t>(from) / pairs_of_row;  // pairs are counted in 32 bits
  }
};

// number: of the pair where every pair is alone, of the matrix otherwise
NIBBLE_DEVICE chosen_rows choose_rows(const row_choice& choice, int number) {
  chosen_rows rows{0, 0, choice.n, choice.order, choice.pairs_of_row};
  if (choice.selection != nullptr) {
    rows.matrix = choice.selection[number];
    rows.begin = number;
    rows.end = number + 1;
  } else if (choice.order != nullptr) {
    rows.matrix = number;
    rows.begin = choice.start[number];
    rows.end = choice.start[number + 1];
  }
  return rows;
}

// Which product a tile of rows belongs to; `tile` becomes the tile's number in it.
NIBBLE_DEVICE int product_of_tile(const product_set& set, std::int32_t& tile) {
  int which = 0;
  std::int32_t first = 0;
  NIBBLE_UNROLL_DEVICE
  for (int i = 1; i < gpu::max_products; ++i) {
    if (i < set.n && tile >= set.end_tile[i - 1]) {
      which = i;
      first = set.end_tile[i - 1];
    }
  }
  tile -= first;
  return which;
}

// out (+)= scale * sum + bias, for one row of a matrix and one row of the results.
NIBBLE_DEVICE void finish_sum(const gpu::product& p, std::int64_t matrix, std::int64_t row,
                              std::int64_t pair, float sum, bool accumulate) {
  float* const out = p.out + pair * p.matrix.rows + row;
  float value = p.scale != nullptr ? *p.scale * sum : sum;
  if (p.bias != nullptr) value += p.bias[matrix * p.bias_stride + row];
  *out = accumulate ? *out + value : value;
}

// ---- for launchers ----

// Calls f(format, set) for each format among the products; tile_rows: rows of a tile of that
// format.
template <typename Function>
void for_each_product_set(const gpu::product* products, std::int32_t n, bool accumulate,
                          std::int64_t tile_rows, Function&& f) {
  for (std::int32_t i = 0; i < n; ++i) {
    const std::int32_t format = products[i].matrix.format;
    bool seen = false;
    for (std::int32_t j = 0; j < i; ++j) seen = seen || products[j].matrix.format == format;
    if (seen) continue;
    product_set set{0, {}, {}, accumulate};
    std::int64_t tiles = 0;
    for (std::int32_t j = i; j < n; ++j) {
      if (products[j].matrix.format != format) continue;
      tiles += (products[j].matrix.rows + tile_rows - 1) / tile_rows;
      set.end_tile[set.n] = static_cast<std::int32_t>(tiles);
      set.products[set.n++] = products[j];
    }
    f(format, set);
  }
}

inline std::uint32_t tiles_of(const product_set& set) {
  return static_cast<std::uint32_t>(set.end_tile[set.n - 1]);
}

// Calls f(F{}) for the format with this position in all_formats.
template <typename Function>
void with_format_at(std::int32_t index, Function&& f) {
  for_each_format([&]<typename F>(F format) {
    if (index_of<F> == index) f(format);
  });
}

// How the pairs of expert_args meet matrices.
inline row_choice pairs_of(const gpu::expert_args& args) {
  const bool grouped = args.pair_order != nullptr;
  return {args.tokens * args.n_used, args.per_slot ? 1 : args.n_used,
          grouped ? nullptr : args.selection, args.pair_order, args.pair_start};
}

// For products with float activations (launch_matmul_f32.cpp).
void launch_expert_matmul_f32(const gpu::launch_target& target, const gpu::expert_args& args);

}  // namespace nibble::inline NIBBLE_ABI::kernels
