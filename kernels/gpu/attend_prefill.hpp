// Attention of many tokens that follow each other, in tiles of matrix instructions.
//
// A block takes query heads that share a key/value head, of some tokens: up to 64 rows, each a head
// of a token. Tiles of 32 keys, and then their values, are brought to shared memory as halves:
// queries times keys make logits, those weights, and weights times values are added up in the
// registers of the warps. Softmax is computed online, in floats.
//
// What halves cost: queries, weights, and rows as half_rows.hpp says. Factors of keys meet the
// logits. Factors of values meet the weights, relative to the greatest so far. A row of values with
// an infinity or a NaN shows in all tokens that see it and in no others.
#pragma once

#include <cmath>

#include "gpu/attend_walk.hpp"
#include "gpu/half_rows.hpp"
#include "gpu/tile.hpp"
#include "gpu/warp_head.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int prefill_threads = 128;
inline constexpr int prefill_keys = 32;         // of a tile
inline constexpr int prefill_jobs = 4;          // parts of the result that warps take
inline constexpr int prefill_run = 16;          // tokens from which on tiles are worth it
inline constexpr float weight_range = 0x1p12f;  // weights are at most this: fewer are subnormal
inline constexpr int row_padding = 8;           // halves, so that rows begin in different banks
inline constexpr int weight_stride = prefill_keys + row_padding, logit_stride = prefill_keys + 2;

// How a layer's attention is laid out; made on the host.
struct prefill_plan {
  std::int32_t heads, passes;  // query heads of a block; blocks for those of a key/value head
  std::int32_t tokens;         // of a block
  std::int32_t key_columns, value_columns;  // filled up to whole tiles
  row_size key, value;

  NIBBLE_HD int query_stride() const { return key_columns + row_padding; }
  // Halves of keys, or of values, which lie by columns.
  NIBBLE_HD int row_halves() const {
    const int keys = prefill_keys * query_stride(), values = value_columns * weight_stride;
    return keys > values ? keys : values;
  }
};

// Of a row.
struct prefill_state {
  float greatest, sum;  // sum: of exp(logit - greatest)
  float keep;           // what earlier sums are to be multiplied by
  float query_factor;
};

// Shared memory. Results take the place of all but the states in the end.
template <int Rows>
struct prefill_shared {
  prefill_state* states;   // [Rows]
  float* key_factors;      // [prefill_keys]
  float* value_factors;    // [prefill_keys]
  float* range;            // [2]: the greatest factor of values, before and now
  float* results;          // [Rows, value_length]
  float* logits;           // [Rows, logit_stride]
  std::uint16_t* weights;  // [Rows, weight_stride]
  std::uint16_t* queries;  // [Rows, query_stride]
  std::uint16_t* rows;     // keys [prefill_keys, query_stride], values [columns, weight_stride]

  static constexpr int head_floats = 4 * Rows + 2 * prefill_keys + 4;

  NIBBLE_DEVICE explicit prefill_shared(const prefill_plan& plan) {
    auto* const floats = reinterpret_cast<float*>(shared_memory());
    states = reinterpret_cast<prefill_state*>(floats);
    key_factors = floats + 4 * Rows;
    value_factors = key_factors + prefill_keys;
    range = value_factors + prefill_keys;
    results = logits = floats + head_floats;
    weights = reinterpret_cast<std::uint16_t*>(logits + Rows * logit_stride);
    queries = weights + Rows * weight_stride;
    rows = queries + Rows * plan.query_stride();
  }
  static std::size_t bytes(const prefill_plan& plan, int value_length) {
    const int worked = Rows * logit_stride * 4 + Rows * weight_stride * 2 +
                       Rows * plan.query_stride() * 2 + plan.row_halves() * 2;
    const int results = Rows * value_length * 4;
    return static_cast<std::size_t>(head_floats * 4 + (worked > results ? worked : results));
  }
};

// Tokens [begin, end) of the batch that follow each other in one sequence; indices of the first and
// the last.
struct token_run {
  std::int64_t begin, end;
  std::int64_t first_index, last_index;
};

