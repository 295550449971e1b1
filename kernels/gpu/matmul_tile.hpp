// Products with eight-bit activations, in tiles of matrix instructions.
//
// A block of threads makes a tile of rows and tokens. Codes of some units (of 32 columns) and their
// scales pass through shared memory, in two stages: while one is multiplied, the next one is read.
// The integer sum of a unit (or of each half, where groups have 16 columns) becomes a float, times
// both scales, and is added to the sum of its row and token. Units are added in order whatever the
// shape of the tile is, so that a result does not depend on how many tokens there are.
#pragma once

#include "gpu/dialect.hpp"
#include "gpu/products.hpp"
#include "gpu/tile.hpp"
#include "gpu/unit.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using gpu::unit_columns;

inline constexpr int matmul_threads = 256;

// What a block makes: rows x tokens, and how many units a stage has. Each thread reads one unit of
// a row.
template <int Rows, int Tokens, int Units>
struct matmul_shape {
  static constexpr int rows = Rows, tokens = Tokens, units = Units;
  static_assert(rows * units == matmul_threads && tokens * units <= matmul_threads);
  static_assert(rows % tile_size == 0 && tokens % tile_size == 0);

  // Tiles of a warp, and how many warps there are for the tokens; warps beyond the tiles of the
  // block have none.
  static constexpr int all = rows / tile_size * (tokens / tile_size);
  static constexpr int warps = matmul_threads / warp_size;
  static constexpr int each = all > warps ? all / warps : 1;
  static constexpr int token_tiles = each >= 4 ? 2 : 1;
  static constexpr int row_tiles = each / token_tiles;
  static constexpr int token_warps = tokens / tile_size / token_tiles;
  static constexpr int row_warps = rows / tile_size / row_tiles;
};

// For a whole prompt, for some tokens, and for so few that only rows give enough blocks.
using wide_shape = matmul_shape<128, 64, 2>;
using medium_shape = matmul_shape<64, 32, 4>;
using narrow_shape = matmul_shape<32, 16, 8>;

// Of the two stages: what every device has without being asked.
inline constexpr std::size_t matmul_shared_limit = 48 * 1024;

// A stage in shared memory. Rows of codes are 16 bytes longer than they need be: reads of 16 bytes
// from rows one below the other meet all banks. So do writes of the units of some rows to arrays
// with four floats more.
template <typename F, typename Shape>
struct alignas(16) matmul_stage {
  static constexpr int stride = Shape::units * unit_columns + 16;
  static constexpr int groups = Shape::units * unit_groups<F>;
  static constexpr int padding = 4;

  std::int8_t weights[Shape::rows][stride];
  std::int8_t activations[Shape::tokens][stride];
  float scales[groups][Shape::rows + padding];
  float offsets[F::has_offset ? groups : 1][Shape::rows + padding];
  float activation_scales[Shape::units][Shape::tokens + padding];
  float activation_sums[F::has_offset ? groups : 1][Shape::tokens + padding];  // times the scale
};

// What a thread has read of the next stage and not yet put there: a unit of a row, and perhaps the
// scale and the sums of a unit of a token.
template <typename F>
struct matmul_load {
  packed_unit<F> weights;
  float activation_scale;
  std::int16_t activation_sums[2];
};

// What a block works on, and what of it is a thread's own.
template <typename F>
struct matmul_task {
  gpu::q8_rows in;
  unit_reader<F> weights;
  chosen_rows chosen;
  std::int32_t units;  // of a row
  std::int32_t row;    // the first of the tile
  std::int64_t place;  // of the first token in chosen

  // Of the thread:
  std::int32_t weight_row;       // whose units it reads
  std::int64_t codes_from;       // 16 codes of each stage: those from here on in in.codes
  std::int64_t activation_unit;  // a unit of each stage: this one of in.scales, and so on
};

// Which part of each stage the thread reads. Beyond the last row it is the last one, which does no
// harm: the sums that it goes into are not kept. So it is with tokens.
template <typename F, typename Shape>
NIBBLE_DEVICE void set_thread(matmul_task<F>& task, std::int32_t last_row) {
  const auto first_unit = [&](int token) {
    const std::int64_t last = task.chosen.end - 1;
    const std::int64_t place = task.place + token < last ? task.place + token : last;
    return task.chosen.input(place) * task.units;
  };
  const int row = task.row + thread_index() / Shape::units;
  task.weight_row = row < last_row ? row : last_row;
  constexpr int pieces = Shape::units * 2;  // of 16 codes, of a row of a stage
  static_assert(Shape::tokens * pieces == matmul_threads);
  task.codes_from =
      first_unit(thread_index() / pieces) * unit_columns + thread_index() % pieces * 16;
  if (thread_index() < Shape::tokens * Shape::units) {
    task.activation_unit =
        first_unit(thread_index() / Shape::units) + thread_index() % Shape::units;
  }
}

