// Attention of several queries over pages of keys and values of one head.
//
// Softmax is computed online (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
// arXiv:2205.14135): blocks of tokens are visited once, and what was summed so far is scaled down
// whenever a greater logit turns up. A sink is a logit that takes part in the softmax but has no
// value.
//
// Up to four queries take keys and values as they are stored. For more (heads that share them,
// tokens of a prompt) a block's keys, then its values, become floats in memory once. Queries that
// see the same tokens of a block are worked on by fours. Neither changes the order in which a
// query's result is added up, so it does not depend on what is asked beside it.
//
// Sequences are cut into segments of `attend_segment` tokens by their positions, whose parts are
// added up in order, so that threads may have segments of their own without changing the result.
//
// Blocks end where pages end. Cutting the same tokens into other pages changes the result by
// rounding only (about 1e-7 of the greatest value), and not at all if pages are multiples of
// `attend_block` tokens, save for the last.
#pragma once

#include <cstdint>

#include "cpu/kernel_table.hpp"
#include "cpu/simd.hpp"
#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using cpu::attend_block;

using cpu::softmax_state;

inline constexpr softmax_state nothing_seen = {-__builtin_inff(), 0};

// What a query sees of a block: tokens [begin, end).
struct seen_tokens {
  int begin, end;
  bool operator==(const seen_tokens&) const = default;
};

// p[q][t] = queries[q] . keys[t] for Tokens tokens from t on.
template <typename Floats, int Queries, int Tokens, typename Storage>
inline void query_keys(const cpu::attend_query* queries, const Storage* keys, std::int64_t length,
                       float* p) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  Floats acc[Queries * Tokens];
  NIBBLE_UNROLL for (Floats& a : acc) a = Floats(0.0f);
  std::int64_t j = 0;
  for (; j + width <= length; j += width) {
    Floats k[Tokens];
    NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
      k[t] = load<Floats>(keys + t * length + j);
    }
    NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
      const Floats x = Floats::load_unaligned(queries[q].q + j);
      NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
        acc[q * Tokens + t] = mul_add(x, k[t], acc[q * Tokens + t]);
      }
    }
  }
  if (j < length) {
    NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
      const Floats x = load_part<Floats>(queries[q].q + j, length - j);
      NIBBLE_UNROLL for (int t = 0; t < Tokens; ++t) {
        acc[q * Tokens + t] =
            mul_add(x, load_part<Floats>(keys + t * length + j, length - j), acc[q * Tokens + t]);
      }
    }
  }
  float sums[Queries * Tokens];
  lane_sums(acc, sums);
  NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
    std::memcpy(p + q * attend_block, sums + q * Tokens, Tokens * sizeof(float));
  }
}

// Tokens of a tile, whose sums fill half of the registers.
template <typename Floats, int Queries>
inline constexpr int attend_tokens = least(vector_registers<Floats> / 2 / Queries, 8);

template <typename Floats, int Queries, typename Storage>
inline void query_block(const cpu::attend_query* queries, const Storage* keys, std::int64_t length,
                        seen_tokens seen, float* p) {
  constexpr int tokens = attend_tokens<Floats, Queries>;
  int t = seen.begin;
  for (; t + tokens <= seen.end; t += tokens) {
    query_keys<Floats, Queries, tokens>(queries, keys + t * length, length, p + t);
  }
  for (; t < seen.end; ++t) {
    query_keys<Floats, Queries, 1>(queries, keys + t * length, length, p + t);
  }
}

// out[j] = out[j] * keep + sum of p[t] * values[t][j] for `Vectors` vectors of columns from j on.
template <typename Floats, int Queries, int Vectors, typename Storage>
inline void add_values(const cpu::attend_query* queries, const float* keep, const float* p,
                       const Storage* values, std::int64_t length, seen_tokens seen,
                       std::int64_t j) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  Floats acc[Queries][Vectors];
  NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
    NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) {
      acc[q][v] = Floats::load_unaligned(queries[q].out + j + v * width) * Floats(keep[q]);
    }
  }
  for (int t = seen.begin; t < seen.end; ++t) {
    Floats x[Vectors];
    NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) {
      x[v] = load<Floats>(values + t * length + j + v * width);
    }
    NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
      const Floats weight(p[q * attend_block + t]);
      NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) acc[q][v] = mul_add(weight, x[v], acc[q][v]);
    }
  }
  NIBBLE_UNROLL for (int q = 0; q < Queries; ++q) {
    NIBBLE_UNROLL for (int v = 0; v < Vectors; ++v) {
      acc[q][v].store_unaligned(queries[q].out + j + v * width);
    }
  }
}

