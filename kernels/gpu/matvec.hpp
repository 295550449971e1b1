// Products of matrices with a few vectors, where reading the weights is what takes the time.
//
// A task is two rows of a matrix; the tasks of all products are spread over all warps. Lane i takes
// units i, i + warp_size, .. of both rows: their codes, multiplied by those of each vector into
// exact integer sums, times both scales, added up in float. The sums of lanes are added at the end
// of a task. Units are on their way from memory several steps ahead, over the end of a task as
// well, and the first ones before the input exists.
//
// What is added in which order depends neither on the number of vectors nor on the grid.
#pragma once

#include <bit>
#include <cmath>
#include <utility>

#include "gpu/activations.hpp"
#include "gpu/products.hpp"
#include "gpu/unit.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Rows of a task.
inline constexpr int task_rows = 2;

// Vectors up to which kernels can make the input by themselves: more cost each block too much.
inline constexpr int max_fused_tokens = 2;
inline constexpr std::int64_t max_fused_values = 8192;  // of all vectors together

struct matvec_input {
  gpu::input_rows in;  // in.x null: `ready`
  gpu::q8_rows ready;
  std::int32_t tokens;
  std::int64_t columns;
};

// ---- the input in shared memory ----

// After the scratch: codes, scales and sums of all vectors.
inline std::size_t fused_input_bytes(std::int32_t tokens, std::int64_t columns) {
  return sizeof(row_scratch) + static_cast<std::size_t>(tokens * (columns + columns / 4));
}

NIBBLE_DEVICE gpu::q8_rows fused_rows(std::int32_t tokens, std::int64_t columns) {
  std::byte* const begin = shared_memory() + sizeof(row_scratch);
  const std::int64_t codes = tokens * columns;
  return {reinterpret_cast<std::int8_t*>(begin), reinterpret_cast<float*>(begin + codes),
          reinterpret_cast<std::int16_t*>(begin + codes + codes / 8)};
}
static_assert(sizeof(row_scratch) % 16 == 0);

NIBBLE_DEVICE gpu::q8_rows make_input(const matvec_input& input) {
  auto& scratch = *reinterpret_cast<row_scratch*>(shared_memory());
  const gpu::q8_rows rows = fused_rows(input.tokens, input.columns);
  for (std::int64_t t = 0; t < input.tokens; ++t) {
    const float scale = norm_scale(input.in, t, scratch.sums);
    quantise_row(input.in, t, scale, 0, input.columns, rows.codes + t * input.columns,
                 rows.scales + t * (input.columns / 32), rows.sums + t * (input.columns / 16),
                 scratch);
  }
  sync_block();
  return rows;
}

// ---- weights on their way ----

// How many steps ahead units are read: as registers allow. Products with many vectors take long
// enough for one.
template <block_format F, int tokens>
inline constexpr int steps_ahead = [] {
  constexpr int words = task_rows * static_cast<int>(sizeof(packed_unit<F>) / 4);
  constexpr int some = (tokens == 1 ? 56 : tokens == 2 ? 40 : tokens <= 4 ? 32 : 16) / words;
  return some < 1 ? 1 : some > 4 ? 4 : some;
}();

// The tasks of a warp, and in each of them the units of a lane.
template <block_format F>
class weight_stream {
 public:
  NIBBLE_DEVICE weight_stream(const product_set& set, std::int32_t task, std::int32_t tasks_apart)
      : set_(set), tasks_apart_(tasks_apart), task_(task), reader_(set.products[0].matrix) {
    enter_task();
  }

  // Units of a row.
  NIBBLE_DEVICE std::int32_t units() const { return static_cast<std::int32_t>(reader_.units()); }

  // The lane's next unit of each row of its warp's task: what lies beyond the last unit or row is
  // the last one again. After the last task nothing happens.
  NIBBLE_DEVICE void load(packed_unit<F> (&to)[task_rows]) {
    if (task_ >= set_.end_tile[set_.n - 1]) return;
    const std::int32_t unit = first_unit_ + lane(), last = units() - 1;
    NIBBLE_UNROLL_DEVICE
    for (int r = 0; r < task_rows; ++r) {
      to[r] =
          reader_.load(0, row_ + r < last_row_ ? row_ + r : last_row_, unit < last ? unit : last);
    }
    first_unit_ += warp_size;
    if (first_unit_ <= last) return;
    first_unit_ = 0;
    task_ += tasks_apart_;
    enter_task();
  }