// What a block works on. RowTiles * 16 rows; a job is a row tile and a part of the columns, at most
// ColumnTiles tiles of them.
template <int RowTiles, int ColumnTiles>
struct prefill_block {
  static constexpr int rows = RowTiles * tile_size;
  static constexpr int warps = prefill_threads / warp_size;
  static constexpr int jobs = prefill_jobs / warps;  // of a warp
  static constexpr int row_lanes = prefill_threads / rows;
  static constexpr int key_lanes = prefill_threads / prefill_keys;

  const gpu::attend_args& args;
  const prefill_plan& plan;
  prefill_shared<rows> shared;
  int kv_head, first_head, heads;
  gpu::sequence_pages sequence;
  token_run run;

  NIBBLE_DEVICE prefill_block(const gpu::attend_args& a, const prefill_plan& p)
      : args(a), plan(p), shared(p) {
    const int sharing = args.shape.n_head / args.shape.n_head_kv;
    const int first = block_y() % plan.passes * plan.heads;
    kv_head = block_y() / plan.passes;
    first_head = kv_head * sharing + first;
    heads = sharing - first < plan.heads ? sharing - first : plan.heads;
  }

  // The run that begins at a token; it ends before `end`.
  NIBBLE_DEVICE void set_run(std::int64_t begin, std::int64_t end) {
    const std::int32_t chunk = args.step.chunk[begin];
    const std::int64_t index = args.step.index[begin];
    std::int64_t t = begin + 1;
    while (t < end && args.step.chunk[t] == chunk && args.step.index[t] == index + t - begin) ++t;
    run = {begin, t, index, index + t - 1 - begin};
    sequence = sequence_of(args.step, args.pages, args.cache.group, begin);
  }

  // Row r is head r % heads of token r / heads of the run; not all rows are there.
  NIBBLE_DEVICE bool has_row(int row) const {
    return row < (run.end - run.begin) * plan.heads && row % plan.heads < heads;
  }
  // Of a row: in q, and with other lengths in out.
  NIBBLE_DEVICE std::int64_t at(int row, int length) const {
    const std::int64_t token = run.begin + row / plan.heads;
    return (token * args.shape.n_head + first_head + row % plan.heads) * length;
  }
  NIBBLE_DEVICE token_range seen_by_row(int row) const {
    return seen_by(run.first_index + row / plan.heads, args.shape.window);
  }

  NIBBLE_DEVICE void clear_states() const {
    const int row = thread_index();
    if (row < rows) shared.states[row] = {-positive_infinity, 0, 1, 1};
    if (row == 0) shared.range[1] = least_factor;
  }

  // Queries as halves times a power of two. Rows that are not there are zeros.
  NIBBLE_DEVICE void load_queries(const float* from) const {
    const int row = thread_index() / row_lanes, member = thread_index() % row_lanes;
    const int length = args.shape.key_length;
    const bool there = has_row(row);
    const float* const q = from + at(there ? row : 0, length);
    std::int32_t magnitude = 0;
    for (int i = member; there && i < length; i += row_lanes) {
      magnitude = magnitude_of(q[i]) > magnitude ? magnitude_of(q[i]) : magnitude;
    }
    const float factor = power_factor(greatest_of_lanes(magnitude, row_lanes));
    const bool usable = there && factor == factor;
    const float inverse = 1.0f / factor;
    std::uint16_t* const to = shared.queries + row * plan.query_stride();
    for (int i = member; i < plan.key_columns; i += row_lanes) {
      to[i] = usable && i < length ? to_half(q[i] * inverse).bits : std::uint16_t{0};
    }
    if (member == 0) shared.states[row].query_factor = factor;
  }

  // Factors of a piece's keys or values. Four lanes a row.
  NIBBLE_DEVICE void make_factors(const head_rows& from, row_size size, std::int32_t type,
                                  int length, int n, float* to) const {
    const int row = thread_index() / key_lanes, member = thread_index() % key_lanes;
    with_type(type, [&](auto constant) {
      const head_rows at_row = {from.codes + row * size.codes, from.scales + row * size.scales};
      const float factor =
          row_factor<decltype(constant)::type>(at_row, length, row < n, member, key_lanes);
      if (member == 0) to[row] = row < n ? factor : 0.0f;
    });
  }