template <typename Floats, int Queries, typename Storage>
inline void value_block(const cpu::attend_query* queries, const float* keep, const float* p,
                        const Storage* values, std::int64_t length, seen_tokens seen) {
  constexpr auto width = static_cast<std::int64_t>(Floats::size);
  constexpr int vectors = Queries == 1 ? 4 : 2;
  std::int64_t j = 0;
  for (; j + vectors * width <= length; j += vectors * width) {
    add_values<Floats, Queries, vectors>(queries, keep, p, values, length, seen, j);
  }
  for (; j + width <= length; j += width) {
    add_values<Floats, Queries, 1>(queries, keep, p, values, length, seen, j);
  }
  for (; j < length; ++j) {
    add_values<plain_floats<1>, Queries, 1>(queries, keep, p, values, length, seen, j);
  }
}

template <typename Floats>
inline float greatest_of(const float* p, seen_tokens seen, float greatest) {
  constexpr int width = static_cast<int>(Floats::size);
  int i = seen.begin;
  if (i + width <= seen.end) {
    Floats most(greatest);
    for (; i + width <= seen.end; i += width) most = max(Floats::load_unaligned(p + i), most);
    float lane[Floats::size];
    most.store_unaligned(lane);
    for (const float x : lane) greatest = x > greatest ? x : greatest;
  }
  for (; i < seen.end; ++i) greatest = p[i] > greatest ? p[i] : greatest;
  return greatest;
}

// Turns the logits that are seen into weights relative to the greatest logit so far and counts them
// in; returns what earlier weights are to be multiplied by.
template <typename Floats>
inline float online_softmax(softmax_state& state, float* p, seen_tokens seen) {
  const float greatest = greatest_of<Floats>(p, seen, state.greatest);
  const Floats shift(greatest);
  map<Floats>(
      seen.end - seen.begin, p + seen.begin,
      [&](const Floats& x) { return exp_negative(x - shift); },
      static_cast<const float*>(p + seen.begin));
  // lanes by the place in the block, so that the order does not depend on where it begins
  using eight = vector_type<float, 32>::type;
  const int first = seen.begin / 8 * 8;
  for (int i = first; i < seen.begin; ++i) p[i] = 0;
  eight sum{};
  int i = first;
  for (; i + 8 <= seen.end; i += 8) sum += read<eight>(p + i);
  float lane[8];
  write(lane, sum);
  for (int j = 0; i < seen.end; ++i, ++j) lane[j] += p[i];
  const float keep = greatest == state.greatest ? 1.0f : ::expf(state.greatest - greatest);
  state = {greatest, state.sum * keep + halving_sum(lane)};
  return keep;
}

// All queries over one block, whose first token is `first` of the pages' tokens.
template <typename Floats>
class block_attention {
 public:
  block_attention(const cpu::attend_args& args, softmax_state* states)
      : args_(args), states_(states) {}

  // What the queries see of a block of n tokens; false if that is nothing.
  bool begin(std::int64_t first, int n) {
    all_ = {n, 0};
    for (int q = 0; q < args_.n_queries; ++q) {
      const cpu::attend_query& query = args_.queries[q];
      const std::int64_t begin = query.begin - first, end = query.end - first;
      seen_tokens& seen = seen_[q];
      seen = {begin > 0 ? static_cast<int>(least<std::int64_t>(begin, n)) : 0,
              end > 0 ? static_cast<int>(least<std::int64_t>(end, n)) : 0};
      if (seen.begin >= seen.end) continue;
      all_ = {least(all_.begin, seen.begin), seen.end > all_.end ? seen.end : all_.end};
    }
    return all_.begin < all_.end;
  }
  // What is seen by any of them.
  seen_tokens all() const { return all_; }