// Reads a stage: its activations on their way to shared memory, the rest into `load`. Units beyond
// the last are left out.
// first: the first unit.
template <typename F, typename Shape>
NIBBLE_DEVICE void read_stage(const matmul_task<F>& task, std::int32_t first,
                              matmul_stage<F, Shape>& stage, matmul_load<F>& load) {
  constexpr int pieces = Shape::units * 2;
  const int token = thread_index() / pieces, piece = thread_index() % pieces;
  if (first + piece / 2 < task.units) {
    copy16_async(stage.activations[token] + piece * 16,
                 task.in.codes + task.codes_from + first * unit_columns);
  }
  commit_async();

  const std::int32_t unit = first + thread_index() % Shape::units;
  if (unit >= task.units) return;
  load.weights = task.weights.load(task.chosen.matrix, task.weight_row, unit);
  if (thread_index() < Shape::tokens * Shape::units) {
    const std::int64_t at = task.activation_unit + first;
    load.activation_scale = task.in.scales[at];
    if constexpr (F::has_offset) {
      load.activation_sums[0] = task.in.sums[2 * at];
      load.activation_sums[1] = task.in.sums[2 * at + 1];
    }
  }
}

// Puts what was read into the stage.
template <typename F, typename Shape>
NIBBLE_DEVICE void write_stage(const matmul_task<F>& task, std::int32_t first,
                               const matmul_load<F>& load, matmul_stage<F, Shape>& stage) {
  constexpr int groups = unit_groups<F>;
  const int row = thread_index() / Shape::units, unit = thread_index() % Shape::units;
  if (first + unit >= task.units) return;
  std::uint32_t codes[8];
  signed_words(load.weights, codes);
  std::int8_t* const to = stage.weights[row] + unit * unit_columns;
  store16(to, {codes[0], codes[1], codes[2], codes[3]});
  store16(to + 16, {codes[4], codes[5], codes[6], codes[7]});
  NIBBLE_UNROLL_DEVICE
  for (int g = 0; g < groups; ++g) {
    const affine map = unit_scale(load.weights, first + unit, g);
    stage.scales[unit * groups + g][row] = map.scale;
    if constexpr (F::has_offset) stage.offsets[unit * groups + g][row] = map.offset;
  }
  if (thread_index() >= Shape::tokens * Shape::units) return;
  const int token = row;  // a thread's unit of a token is numbered as that of a row
  stage.activation_scales[unit][token] = load.activation_scale;
  if constexpr (F::has_offset) {
    int sums[2] = {load.activation_sums[0], load.activation_sums[1]};
    if constexpr (groups == 1) sums[0] += sums[1];
    NIBBLE_UNROLL_DEVICE
    for (int g = 0; g < groups; ++g) {
      stage.activation_sums[unit * groups + g][token] =
          load.activation_scale * static_cast<float>(sums[g]);
    }
  }
}

// The part of a block's tile that a warp makes.
template <typename Shape>
struct matmul_sums {
  float of[Shape::token_tiles][Shape::row_tiles][tile_elements];
};

// What a lane's elements of a tile are multiplied with, of one side: the scales, and the factors of
// the offsets.
struct matmul_factors {
  float scale[tile_elements], offset[tile_elements];
};

// Adds a group of columns of a stage.
// row, token: of the warp's part, in the tile.
template <typename F, typename Shape>
NIBBLE_DEVICE void multiply_group(const matmul_stage<F, Shape>& stage, int unit, int group, int row,
                                  int token, matmul_sums<Shape>& sums) {
  constexpr int bytes = F::group_size;
  const int column = unit * unit_columns + group * bytes, number = unit * unit_groups<F> + group;
  tile_operand<bytes> weights[Shape::row_tiles], activations[Shape::token_tiles];
  NIBBLE_UNROLL_DEVICE
  for (int r = 0; r < Shape::row_tiles; ++r) {
    weights[r] = load_rows<bytes>(stage.weights[row + r * tile_size] + column, stage.stride);
  }
  NIBBLE_UNROLL_DEVICE
  for (int t = 0; t < Shape::token_tiles; ++t) {
    activations[t] =
        load_rows<bytes>(stage.activations[token + t * tile_size] + column, stage.stride);
  }
  matmul_factors of_token[Shape::token_tiles];
  NIBBLE_UNROLL_DEVICE
  for (int t = 0; t < Shape::token_tiles; ++t) {
    NIBBLE_UNROLL_DEVICE
    for (int e = 0; e < tile_elements; ++e) {
      const int at = token + t * tile_size + tile_row(e);
      of_token[t].scale[e] = stage.activation_scales[unit][at];
      if constexpr (F::has_offset) of_token[t].offset[e] = stage.activation_sums[number][at];
    }
  }
  NIBBLE_UNROLL_DEVICE
  for (int r = 0; r < Shape::row_tiles; ++r) {
    matmul_factors of_row;
    NIBBLE_UNROLL_DEVICE
    for (int e = 0; e < tile_elements; ++e) {
      const int at = row + r * tile_size + tile_column(e);
      of_row.scale[e] = stage.scales[number][at];
      if constexpr (F::has_offset) of_row.offset[e] = stage.offsets[number][at];
    }
    NIBBLE_UNROLL_DEVICE
    for (int t = 0; t < Shape::token_tiles; ++t) {
      tile_s8 products;
      multiply(products, activations[t], weights[r]);
      NIBBLE_UNROLL_DEVICE
      for (int e = 0; e < tile_elements; ++e) {
        float& sum = sums.of[t][r][e];
        sum += of_row.scale[e] * of_token[t].scale[e] * static_cast<float>(products.sum[e]);
        if constexpr (F::has_offset) sum += of_row.offset[e] * of_token[t].offset[e];
      }
    }
  }
}

