// Attention of few tokens over long sequences, in floats.
//
// A block takes a token, a key/value head, some of the query heads that share it, and a part of the
// sequence. Tiles of keys and of values come into shared memory as they are stored, in turn: while
// one is worked on the other is under way. Threads unpack eight values at a time to registers, and
// use them for all query heads.
//
// Softmax is computed online (Milakov and Gimelshein 2018, arXiv:1805.02867). If a sequence has
// several parts, the block that ends last joins them. A sink is a logit without a value.
#pragma once

#include <cmath>

#include "gpu/attend_walk.hpp"
#include "gpu/warp_head.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int decode_threads = 128;
inline constexpr int team_lanes = 8;  // that share a key

// How a layer's attention is laid out; made on the host.
struct decode_plan {
  std::int32_t passes;        // blocks that the query heads of a key/value head are shared out to
  std::int32_t tile;          // tokens in shared memory: 8, 16, 32 or 64
  row_size key, value;        // bytes of a row
  std::int32_t query_floats;  // of one query in shared memory: whole units
  std::int32_t query_sets;    // 2 if there are queries that are turned back
  std::int32_t staged_bytes;  // of keys and values, or of results at the end

  // Shared memory of a block of `heads` query heads: queries [sets, heads, query_floats], weights
  // [tile, heads], states [heads] of 4 floats, then what is staged.
  NIBBLE_HD int weights_at(int heads) const { return query_sets * heads * query_floats; }
  NIBBLE_HD int states_at(int heads) const { return weights_at(heads) + tile * heads; }
  NIBBLE_HD int staged_at(int heads) const { return states_at(heads) + 4 * heads; }
  NIBBLE_HD int value_bytes_at() const { return tile * key.bytes(); }
};

// Of the logits seen so far.
struct decode_state {
  float greatest, sum;  // sum: of exp(logit - greatest)
  float keep;           // what earlier sums are to be multiplied by
  float factor;         // what the result is to be multiplied by
};

// Sums of each of N values (a power of two) over a team; afterwards value i of a lane, i < N / 8 or
// i == 0, is the sum of value number (lane in its team) * N / 8 + i.
template <int N>
NIBBLE_DEVICE void team_sums(float (&x)[N]) {
  int n = N;
  NIBBLE_UNROLL_DEVICE
  for (int mask = team_lanes / 2; mask > 0; mask /= 2) {
    if (n == 1) {
      x[0] += shuffle_xor(x[0], mask);
      continue;
    }
    n /= 2;
    const bool upper = (lane() & mask) != 0;
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < N / 2; ++i) {
      if (i >= n) continue;  // known when loops are unrolled
      const float given = upper ? x[i] : x[i + n], kept = upper ? x[i + n] : x[i];
      x[i] = kept + shuffle_xor(given, mask);
    }
  }
}

// What a lane keeps of the queries: of each head, Units units of the columns that the lane has of a
// key. With none they are read from shared memory each time.
template <int Heads, int Units>
struct decode_queries {
  float x[Heads][Units > 0 ? Units : 1][unit_values];
};

// What a block works on, and where it is in shared memory.
template <int Heads, int Units>
struct decode_block {
  // Keys that a team works on at once: the more there are, the fewer reads of queries or shuffles.
  static constexpr int team_rows = Heads > 1 && Units > 0 ? 2 : 4;

  const gpu::attend_args& args;
  const decode_plan& plan;
  float* queries;
  float* weights;
  decode_state* states;
  std::byte* staged;
  std::int64_t token;
  int kv_head, first_head, heads, split;

  NIBBLE_DEVICE decode_block(const gpu::attend_args& a, const decode_plan& p) : args(a), plan(p) {
    auto* const shared = reinterpret_cast<float*>(shared_memory());
    queries = shared;
    weights = shared + plan.weights_at(Heads);
    states = reinterpret_cast<decode_state*>(shared + plan.states_at(Heads));
    staged = reinterpret_cast<std::byte*>(shared + plan.staged_at(Heads));
    split = block_x();
    kv_head = block_y() / plan.passes;
    token = block_z();
    const int sharing = args.shape.n_head / args.shape.n_head_kv;
    const int first = block_y() % plan.passes * Heads;
    first_head = kv_head * sharing + first;
    heads = sharing - first < Heads ? sharing - first : Heads;
  }

