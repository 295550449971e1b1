// Attention of several queries over pages of keys and values of one head.
//
// Softmax is computed online (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
// arXiv:2205.14135): blocks of tokens are visited once, and what was summed so far is scaled down
// whenever a greater logit turns up. A sink is a logit that takes part in the softmax but has no
// value.
//
// For each block there are three steps that know nothing of each other: logits (attend_keys.hpp)
// by the type of the keys, weights, and sums (attend_values.hpp) by the type of the values. Up to
// four queries take keys and values as they are stored. For more (heads that share them, tokens of
// a prompt) a block's keys, then its values, are unpacked to memory once. Queries that see the same
// tokens of a block are worked on by fours. Neither changes the order in which a query's result is
// added up, so it does not depend on what is asked beside it.
//
// Sequences are cut into segments of `attend_segment` tokens by their positions, whose parts are
// added up in order, so that threads may have segments of their own without changing the result.
//
// Blocks end where pages end. Cutting the same tokens into other pages changes the result by
// rounding only (about 1e-7 of the greatest value), and not at all if pages are multiples of
// `attend_block` tokens, save for the last.
#pragma once

#include <cstdint>

#include "cpu/attend_block.hpp"
#include "cpu/attend_keys.hpp"
#include "cpu/attend_values.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/simd.hpp"
#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using cpu::softmax_state;

inline constexpr softmax_state nothing_seen = {-__builtin_inff(), 0};

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

// The logits of all queries become weights; keep: see online_softmax().
template <typename Floats>
inline void weigh(const seen_block& block, softmax_state* states, float* keep) {
  const float softcap = block.args().softcap;
  block.each([&](int q, float* p, seen_tokens seen) {
    if (softcap != 0) {
      const Floats cap(softcap);
      map<Floats>(
          seen.end - seen.begin, p + seen.begin,
          [&](const Floats& x) { return cap * tanh(x / cap); },
          static_cast<const float*>(p + seen.begin));
    }
    keep[q] = online_softmax<Floats>(states[q], p, seen);
  });
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

// Asks for n rows. They come from memory, and the processor's own prefetching starts anew in each
// page. Rows of four bits are a line or less, and asking for them costs more than it gives.
inline void fetch_rows(row_type type, const cpu::kv_rows& rows, std::int64_t length,
                       std::int64_t n) {
  if (four_bits(type)) return;
  const auto* const from = static_cast<const unsigned char*>(rows.codes);
  const std::int64_t bytes = n * row_code_bytes(type, length);
  for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}

// Pages of keys and values that are walked through by segments.
template <typename Floats>
class segment_walk {
 public:
  explicit segment_walk(const cpu::attend_args& args) : args_(args), block_(args) {}

  bool at_end() const { return page_ == args_.n_pages; }

  // What the queries see of the next segment goes to their `out`, not yet divided, and to `states`.
  void next(softmax_state* states) {
    for (int q = 0; q < args_.n_queries; ++q) {
      states[q] = nothing_seen;
      for (std::int64_t j = 0; j < args_.value_length; ++j) args_.queries[q].out[j] = 0;
    }
    const std::int64_t segment = segment_of(at_);
    for (; page_ < args_.n_pages && segment_of(at_) == segment; ++page_) {
      add_page(args_.pages[page_], states);
      at_ += args_.pages[page_].count;
    }
  }

 private:
  std::int64_t segment_of(std::int64_t token) const {
    return (args_.first + token) / cpu::attend_segment;
  }

  // The keys of the block after this one, which ends at token `end` of its page.
  void fetch_keys_after(const cpu::kv_page& page, std::int64_t end) const {
    const auto type = static_cast<row_type>(args_.key_type);
    const bool last = end == page.count;
    if (last && page_ + 1 == args_.n_pages) return;
    const cpu::kv_page& next = last ? args_.pages[page_ + 1] : page;
    const std::int64_t at = last ? 0 : end;
    fetch_rows(type, rows_from(type, next.key, args_.key_length, at), args_.key_length,
               least<std::int64_t>(attend_block, next.count - at));
  }

  void add_page(const cpu::kv_page& page, softmax_state* states) {
    const auto key = static_cast<row_type>(args_.key_type);
    const auto value = static_cast<row_type>(args_.value_type);
    for (std::int64_t at = 0; at < page.count; at += attend_block) {
      const int n = static_cast<int>(least<std::int64_t>(attend_block, page.count - at));
      if (!block_.begin(at_ + at, n)) continue;
      float keep[cpu::attend_queries];
      const cpu::kv_rows values = rows_from(value, page.value, args_.value_length, at);
      if (block_.few()) fetch_rows(value, values, args_.value_length, n);
      make_logits<Floats>(block_, rows_from(key, page.key, args_.key_length, at), page.turned);
      if (block_.few()) fetch_keys_after(page, at + n);
      weigh<Floats>(block_, states, keep);
      add_values_of<Floats>(block_, keep, values);
    }
  }

  const cpu::attend_args& args_;
  seen_block block_;
  std::int64_t page_ = 0, at_ = 0;  // the next page, and its first token
};

// See cpu::attend_args.
template <typename Arch>
void attend(const cpu::attend_args& args) {
  using floats = typename Arch::floats;
  const std::int64_t length = args.value_length;
  round_queries(args);
  segment_walk<floats> walk(args);
  if (args.states) return walk.next(args.states);

  softmax_state states[cpu::attend_queries];
  walk.next(states);
  if (!walk.at_end()) {
    float* const totals = args.scratch + attend_scratch(args.key_length, length).totals;
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