  // Keys as they lie, values by columns. Rows from n on, and columns that fill up, are zeros.
  NIBBLE_DEVICE void load_keys(const head_rows& from, int n) const {
    const int length = args.shape.key_length, units = plan.key_columns / unit_values;
    with_type(args.cache.key_type, [&](auto constant) {
      using type = decltype(constant);
      for (int i = thread_index(); i < prefill_keys * units; i += prefill_threads) {
        const int row = i / units, unit = i % units;
        std::uint16_t x[unit_values] = {};
        const bool there = row < n && unit * unit_values < length;
        if (there) {
          load_halves<type::type>(
              {from.codes + row * plan.key.codes, from.scales + row * plan.key.scales}, length,
              unit, shared.key_factors[row], x);
        }
        const unit_columns columns =
            there ? columns_of_unit<type::bits>(length, unit) : columns_of_unit<8>(length, unit);
        std::uint16_t* const to = shared.rows + row * plan.query_stride();
        store_four(to + columns.first, x);
        store_four(to + columns.second, x + 4);
      }
    });
  }
  NIBBLE_DEVICE static void store_four(std::uint16_t* to, const std::uint16_t* x) {
    *reinterpret_cast<std::uint64_t*>(to) =
        std::uint64_t{x[3]} << 48 | std::uint64_t{x[2]} << 32 | std::uint64_t{x[1]} << 16 | x[0];
  }

  // A thread takes a unit of two rows, which are adjacent in a column.
  NIBBLE_DEVICE void load_values(const head_rows& from, int n) const {
    const int length = args.shape.value_length, units = plan.value_columns / unit_values;
    constexpr int pairs = prefill_keys / 2;
    with_type(args.cache.value_type, [&](auto constant) {
      using type = decltype(constant);
      for (int i = thread_index(); i < pairs * units; i += prefill_threads) {
        const int pair = i % pairs, unit = i / pairs;
        std::uint16_t x[2][unit_values] = {};
        const bool there = unit * unit_values < length;
        NIBBLE_UNROLL_DEVICE
        for (int k = 0; k < 2; ++k) {
          const int row = 2 * pair + k;
          if (!there || row >= n) continue;
          load_halves<type::type>(
              {from.codes + row * plan.value.codes, from.scales + row * plan.value.scales}, length,
              unit, shared.value_factors[row], x[k]);
        }
        const unit_columns columns =
            there ? columns_of_unit<type::bits>(length, unit) : columns_of_unit<8>(length, unit);
        NIBBLE_UNROLL_DEVICE
        for (int k = 0; k < unit_values; ++k) {
          auto* const to =
              reinterpret_cast<std::uint32_t*>(shared.rows + columns.at(k) * weight_stride) + pair;
          *to = x[0][k] | std::uint32_t{x[1][k]} << 16;
        }
      }
    });
  }

  // The greatest factor of values so far. One warp.
  NIBBLE_DEVICE void set_range() const {
    if (warp_index() != 0) return;
    float factor = 0;
    if (lane() < prefill_keys) factor = shared.value_factors[lane()];
    factor = factor < 0 ? -factor : factor;
    const float before = shared.range[1];
    const float now = warp_max(factor > before ? factor : before);
    sync_warp();
    if (lane() == 0) {
      shared.range[0] = before;
      shared.range[1] = now;
    }
  }