  NIBBLE_DEVICE void fetch_keys(std::byte* page, const token_piece& piece) const {
    fetch_rows<decode_threads>(page + args.cache.keys, plan.key, kv_head, piece, plan.tile, staged);
  }
  NIBBLE_DEVICE void fetch_values(std::byte* page, const token_piece& piece) const {
    fetch_rows<decode_threads>(page + args.cache.values, plan.value, kv_head, piece, plan.tile,
                               staged + plan.value_bytes_at());
  }

  // Queries of heads that there are not are zeros.
  NIBBLE_DEVICE void load_queries(bool turned) const {
    const int length = args.shape.key_length, n = Heads * plan.query_floats;
    for (int set = 0; set < (turned ? 2 : 1); ++set) {
      const float* const from =
          (set == 0 ? args.q : args.q_turned) + (token * args.shape.n_head + first_head) * length;
      for (int i = thread_index(); i < n; i += decode_threads) {
        const int head = i / plan.query_floats, column = i % plan.query_floats;
        const bool there = head < heads && column < length;
        queries[set * n + i] = there ? from[head * length + column] : 0.0f;
      }
    }
    if (thread_index() < Heads) states[thread_index()] = {-positive_infinity, 0, 1, 0};
  }

  NIBBLE_DEVICE const float* query(int head, bool turned) const {
    return queries + ((turned ? Heads : 0) + head) * plan.query_floats;
  }
  NIBBLE_DEVICE int key_units() const {
    return (args.shape.key_length + unit_values - 1) / unit_values;
  }

