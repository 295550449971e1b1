// The memory of one program: values of the recording, and what its steps need besides. The same
// code answers "how many bytes" and hands out the pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/recording.hpp>
#include <vector>

#include "cpu/kernel_table.hpp"
#include "device/arena.hpp"

namespace nibble::inline NIBBLE_ABI {

// Activations as eight-bit integers; shapes as in cpu::q8_matrix.
struct q8_buffer {
  std::int8_t* q = nullptr;
  float* scale = nullptr;
  std::int16_t* sum = nullptr;
};

// Cosines and sines, [tokens, frequencies], of one distinct rope_spec; and those that turn a query
// back over tokens that were dropped, filled where there are some.
struct rope_table {
  const rope_spec* spec = nullptr;
  float *cosine = nullptr, *sine = nullptr;
  float *back_cosine = nullptr, *back_sine = nullptr;
};

// Whether two rotations have the same sines and cosines; their pairing may differ.
bool same_table(const rope_spec& a, const rope_spec& b);

// Segments that the attention of a single token may be shared out over; 0: it is not.
std::int64_t attend_segments(program_limits limits);

// For one thread alone.
struct thread_scratch {
  float* row = nullptr;   // the widest row that a step normalises, or a row of expert logits
  q8_buffer q8;           // one such row
  float* tile = nullptr;  // [tile_floats]: a part of a product before it is added or scattered
  std::byte* product = nullptr;  // [cpu::product_scratch_bytes]
  float* attend = nullptr;       // cpu::attend_args::scratch
  float* turned = nullptr;       // [cpu::attend_queries, key_length]: attend_query::q_turned
  float* value = nullptr;        // [value_length]
};

// How many results are computed at a time. Of many tokens: with int8 activations as many rows as
// stay in the outer caches while all tokens pass; with floats enough rows to repay the copy that
// the kernel makes of the tokens, and enough tokens to repay decoding the rows.
struct part_size {
  std::int64_t rows, tokens;
};
inline constexpr part_size q8_part = {256, 128}, f32_part = {128, 192};
inline constexpr std::int64_t tile_floats = q8_part.rows * q8_part.tokens;
static_assert(tile_floats >= f32_part.rows * f32_part.tokens);
// Of few tokens: rows of so many bytes, some microseconds of reading.
inline constexpr std::size_t few_tokens_bytes = 64 * 1024;

struct cpu_program_memory {
  workspace_layout values;
  std::byte* base = nullptr;  // of the values
  std::size_t bytes = 0;

  // Used in turn by successive products: one thread may still read the last while another fills
  // the next. Between a product and the next but one lies a barrier.
  q8_buffer q8[2];
  float* normed = nullptr;                      // [tokens, columns]
  std::int32_t* pair_order = nullptr;           // [tokens * n_used]: pairs (token, slot) by expert
  std::int32_t* pair_start = nullptr;           // [n_expert + 1]
  std::int32_t* attend_groups = nullptr;        // [tokens + 1]: where groups of queries begin
  std::int64_t segments = 0;                    // attend_segments()
  cpu::softmax_state* attend_states = nullptr;  // [n_head, segments]
  float* attend_outs = nullptr;                 // [n_head, segments, value_length]
  std::vector<rope_table> ropes;
  std::vector<thread_scratch> threads;
};

// With a null `base` only `bytes` means something. Keeps pointers to the recording's rope_specs.
cpu_program_memory lay_out_program(const recording& steps, program_limits limits,
                                   activation_type activations, int threads, std::byte* base);

}  // namespace nibble::inline NIBBLE_ABI