  // Products of queries and keys. A warp takes row tiles, or as much of one as there is for it.
  NIBBLE_DEVICE void make_logits() const {
    constexpr int key_tiles = prefill_keys / tile_size;
    constexpr int at_once = RowTiles * key_tiles / warps >= key_tiles ? key_tiles : 1;
    constexpr int tasks = RowTiles * key_tiles / at_once;
    const int stride = plan.query_stride();
    for (int task = warp_index(); task < tasks; task += warps) {
      const int row = task % RowTiles * tile_size, key = task / RowTiles * tile_size;
      tile_f16 tiles[at_once];
      for (int k = 0; k < plan.key_columns; k += tile_size) {
        const auto q = load_rows<32>(shared.queries + row * stride + k, stride * 2);
        NIBBLE_UNROLL_DEVICE
        for (int i = 0; i < at_once; ++i) {
          const int first = key + i * tile_size;
          const auto keys = load_rows<32>(shared.rows + first * stride + k, stride * 2);
          multiply(tiles[i], q, keys);
        }
      }
      NIBBLE_UNROLL_DEVICE
      for (int i = 0; i < at_once; ++i) {
        NIBBLE_UNROLL_DEVICE
        for (int e = 0; e < tile_elements; ++e) {
          const int to = (row + tile_row(e)) * logit_stride + key + i * tile_size + tile_column(e);
          shared.logits[to] = tiles[i].sum[e];
        }
      }
    }
  }

