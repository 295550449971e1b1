// Before attention: the tables of the rotary position embedding, and heads of queries, keys and
// values on their way to attention and to the cache. What is computed is what
// device/cpu_steps_attend.cpp says.
#pragma once

#include <cmath>

#include "gpu/kv_rows.hpp"
#include "gpu/warp_head.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int rope_threads = 128;
inline constexpr int prepare_threads = 128;

// A thread makes one token's cosine and sine of one frequency. Angles are made in double: a float
// has too few bits for position 100000 times a frequency.
NIBBLE_KERNEL(rope_threads) rope_tables(gpu::rope_args args) {
  wait_for_previous();
  allow_next();
  const std::int64_t i = std::int64_t{block_x()} * rope_threads + thread_index();
  if (i >= args.tokens * args.n) return;
  const std::int64_t token = i / args.n;
  const double frequency = args.frequencies[i % args.n];
  const double angle = static_cast<double>(args.step.place[token]) * frequency;
  const auto magnitude = static_cast<double>(args.magnitude);
  args.cosine[i] = static_cast<float>(::cos(angle) * magnitude);
  args.sine[i] = static_cast<float>(::sin(angle) * magnitude);
  if (args.back_cosine == nullptr) return;
  const std::int64_t dropped = sequence_of(args.step, args.pages, args.group, token).dropped;
  if (dropped == 0) return;
  const double back = -static_cast<double>(dropped) * frequency;
  args.back_cosine[i] = static_cast<float>(::cos(back));
  args.back_sine[i] = static_cast<float>(::sin(back));
}

NIBBLE_DEVICE float query_scale(const gpu::attend_shape& shape, std::int64_t index) {
  if (shape.temperature_scale == 0) return shape.scale;
  const double periods = ::floor(static_cast<double>(index) / shape.temperature_period);
  return static_cast<float>(
      static_cast<double>(shape.scale) *
      (1.0 + static_cast<double>(shape.temperature_scale) * ::log(1.0 + periods)));
}

// A query, in place, and as it looks at tokens before the gap: at its index, not at its place.
NIBBLE_DEVICE void prepare_query(const gpu::attend_prepare_args& args, std::int64_t token, int head,
                                 const warp_head& row) {
  const gpu::attend_shape& shape = args.shape;
  const std::int64_t at = (token * shape.n_head + head) * shape.key_length;
  const std::int64_t table = token * shape.rope_pairs;
  row.load(args.q + at);
  if (shape.q_gain != nullptr) row.norm(shape.q_gain, shape.q_epsilon);
  row.rope(shape.rope_style, shape.rope_pairs, shape.cosine + table, shape.sine + table);
  row.scale(query_scale(shape, args.step.index[token]));
  if (args.cache.rotate_key) row.hadamard();
  row.store(args.q + at);
  if (args.q_turned == nullptr) return;
  const gpu::sequence_pages& sequence = sequence_of(args.step, args.pages, args.cache.group, token);
  if (sequence.dropped == 0 || sequence.keep == 0) return;
  if (args.cache.rotate_key) row.hadamard();  // undone, and done again
  row.rope(shape.rope_style, shape.rope_pairs, shape.back_cosine + table, shape.back_sine + table);
  if (args.cache.rotate_key) row.hadamard();
  row.store(args.q_turned + at);
}

NIBBLE_DEVICE void prepare_key(const gpu::attend_prepare_args& args, std::int64_t token, int head,
                               const warp_head& row, std::byte* page, row_size size) {
  const gpu::attend_shape& shape = args.shape;
  const std::int64_t table = token * shape.rope_pairs;
  row.load(args.k + (token * shape.n_head_kv + head) * shape.key_length);
  if (shape.k_gain != nullptr) row.norm(shape.k_gain, shape.k_epsilon);
  row.rope(shape.rope_style, shape.rope_pairs, shape.cosine + table, shape.sine + table);
  if (args.cache.rotate_key) row.hadamard();
  const int in_page = static_cast<int>(args.step.place[token] % page_tokens);
  store_row(args.cache.key_type, row.x, row.length,
            rows_of_head(page + args.cache.keys, size, head, in_page));
}

NIBBLE_DEVICE void prepare_value(const gpu::attend_prepare_args& args, std::int64_t token, int head,
                                 const warp_head& row, std::byte* page, row_size size) {
  row.load(args.v + (token * args.shape.n_head_kv + head) * args.shape.value_length);
  if (args.cache.rotate_value) row.hadamard();
  const int in_page = static_cast<int>(args.step.place[token] % page_tokens);
  store_row(args.cache.value_type, row.x, row.length,
            rows_of_head(page + args.cache.values, size, head, in_page));
}

// Floats of shared memory that a warp's head takes.
NIBBLE_HD inline int prepared_head_floats(const gpu::attend_shape& shape) {
  const int longer = shape.key_length > shape.value_length ? shape.key_length : shape.value_length;
  return (longer + 3) / 4 * 4;
}

// A warp takes one head of one token: queries first, then keys, then values. Blocks: heads by the
// warps of a block, tokens. key, value: bytes of a row in the cache.
NIBBLE_KERNEL(prepare_threads)
prepare_heads(gpu::attend_prepare_args args, row_size key, row_size value) {
  wait_for_previous();
  allow_next();
  const gpu::attend_shape& shape = args.shape;
  const int number = block_x() * (prepare_threads / warp_size) + warp_index();
  const std::int64_t token = block_y();
  if (number >= shape.n_head + 2 * shape.n_head_kv) return;  // a whole warp
  float* const x =
      reinterpret_cast<float*>(shared_memory()) + warp_index() * prepared_head_floats(shape);
  if (number < shape.n_head) {
    return prepare_query(args, token, number, {x, shape.key_length});
  }
  const gpu::sequence_pages& sequence = sequence_of(args.step, args.pages, args.cache.group, token);
  std::byte* const page =
      page_at(args.cache, args.pages, sequence, args.step.place[token] / page_tokens);
  const int head = number - shape.n_head;
  if (head < shape.n_head_kv) {
    prepare_key(args, token, head, {x, shape.key_length}, page, key);
  } else {
    prepare_value(args, token, head - shape.n_head_kv, {x, shape.value_length}, page, value);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
