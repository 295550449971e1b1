// A block of tokens, and which of them each query sees.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/attend_scratch.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/simd.hpp"
#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using cpu::attend_block;

// Up to so many queries take keys and values as they are stored.
inline constexpr int few_queries = 4;

// What a query sees of a block: tokens [begin, end).
struct seen_tokens {
  int begin, end;
  bool operator==(const seen_tokens&) const = default;
};

class seen_block {
 public:
  explicit seen_block(const cpu::attend_args& args)
      : args_(args), space_(args.key_length, args.value_length) {}

  // What the queries see of a block of n tokens, whose first one is `first` of the pages' tokens;
  // false if that is nothing.
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

  const cpu::attend_args& args() const { return args_; }
  const attend_scratch& space() const { return space_; }
  float* scratch(std::int64_t at) const { return args_.scratch + at; }
  bool few() const { return args_.n_queries <= few_queries; }
  // What is seen by any query, and by one.
  seen_tokens all() const { return all_; }
  seen_tokens seen(int q) const { return seen_[q]; }
  // Logits, then weights of a query.
  float* weights(int q) const { return args_.scratch + q * attend_block; }

  // f(constant 4 or 1, first query): all queries that see something.
  template <typename Function>
  void by_fours(Function f) const {
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

  // f(weights, tokens) of each query that sees something, and its number.
  template <typename Function>
  void each(Function f) const {
    for (int q = 0; q < args_.n_queries; ++q) {
      if (seen_[q].begin < seen_[q].end) f(q, weights(q), seen_[q]);
    }
  }

 private:
  const cpu::attend_args& args_;
  attend_scratch space_;
  seen_tokens seen_[cpu::attend_queries];
  seen_tokens all_{};
};

// Scales of rows [seen], `n` of each, as floats in `to`.
template <typename Floats>
inline void scales_as_floats(const void* scales, std::int64_t n, seen_tokens seen, float* to) {
  const std::int64_t first = seen.begin * n;
  map<Floats>((seen.end - seen.begin) * n, to + first, [](const Floats& x) { return x; },
              static_cast<const half*>(scales) + first);
}

// Rows [seen] of `length` values as floats, in place or in `to`: the address of row 0.
template <typename Floats>
inline const float* rows_as_floats(const float* rows, std::int64_t, seen_tokens, float*) {
  return rows;
}
template <typename Floats, typename Storage>
inline const float* rows_as_floats(const Storage* rows, std::int64_t length, seen_tokens seen,
                                   float* to) {
  const std::int64_t first = seen.begin * length;
  map<Floats>((seen.end - seen.begin) * length, to + first, [](const Floats& x) { return x; },
              rows + first);
  return to;
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