  // Asks for the codes of the whole task to come nearer.
  NIBBLE_DEVICE void fetch_task() const {
    if (task_ >= set_.end_tile[set_.n - 1]) return;
    for (int r = 0; r < task_rows && row_ + r <= last_row_; ++r) reader_.fetch_row(0, row_ + r);
  }

 private:
  NIBBLE_DEVICE void enter_task() {
    if (task_ >= set_.end_tile[set_.n - 1]) return;
    std::int32_t tile = task_;
    if (task_ >= end_) {
      const int which = product_of_tile(set_, tile);
      const gpu::packed_matrix& matrix = set_.products[which].matrix;
      reader_ = unit_reader<F>(matrix);
      last_row_ = static_cast<std::int32_t>(matrix.rows - 1);
      first_ = task_ - tile;
      end_ = set_.end_tile[which];
    }
    row_ = (task_ - first_) * task_rows;
  }

  const product_set& set_;
  std::int32_t tasks_apart_, task_;
  unit_reader<F> reader_;
  std::int32_t first_ = 0, end_ = 0;  // tasks of the matrix
  std::int32_t row_ = 0, last_row_ = 0, first_unit_ = 0;
};

// ---- products ----

// The activations of a unit, as products take them.
template <block_format F>
struct unit_activations {
  std::uint32_t codes[8];
  float scale;
  std::int32_t start[unit_groups<F>];  // of integer sums: -stored_zero * sum of codes, as bits of a
                                       // float that is 1.5 * 2^23 more
  float sums[unit_groups<F>];          // times the scale
};

template <block_format F>
NIBBLE_DEVICE unit_activations<F> load_activations(const gpu::q8_rows& rows, std::int64_t at) {
  unit_activations<F> unit;
  const words4 a = load16(rows.codes + 32 * at), b = load16(rows.codes + 32 * at + 16);
  NIBBLE_UNROLL_DEVICE
  for (int w = 0; w < 4; ++w) {
    unit.codes[w] = a.w[w];
    unit.codes[4 + w] = b.w[w];
  }
  unit.scale = rows.scales[at];
  std::int32_t sums[2] = {};
  if constexpr (F::has_offset || stored_zero<F> != 0) {
    const std::uint32_t both = load_word(rows.sums + 2 * at);
    sums[0] = static_cast<std::int16_t>(both & 0xffff);
    sums[1] = static_cast<std::int32_t>(both) >> 16;
  }
  NIBBLE_UNROLL_DEVICE
  for (int g = 0; g < unit_groups<F>; ++g) {
    const std::int32_t sum = unit_groups<F> == 2 ? sums[g] : sums[0] + sums[1];
    unit.start[g] = rounding_bits - stored_zero<F> * sum;
    unit.sums[g] = unit.scale * static_cast<float>(sum);
  }
  return unit;
}

// Units of a task's rows, ready to be multiplied.
template <block_format F>
struct unit_weights {
  std::uint32_t words[task_rows][8];
  affine maps[task_rows][unit_groups<F>];
};
template <block_format F>
NIBBLE_DEVICE void unpack(const packed_unit<F> (&packed)[task_rows], std::int32_t unit,
                          unit_weights<F>& weights) {
  NIBBLE_UNROLL_DEVICE
  for (int r = 0; r < task_rows; ++r) {
    stored_words(packed[r], weights.words[r]);
    NIBBLE_UNROLL_DEVICE
    for (int g = 0; g < unit_groups<F>; ++g) {
      weights.maps[r][g] = unit_scale(packed[r], unit, g);
    }
  }
}