  template <typename Storage>
  void weigh(const Storage* keys, float* p) {
    by_fours([&]<int Queries>(std::integral_constant<int, Queries>, int q) {
      query_block<Floats, Queries>(args_.queries + q, keys, args_.key_length, seen_[q],
                                   p + q * attend_block);
    });
    for (int q = 0; q < args_.n_queries; ++q, p += attend_block) {
      const seen_tokens seen = seen_[q];
      if (seen.begin >= seen.end) continue;
      if (args_.softcap != 0) {
        const Floats cap(args_.softcap);
        map<Floats>(
            seen.end - seen.begin, p + seen.begin,
            [&](const Floats& x) { return cap * tanh(x / cap); },
            static_cast<const float*>(p + seen.begin));
      }
      keep_[q] = online_softmax<Floats>(states_[q], p, seen);
    }
  }

  template <typename Storage>
  void add(const Storage* values, const float* p) {
    by_fours([&]<int Queries>(std::integral_constant<int, Queries>, int q) {
      value_block<Floats, Queries>(args_.queries + q, keep_ + q, p + q * attend_block, values,
                                   args_.value_length, seen_[q]);
    });
  }

 private:
  // f(constant 4 or 1, first query): all queries that see something.
  template <typename Function>
  void by_fours(Function f) {
    for (int q = 0; q < args_.n_queries;) {
      const seen_tokens seen = seen_[q];
      const bool four = q + 4 <= args_.n_queries && seen_[q + 1] == seen && seen_[q + 2] == seen &&
                        seen_[q + 3] == seen;
      if (seen.begin < seen.end) {
        if (four) {
          f(std::integral_constant<int, 4>{}, q);
        } else {
          f(std::integral_constant<int, 1>{}, q);
        }
      }
      q += four ? 4 : 1;
    }
  }

  const cpu::attend_args& args_;
  softmax_state* states_;
  seen_tokens seen_[cpu::attend_queries];
  float keep_[cpu::attend_queries];
  seen_tokens all_{};
};

// Rows [seen] of `length` values as floats, in place or in `to`: the address of row 0.
template <typename Floats>
inline const float* rows_as_floats(const float* rows, std::int64_t, seen_tokens, float*) {
  return rows;
}
template <typename Floats>
inline const float* rows_as_floats(const half* rows, std::int64_t length, seen_tokens seen,
                                   float* to) {
  const std::int64_t first = seen.begin * length;
  map<Floats>((seen.end - seen.begin) * length, to + first, [](const Floats& x) { return x; },
              rows + first);
  return to;
}

// Adds a segment to those before it: the order of operations is the same whoever adds them.
inline void add_segment(softmax_state& total, float* __restrict out, const softmax_state& segment,
                        const float* __restrict segment_out, std::int64_t length) {
  if (segment.sum == 0) return;  // nothing was seen; a NaN is not lost
  if (total.sum == 0) {
    total = segment;
    std::memcpy(out, segment_out, static_cast<std::size_t>(length) * sizeof(float));
    return;
  }
  const float greatest = segment.greatest > total.greatest ? segment.greatest : total.greatest;
  const float keep = ::expf(total.greatest - greatest), add = ::expf(segment.greatest - greatest);
  for (std::int64_t j = 0; j < length; ++j) out[j] = out[j] * keep + segment_out[j] * add;
  total = {greatest, total.sum * keep + segment.sum * add};
}

// The mean of the values. sink: null, or a logit without a value
template <typename Floats>
inline void finish_query(const softmax_state& state, const float* sink, std::int64_t length,
                         float* out) {
  float keep = 1, sum = state.sum;
  if (sink) {
    const float greatest = *sink > state.greatest ? *sink : state.greatest;
    keep = ::expf(state.greatest - greatest);
    sum = sum * keep + ::expf(*sink - greatest);
  }
  // not vectors' division: on NEON that is an approximation
  const Floats factor(keep / sum);
  map<Floats>(
      length, out, [&](const Floats& x) { return x * factor; }, static_cast<const float*>(out));
}

