// Products with the matrices of chosen experts, for so few pairs of a token and an expert that each
// is a product of its own. (Where there are more, pairs are put in order of their experts, and the
// kernels of matmul_tile.hpp take those of each expert together.)
#pragma once

#include "gpu/dialect.hpp"
#include "gpu/products.hpp"
#include "gpu/unit.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using gpu::unit_columns;

inline constexpr int expert_threads = 128;
inline int expert_rows_of_block(const gpu::device_facts& facts) {
  return expert_threads / facts.warp;
}

// Of a unit of weights with one of activations.
template <typename F>
NIBBLE_DEVICE float unit_product(const packed_unit<F>& packed, std::int64_t unit,
                                 const gpu::q8_rows& in, std::int64_t in_unit) {
  constexpr int groups = unit_groups<F>;
  constexpr int group_words = F::group_size / 4;
  std::uint32_t codes[8];
  signed_words(packed, codes);
  const std::int8_t* const from = in.codes + in_unit * unit_columns;
  const words4 halves[2] = {load16(from), load16(from + 16)};
  float sum = 0;
  NIBBLE_UNROLL_DEVICE
  for (int g = 0; g < groups; ++g) {
    std::int32_t products = 0;
    NIBBLE_UNROLL_DEVICE
    for (int i = g * group_words; i < (g + 1) * group_words; ++i) {
      products = dot4(codes[i], halves[i / 4].w[i % 4], products);
    }
    const affine map = unit_scale(packed, unit, g);
    sum += map.scale * static_cast<float>(products);
    if constexpr (F::has_offset) {
      const std::int16_t* const sums = in.sums + 2 * in_unit;
      const int total = groups == 1 ? sums[0] + sums[1] : sums[g];
      sum += map.offset * static_cast<float>(total);
    }
  }
  return in.scales[in_unit] * sum;
}

// A warp a row of a pair's matrix; a lane takes every warp_size-th unit.
// grid: blocks of rows of all products; pairs
template <typename F>
NIBBLE_KERNEL(expert_threads)
expert_rows(gpu::q8_rows in, std::int64_t columns, row_choice choice, product_set set) {
  std::int32_t tile = block_x();
  const gpu::product& p = set.products[product_of_tile(set, tile)];
  const unit_reader<F> weights(p.matrix);
  const std::int64_t row =
      static_cast<std::int64_t>(tile) * (expert_threads / warp_size) + warp_index();
  wait_for_previous();
  allow_next();
  if (row >= p.matrix.rows) return;
  const chosen_rows chosen = choose_rows(choice, block_y());
  const std::int64_t units = columns / unit_columns;
  const std::int64_t first = chosen.input(chosen.begin) * units;
  float sum = 0;
  for (std::int64_t unit = lane(); unit < units; unit += warp_size) {
    sum += unit_product(weights.load(chosen.matrix, row, unit), unit, in, first + unit);
  }
  sum = warp_sum(sum);
  if (lane() == 0) finish_sum(p, chosen.matrix, row, chosen.begin, sum, set.accumulate);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