// All units of a stage; first: the first of them.
template <typename F, typename Shape>
NIBBLE_DEVICE void multiply_stage(const matmul_stage<F, Shape>& stage, std::int32_t first,
                                  std::int32_t units, int row, int token,
                                  matmul_sums<Shape>& sums) {
  constexpr int groups = unit_groups<F>;
  const int n = units - first < Shape::units ? units - first : Shape::units;
  for (int i = 0; i < n * groups; ++i) {
    multiply_group(stage, i / groups, i % groups, row, token, sums);
  }
}

// Where the part of the tile is that a warp makes; warps beyond the last part make none.
template <typename Shape>
NIBBLE_DEVICE int first_row_of_warp() {
  return warp_index() / Shape::token_warps * Shape::row_tiles * tile_size;
}
template <typename Shape>
NIBBLE_DEVICE int first_token_of_warp() {
  return warp_index() % Shape::token_warps * Shape::token_tiles * tile_size;
}

// The sums of the warp's part over all columns.
template <typename F, typename Shape>
NIBBLE_DEVICE void sum_tile(const matmul_task<F>& task, bool works, matmul_sums<Shape>& sums) {
  static_assert(2 * sizeof(matmul_stage<F, Shape>) <= matmul_shared_limit);
  auto* const stages = reinterpret_cast<matmul_stage<F, Shape>*>(shared_memory());
  const int row = first_row_of_warp<Shape>(), token = first_token_of_warp<Shape>();
  matmul_load<F> load{};
  read_stage(task, 0, stages[0], load);
  write_stage(task, 0, load, stages[0]);
  wait_async<0>();
  sync_block();
  int now = 0;
  for (std::int32_t first = 0; first < task.units; first += Shape::units, now ^= 1) {
    const std::int32_t next = first + Shape::units;
    if (next < task.units) read_stage(task, next, stages[now ^ 1], load);
    if (works) multiply_stage(stages[now], first, task.units, row, token, sums);
    if (next < task.units) write_stage(task, next, load, stages[now ^ 1]);
    wait_async<0>();
    sync_block();
  }
}

template <typename F, typename Shape>
NIBBLE_DEVICE void finish_tile(const matmul_task<F>& task, const gpu::product& p,
                               const matmul_sums<Shape>& sums, bool accumulate) {
  const std::int64_t first_row = task.row + first_row_of_warp<Shape>();
  const std::int64_t first_place = task.place + first_token_of_warp<Shape>();
  NIBBLE_UNROLL_DEVICE
  for (int t = 0; t < Shape::token_tiles; ++t) {
    NIBBLE_UNROLL_DEVICE
    for (int e = 0; e < tile_elements; ++e) {
      const std::int64_t place = first_place + t * tile_size + tile_row(e);
      if (place >= task.chosen.end) continue;
      const std::int64_t pair = task.chosen.pair(place);
      NIBBLE_UNROLL_DEVICE
      for (int r = 0; r < Shape::row_tiles; ++r) {
        const std::int64_t row = first_row + r * tile_size + tile_column(e);
        if (row >= p.matrix.rows) continue;
        finish_sum(p, task.chosen.matrix, row, pair, sums.of[t][r][e], accumulate);
      }
    }
  }
}

// grid: tiles of tokens; tiles of rows of all products; matrices (row_choice). Blocks go on to the
// tiles of tokens that are as many further as the grid has.
template <typename F, typename Shape>
NIBBLE_KERNEL_RESIDENT(matmul_threads, 2)
matmul_tiles(gpu::q8_rows in, std::int64_t columns, row_choice choice, product_set set) {
  std::int32_t tile = block_y();
  const gpu::product& p = set.products[product_of_tile(set, tile)];
  wait_for_previous();
  allow_next();
  const chosen_rows chosen = choose_rows(choice, block_z());
  matmul_task<F> task{in,
                      unit_reader<F>(p.matrix),
                      chosen,
                      static_cast<std::int32_t>(columns / unit_columns),
                      tile * Shape::rows,
                      chosen.begin + static_cast<std::int64_t>(block_x()) * Shape::tokens,
                      0,
                      0,
                      0};
  const bool works = warp_index() < Shape::row_warps * Shape::token_warps;
  for (; task.place < chosen.end;
       task.place += static_cast<std::int64_t>(grid_x()) * Shape::tokens) {
    set_thread<F, Shape>(task, static_cast<std::int32_t>(p.matrix.rows) - 1);
    matmul_sums<Shape> sums{};
    sum_tile<F, Shape>(task, works, sums);
    if (works) finish_tile<F, Shape>(task, p, sums, set.accumulate);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