// Pages of keys and values that are walked through by segments.
template <typename Arch, typename Storage>
class segment_walk {
 public:
  using floats = typename Arch::floats;

  explicit segment_walk(const cpu::attend_args& args) : args_(args) {}

  bool at_end() const { return page_ == args_.n_pages; }

  // What the queries see of the next segment goes to their `out`, not yet divided, and to `states`.
  void next(softmax_state* states) {
    for (int q = 0; q < args_.n_queries; ++q) {
      states[q] = nothing_seen;
      for (std::int64_t j = 0; j < args_.value_length; ++j) args_.queries[q].out[j] = 0;
    }
    block_attention<floats> block(args_, states);
    const std::int64_t segment = segment_of(at_);
    for (; page_ < args_.n_pages && segment_of(at_) == segment; ++page_) {
      add_page(block, args_.pages[page_]);
      at_ += args_.pages[page_].count;
    }
  }

 private:
  std::int64_t segment_of(std::int64_t token) const {
    return (args_.first + token) / cpu::attend_segment;
  }

  void add_page(block_attention<floats>& block, const cpu::kv_page& page) {
    const std::int64_t key_length = args_.key_length, value_length = args_.value_length;
    const auto* const keys = static_cast<const Storage*>(page.key);
    const auto* const values = static_cast<const Storage*>(page.value);
    float* const p = args_.scratch;
    float* const rows = args_.scratch + cpu::attend_queries * attend_block;
    for (std::int64_t at = 0; at < page.count; at += attend_block) {
      const int n = static_cast<int>(least<std::int64_t>(attend_block, page.count - at));
      if (!block.begin(at_ + at, n)) continue;
      const Storage* const key = keys + at * key_length;
      const Storage* const value = values + at * value_length;
      if (args_.n_queries <= 4) {  // who uses a row once need not keep it
        block.weigh(key, p);
        block.add(value, p);
      } else {
        block.weigh(rows_as_floats<floats>(key, key_length, block.all(), rows), p);
        block.add(rows_as_floats<floats>(value, value_length, block.all(), rows), p);
      }
    }
  }

  const cpu::attend_args& args_;
  std::int64_t page_ = 0, at_ = 0;  // the next page, and its first token
};

// See cpu::attend_args; keys and values are arrays of Storage.
template <typename Arch, typename Storage>
void attend(const cpu::attend_args& args) {
  using floats = typename Arch::floats;
  const std::int64_t length = args.value_length;
  segment_walk<Arch, Storage> walk(args);
  if (args.states) return walk.next(args.states);

  softmax_state states[cpu::attend_queries];
  walk.next(states);
  if (!walk.at_end()) {
    float* const totals = args.scratch + cpu::attend_queries * attend_block +
                          attend_block * (args.key_length > length ? args.key_length : length);
    softmax_state total[cpu::attend_queries];
    for (int q = 0; q < args.n_queries; ++q) total[q] = nothing_seen;
    for (;;) {
      for (int q = 0; q < args.n_queries; ++q) {
        add_segment(total[q], totals + q * length, states[q], args.queries[q].out, length);
      }
      if (walk.at_end()) break;
      walk.next(states);
    }
    for (int q = 0; q < args.n_queries; ++q) {
      states[q] = total[q];
      std::memcpy(args.queries[q].out, totals + q * length,
                  static_cast<std::size_t>(length) * sizeof(float));
    }
  }
  for (int q = 0; q < args.n_queries; ++q) {
    finish_query<floats>(states[q], args.queries[q].sink, length, args.queries[q].out);
  }
}

// See kernel_table::join_segments.
template <typename Arch>
void join_segments(const softmax_state* states, const float* parts, std::int64_t n,
                   const float* sink, std::int64_t length, float* out) {
  softmax_state total = nothing_seen;
  for (std::int64_t i = 0; i < n; ++i) {
    add_segment(total, out, states[i], parts + i * length, length);
  }
  finish_query<typename Arch::floats>(total, sink, length, out);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