  NIBBLE_DEVICE static void read_unit(const float* query, const unit_columns& columns,
                                      float (&x)[unit_values]) {
    const words4 first = load16(query + columns.first), second = load16(query + columns.second);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i) {
      x[i] = std::bit_cast<float>(first.w[i]);
      x[4 + i] = std::bit_cast<float>(second.w[i]);
    }
  }

  // Zeros of units beyond a key's.
  NIBBLE_DEVICE void keep_queries(decode_queries<Heads, Units>& kept, bool turned) const {
    NIBBLE_UNROLL_DEVICE
    for (int u = 0; u < Units; ++u) {
      const int unit = thread_index() % team_lanes + u * team_lanes;
      const bool there = unit < key_units();
      const unit_columns columns =
          columns_of_unit(args.cache.key_type, args.shape.key_length, there ? unit : 0);
      NIBBLE_UNROLL_DEVICE
      for (int head = 0; head < Heads; ++head) {
        read_unit(query(head, turned), columns, kept.x[head][u]);
        NIBBLE_UNROLL_DEVICE
        for (float& x : kept.x[head][u]) x = there ? x : 0.0f;
      }
    }
  }

  NIBBLE_DEVICE static float dot(const float (&a)[unit_values], const float (&b)[unit_values],
                                 float sum) {
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < unit_values; ++i) sum += a[i] * b[i];
    return sum;
  }

  // weights[row, head] = query . key, rows counted from the piece's first.
  template <kv_type Type>
  NIBBLE_DEVICE void logits_of(const token_piece& piece,
                               const decode_queries<Heads, Units>& kept) const {
    constexpr int teams = decode_threads / team_lanes, bits = type_constant<Type>::bits;
    const int team = thread_index() / team_lanes, member = thread_index() % team_lanes;
    const int length = args.shape.key_length, units = key_units();
    const int staged_row = piece.row - piece.first_row();
    const std::byte* const scales = staged + plan.tile * plan.key.codes;
    // Unit `unit` of the team's k-th row from `base` on; of another row if it has none.
    const auto load = [&](int base, int k, int unit, float(&key)[unit_values]) {
      const int row = base + team + teams * k, at = staged_row + (row < piece.n ? row : 0);
      load_unit<Type>(staged + at * plan.key.codes, scales + at * plan.key.scales, length, unit,
                      key);
    };
    for (int base = 0; base < piece.n; base += teams * team_rows) {
      float sums[Heads * team_rows] = {};
      if constexpr (Units > 0) {
        NIBBLE_UNROLL_DEVICE
        for (int k = 0; k < team_rows; ++k) {
          NIBBLE_UNROLL_DEVICE
          for (int u = 0; u < Units; ++u) {
            const int unit = member + u * team_lanes;
            float key[unit_values];
            if (unit >= units) continue;
            load(base, k, unit, key);
            NIBBLE_UNROLL_DEVICE
            for (int head = 0; head < Heads; ++head) {
              float& sum = sums[head * team_rows + k];
              sum = dot(kept.x[head][u], key, sum);
            }
          }
        }
      } else {
        for (int unit = member; unit < units; unit += team_lanes) {
          float key[team_rows][unit_values];
          NIBBLE_UNROLL_DEVICE
          for (int k = 0; k < team_rows; ++k) load(base, k, unit, key[k]);
          const unit_columns columns = columns_of_unit<bits>(length, unit);
          NIBBLE_UNROLL_DEVICE
          for (int head = 0; head < Heads; ++head) {
            float x[unit_values];
            read_unit(query(head, piece.before_gap), columns, x);
            NIBBLE_UNROLL_DEVICE
            for (int k = 0; k < team_rows; ++k) {
              float& sum = sums[head * team_rows + k];
              sum = dot(x, key[k], sum);
            }
          }
        }
      }
      write_logits(sums, base + team, teams, member, piece.n);
    }
  }

  // sums: [Heads, team_rows] of a lane; row k of a team is `first` + k * stride.
  NIBBLE_DEVICE void write_logits(float (&sums)[Heads * team_rows], int first, int stride,
                                  int member, int n) const {
    constexpr int all = Heads * team_rows, mine = all >= team_lanes ? all / team_lanes : 1;
    team_sums(sums);
    if (member * all % team_lanes != 0) return;  // another lane has the same sum
    const float softcap = args.shape.softcap;
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < mine; ++i) {
      const int number = member * all / team_lanes + i;
      const int row = first + number % team_rows * stride;
      if (row >= n) continue;
      float x = sums[i];
      if (softcap != 0) x = softcap * ::tanhf(x / softcap);
      weights[row * Heads + number / team_rows] = x;
    }
  }

  // Logits become weights relative to the greatest so far. A NaN is not the greatest, but its
  // weight is a NaN.
  NIBBLE_DEVICE void weigh(int n) const {
    for (int head = warp_index(); head < Heads; head += decode_threads / warp_size) {
      decode_state& state = states[head];
      const float before = state.greatest;
      float greatest = before;
      for (int row = lane(); row < n; row += warp_size) {
        const float x = weights[row * Heads + head];
        greatest = x > greatest ? x : greatest;
      }
      greatest = warp_max(greatest);
      float sum = 0;
      for (int row = lane(); row < n; row += warp_size) {
        float& x = weights[row * Heads + head];
        x = ::expf(x - greatest);
        sum += x;
      }
      sum = warp_sum(sum);
      if (lane() != 0) continue;
      const float keep = greatest == before ? 1.0f : ::expf(before - greatest);
      state = {greatest, state.sum * keep + sum, keep, 0};
    }
  }

  // A thread has a unit of columns of every slots-th row.
  NIBBLE_DEVICE int units() const {
    return (args.shape.value_length + unit_values - 1) / unit_values;
  }
  NIBBLE_DEVICE int slots() const { return decode_threads / units(); }

  template <kv_type Type>
  NIBBLE_DEVICE void add_values_of(const token_piece& piece,
                                   float (&sums)[Heads][unit_values]) const {
    const int unit = thread_index() % units(), slot = thread_index() / units();
    if (slot >= slots()) return;
    const std::byte* const rows = staged + plan.value_bytes_at();
    const std::byte* const scales = rows + plan.tile * plan.value.codes;
    const int staged_row = piece.row - piece.first_row();
    NIBBLE_UNROLL_DEVICE
    for (int head = 0; head < Heads; ++head) {
      const float keep = states[head].keep;
      NIBBLE_UNROLL_DEVICE
      for (int i = 0; i < unit_values; ++i) sums[head][i] *= keep;
    }
    for (int row = slot; row < piece.n; row += slots()) {
      const int at = staged_row + row;
      float value[unit_values];
      load_unit<Type>(rows + at * plan.value.codes, scales + at * plan.value.scales,
                      args.shape.value_length, unit, value);
      NIBBLE_UNROLL_DEVICE
      for (int head = 0; head < Heads; ++head) {
        const float weight = weights[row * Heads + head];
        NIBBLE_UNROLL_DEVICE
        for (int i = 0; i < unit_values; ++i) sums[head][i] += weight * value[i];
      }
    }
  }

  // Results in shared memory once the tiles are no longer needed: [Heads, value_length], and before
  // it what threads have of one head.
  NIBBLE_DEVICE float* of_threads() const { return reinterpret_cast<float*>(staged); }
  NIBBLE_DEVICE float* results() const { return of_threads() + decode_threads * unit_values; }

  // Adds up what the slots have.
  NIBBLE_DEVICE void gather(const float (&sums)[Heads][unit_values]) const {
    const int length = args.shape.value_length, n = units() * unit_values;
    NIBBLE_UNROLL_DEVICE
    for (int head = 0; head < Heads; ++head) {
      NIBBLE_UNROLL_DEVICE
      for (int i = 0; i < unit_values; ++i) {
        of_threads()[thread_index() * unit_values + i] = sums[head][i];
      }
      sync_block();
      for (int i = thread_index(); i < n; i += decode_threads) {
        float sum = 0;
        for (int slot = 0; slot < slots(); ++slot) sum += of_threads()[slot * n + i];
        const int column =
            columns_of_unit(args.cache.value_type, length, i / unit_values).at(i % unit_values);
        if (column < length) results()[head * length + column] = sum;
      }
      sync_block();
    }
  }

  NIBBLE_DEVICE std::int64_t part_number(int head, int part) const {
    return (token * args.shape.n_head + first_head + head) * args.splits + part;
  }
  NIBBLE_DEVICE void write_part() const {
    const int length = args.shape.value_length;
    for (int i = thread_index(); i < heads * length; i += decode_threads) {
      args.parts[part_number(i / length, split) * length + i % length] = results()[i];
    }
    if (thread_index() < heads) {
      float* const to = args.states + part_number(thread_index(), split) * 2;
      to[0] = states[thread_index()].greatest;
      to[1] = states[thread_index()].sum;
    }
  }

  // Whether all other parts are written. The answer goes through shared memory.
  NIBBLE_DEVICE bool is_last() const {
    auto* const answer = reinterpret_cast<std::uint32_t*>(of_threads());
    fence();
    sync_block();
    if (thread_index() == 0) {
      std::uint32_t* const counter =
          args.counters + token * args.shape.n_head_kv * plan.passes + block_y();
      const bool last = atomic_add(counter, 1) + 1 == static_cast<std::uint32_t>(args.splits);
      if (last) *counter = 0;
      *answer = last ? 1 : 0;
    }
    sync_block();
    const bool last = *answer != 0;
    if (last) fence();
    return last;
  }

  // All parts become one. Parts in which nothing was seen have a sum of 0; a NaN is not lost.
  NIBBLE_DEVICE void join() const {
    const int length = args.shape.value_length;
    for (int i = thread_index(); i < heads * length; i += decode_threads) {
      const int head = i / length;
      float greatest = -positive_infinity, sum = 0, total = 0;
      for (int part = 0; part < args.splits; ++part) {
        const float* const state = args.states + part_number(head, part) * 2;
        if (state[1] != 0 && state[0] > greatest) greatest = state[0];
      }
      for (int part = 0; part < args.splits; ++part) {
        const std::int64_t number = part_number(head, part);
        const float* const state = args.states + number * 2;
        if (state[1] == 0) continue;
        const float factor = state[0] == greatest ? 1.0f : ::expf(state[0] - greatest);
        sum += factor * state[1];
        total += factor * args.parts[number * length + i % length];
      }
      results()[i] = total;
      if (i % length == 0) states[head] = {greatest, sum, 1, 0};
    }
  }

  // The mean of the values, and their rotation undone.
  NIBBLE_DEVICE void finish() const {
    const int length = args.shape.value_length;
    if (thread_index() < heads) {
      decode_state& state = states[thread_index()];
      float keep = 1, sum = state.sum;
      if (args.shape.sinks != nullptr) {
        const float sink = args.shape.sinks[first_head + thread_index()];
        const float greatest = sink > state.greatest ? sink : state.greatest;
        keep = ::expf(state.greatest - greatest);
        sum = sum * keep + ::expf(sink - greatest);
      }
      state.factor = keep / sum;
    }
    sync_block();
    float* const out = args.out + (token * args.shape.n_head + first_head) * length;
    for (int head = warp_index(); head < heads; head += decode_threads / warp_size) {
      const warp_head row{results() + head * length, length};
      row.scale(states[head].factor);
      if (args.cache.rotate_value) row.hadamard();
      row.store(out + head * length);
    }
  }
};