  // Logits become weights; see decode_block::weigh(). What a row does not see has weight 0 whatever
  // its logit is.
  NIBBLE_DEVICE void weigh(const token_piece& piece) const {
    const int row = thread_index() / row_lanes, member = thread_index() % row_lanes;
    constexpr int each = prefill_keys / row_lanes;
    prefill_state& state = shared.states[row];
    const token_range seen = has_row(row) ? seen_by_row(row) : token_range{0, 0};
    const float softcap = args.shape.softcap, before = state.greatest;
    float x[each], greatest = before;
    bool sees[each];
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < each; ++i) {
      const int key = member + i * row_lanes;
      const std::int64_t index = piece.index + key;
      sees[i] = key < piece.n && index >= seen.begin && index < seen.end;
      x[i] = shared.logits[row * logit_stride + key] * state.query_factor * shared.key_factors[key];
      if (softcap != 0) x[i] = softcap * ::tanhf(x[i] / softcap);
      if (sees[i] && x[i] > greatest) greatest = x[i];
    }
    for (int mask = 1; mask < row_lanes; mask *= 2) {
      const float other = shuffle_xor(greatest, mask);
      greatest = other > greatest ? other : greatest;
    }
    const float range = weight_range / shared.range[1];
    float sum = 0;
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < each; ++i) {
      const int key = member + i * row_lanes;
      const float weight = sees[i] ? fast_exp(x[i] - greatest) : 0.0f;
      sum += weight;
      shared.weights[row * weight_stride + key] =
          sees[i] ? to_half(weight * (shared.value_factors[key] * range)).bits : std::uint16_t{0};
    }
    for (int mask = 1; mask < row_lanes; mask *= 2) sum += shuffle_xor(sum, mask);
    if (member != 0) return;
    const float keep = greatest == before ? 1.0f : fast_exp(before - greatest);
    state.greatest = greatest;
    state.sum = state.sum * keep + sum;
    state.keep = keep * (shared.range[0] / shared.range[1]);
  }

  // Column tiles of a job, from its first.
  NIBBLE_DEVICE int first_column(int job) const { return job / RowTiles * ColumnTiles * tile_size; }

  NIBBLE_DEVICE void add_values(tile_f16 (&sums)[jobs][ColumnTiles]) const {
    NIBBLE_UNROLL_DEVICE
    for (int j = 0; j < jobs; ++j) {
      const int job = warp_index() + j * warps;
      const int row = job % RowTiles * tile_size, first = first_column(job);
      NIBBLE_UNROLL_DEVICE
      for (int e = 0; e < tile_elements; ++e) {
        const float keep = shared.states[row + tile_row(e)].keep;
        NIBBLE_UNROLL_DEVICE
        for (int c = 0; c < ColumnTiles; ++c) sums[j][c].sum[e] *= keep;
      }
      NIBBLE_UNROLL_DEVICE
      for (int key = 0; key < prefill_keys; key += tile_size) {
        const auto weights =
            load_rows<32>(shared.weights + row * weight_stride + key, weight_stride * 2);
        NIBBLE_UNROLL_DEVICE
        for (int c = 0; c < ColumnTiles; ++c) {
          const int column = first + c * tile_size;
          if (column >= plan.value_columns) continue;
          const auto values =
              load_rows<32>(shared.rows + column * weight_stride + key, weight_stride * 2);
          multiply(sums[j][c], weights, values);
        }
      }
    }
  }

  // The mean of the values, and their rotation undone.
  NIBBLE_DEVICE void finish(const tile_f16 (&sums)[jobs][ColumnTiles]) const {
    const int length = args.shape.value_length;
    NIBBLE_UNROLL_DEVICE
    for (int j = 0; j < jobs; ++j) {
      const int job = warp_index() + j * warps;
      const int row = job % RowTiles * tile_size, first = first_column(job);
      NIBBLE_UNROLL_DEVICE
      for (int c = 0; c < ColumnTiles; ++c) {
        NIBBLE_UNROLL_DEVICE
        for (int e = 0; e < tile_elements; ++e) {
          const int column = first + c * tile_size + tile_column(e);
          if (column < length) {
            shared.results[(row + tile_row(e)) * length + column] = sums[j][c].sum[e];
          }
        }
      }
    }
    sync_block();
    for (int row = warp_index(); row < rows; row += warps) {
      if (!has_row(row)) continue;
      const prefill_state& state = shared.states[row];
      float keep = 1, sum = state.sum;
      if (args.shape.sinks != nullptr) {
        const float sink = args.shape.sinks[first_head + row % plan.heads];
        const float greatest = sink > state.greatest ? sink : state.greatest;
        keep = ::expf(state.greatest - greatest);
        sum = sum * keep + ::expf(sink - greatest);
      }
      const warp_head result{shared.results + row * length, length};
      result.scale(keep / sum * (shared.range[1] / weight_range));
      if (args.cache.rotate_value) result.hadamard();
      result.store(args.out + at(row, length));
    }
    sync_block();
  }

  // All that the run's tokens see.
  NIBBLE_DEVICE void attend() {
    tile_f16 sums[jobs][ColumnTiles];
    clear_states();
    const std::int64_t end = run.last_index + 1;
    token_piece piece =
        piece_at(sequence, seen_by(run.first_index, args.shape.window).begin, end, prefill_keys);
    sync_block();
    load_queries(piece.before_gap ? args.q_turned : args.q);
    while (piece.n > 0) {
      std::byte* const page = page_at(args.cache, args.pages, sequence, piece.page);
      const head_rows keys = rows_of_head(page + args.cache.keys, plan.key, kv_head, piece.row);
      const head_rows values =
          rows_of_head(page + args.cache.values, plan.value, kv_head, piece.row);
      make_factors(keys, plan.key, args.cache.key_type, args.shape.key_length, piece.n,
                   shared.key_factors);
      make_factors(values, plan.value, args.cache.value_type, args.shape.value_length, piece.n,
                   shared.value_factors);
      sync_block();
      set_range();
      load_keys(keys, piece.n);
      sync_block();
      make_logits();
      sync_block();
      weigh(piece);
      load_values(values, piece.n);
      sync_block();
      add_values(sums);
      const token_piece next = piece_at(sequence, piece.next(), end, prefill_keys);
      if (next.n > 0 && next.before_gap != piece.before_gap) load_queries(args.q);
      sync_block();
      piece = next;
    }
    finish(sums);
  }
};

// Blocks: tokens, key/value heads by passes.
template <int RowTiles, int ColumnTiles>
NIBBLE_KERNEL(prefill_threads)
attend_prefill(gpu::attend_args args, prefill_plan plan) {
  wait_for_previous();
  allow_next();
  prefill_block<RowTiles, ColumnTiles> block(args, plan);
  const std::int64_t first = std::int64_t{block_x()} * plan.tokens;
  const std::int64_t end = first + plan.tokens < args.tokens ? first + plan.tokens : args.tokens;
  for (std::int64_t token = first; token < end; token = block.run.end) {
    block.set_run(token, end);
    block.attend();
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