// One unit of each row and vector. sum[r * tokens + t]
template <block_format F, int tokens>
NIBBLE_DEVICE void add_products(const unit_weights<F>& weights, std::int32_t unit,
                                const gpu::q8_rows& rows, std::int32_t units, std::int32_t n,
                                float (&sum)[task_rows * tokens]) {
  constexpr int groups = unit_groups<F>;
  std::int32_t at = unit;
  NIBBLE_UNROLL_DEVICE
  for (int t = 0; t < tokens; ++t) {
    if (t > tokens / 2 && t >= n) break;  // fewer than those have a kernel of their own
    if (t > 0) at += units;
    const auto x = load_activations<F>(rows, at);
    NIBBLE_UNROLL_DEVICE
    for (int r = 0; r < task_rows; ++r) {
      float& total = sum[r * tokens + t];
      NIBBLE_UNROLL_DEVICE
      for (int g = 0; g < groups; ++g) {
        std::int32_t products = x.start[g];
        NIBBLE_UNROLL_DEVICE
        for (int w = g * 8 / groups; w < (g + 1) * 8 / groups; ++w) {
          products = dot4(weights.words[r][w], x.codes[w], products);
        }
        // the sum is at most 32 * 128 * 127 and fits beside the 1.5 * 2^23
        const float exact = std::bit_cast<float>(products) - rounding_float;
        const affine map = weights.maps[r][g];
        total = ::fmaf(exact * x.scale, map.scale, total);
        if constexpr (F::has_offset) total = ::fmaf(x.sums[g], map.offset, total);
      }
    }
  }
}

// The end of a task.
template <int tokens>
NIBBLE_DEVICE void finish_task(const product_set& set, std::int32_t task, std::int32_t n,
                               const float (&sum)[task_rows * tokens]) {
  constexpr int sums = task_rows * tokens;
  const float total = scattered_sum<warp_size>(sum);
  const int index = scattered_index<sums>(lane() % sums);
  const int token = index % tokens;
  std::int32_t tile = task;
  const gpu::product& p = set.products[product_of_tile(set, tile)];
  const std::int64_t row = std::int64_t{tile} * task_rows + index / tokens;
  if (lane() < sums && token < n && row < p.matrix.rows) {
    finish_sum(p, 0, row, token, total, set.accumulate);
  }
}

// f(0), .., f(n - 1) with constants: a loop might be unrolled too late for arrays to be registers.
template <int n, typename Function>
NIBBLE_DEVICE void constant_steps(Function f) {
  [&]<int... i>(std::integer_sequence<int, i...>) {
    (f(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, n>{});
}

// Any number of blocks.
template <block_format F, int tokens>
NIBBLE_KERNEL(row_threads)
multiply_vectors(matvec_input input, product_set set) {
  constexpr int ahead = steps_ahead<F, tokens>;
  // neighbouring tasks in different blocks: what does not divide evenly is spread over all of them
  std::int32_t task = warp_index() * grid_x() + block_x();
  const std::int32_t tasks_apart = row_threads / warp_size * grid_x();
  const std::int32_t end = set.end_tile[set.n - 1];

  weight_stream<F> stream(set, task, tasks_apart);
  packed_unit<F> packed[ahead][task_rows] = {};
  constant_steps<ahead>([&](auto step) { stream.load(packed[step]); });
  stream.fetch_task();

  wait_for_previous();
  allow_next();
  gpu::q8_rows rows = input.ready;
  if constexpr (tokens <= max_fused_tokens) {
    if (input.in.x != nullptr) rows = make_input(input);
  }

  const std::int32_t units = stream.units();
  std::int32_t first_unit = 0;
  float sum[task_rows * tokens] = {};
  while (task < end) {
    constant_steps<ahead>([&](auto step) {
      if (task >= end) return;
      const std::int32_t unit = first_unit + lane();
      unit_weights<F> weights;
      unpack(packed[step], unit < units ? unit : units - 1, weights);
      stream.load(packed[step]);
      if (unit < units) add_products<F, tokens>(weights, unit, rows, units, input.tokens, sum);
      first_unit += warp_size;
      if (first_unit >= units) {
        finish_task<tokens>(set, task, input.tokens, sum);
        NIBBLE_UNROLL_DEVICE
        for (float& s : sum) s = 0;
        first_unit = 0;
        task += tasks_apart;
      }
    });
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