// Blocks: parts, key/value heads by passes, tokens. Units: enough for the keys' columns, or 0.
template <int Heads, int Units>
NIBBLE_KERNEL(decode_threads)
attend_decode(gpu::attend_args args, decode_plan plan) {
  wait_for_previous();
  allow_next();
  const decode_block<Heads, Units> block(args, plan);
  const gpu::sequence_pages sequence =
      sequence_of(args.step, args.pages, args.cache.group, block.token);
  const token_range seen = seen_by(args.step.index[block.token], args.shape.window);
  const token_range mine = part_of(seen, block.split, args.splits);
  token_piece piece = piece_at(sequence, mine.begin, mine.end, plan.tile);
  std::byte* page = nullptr;
  if (piece.n > 0) {
    page = page_at(args.cache, args.pages, sequence, piece.page);
    block.fetch_keys(page, piece);
  }
  commit_async();
  block.load_queries(sequence.dropped > 0 && mine.begin < sequence.keep);

  float sums[Heads][unit_values] = {};
  decode_queries<Heads, Units> kept;
  bool keeps_any = false, keeps_turned = false;
  while (piece.n > 0) {
    block.fetch_values(page, piece);
    commit_async();
    const token_piece next = piece_at(sequence, piece.next(), mine.end, plan.tile);
    std::byte* const next_page =
        next.n > 0 ? page_at(args.cache, args.pages, sequence, next.page) : nullptr;
    wait_async<1>();
    sync_block();
    if (Units > 0 && (!keeps_any || keeps_turned != piece.before_gap)) {
      block.keep_queries(kept, piece.before_gap);
      keeps_any = true;
      keeps_turned = piece.before_gap;
    }
    with_type(args.cache.key_type, [&](auto constant) {
      block.template logits_of<decltype(constant)::type>(piece, kept);
    });
    sync_block();
    if (next.n > 0) block.fetch_keys(next_page, next);
    commit_async();
    block.weigh(piece.n);
    wait_async<1>();
    sync_block();
    with_type(args.cache.value_type, [&](auto constant) {
      block.template add_values_of<decltype(constant)::type>(piece, sums);
    });
    sync_block();
    piece = next;
    page = next_page;
  }
  wait_async<0>();
  sync_block();
  block.gather(sums);
  if (args.splits > 1) {
    block.write_part();
    if (!block.is_last()) return;
    block.join();
    sync_block();
  }
  block.finish();
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
