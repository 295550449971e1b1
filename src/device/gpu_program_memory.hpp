// The memory of one program on a GPU: values of the recording, what its steps need besides, and
// what each batch brings. The same code answers "how many bytes" and hands out the pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/recording.hpp>
#include <span>
#include <vector>

#include "gpu/module.hpp"

namespace nibble::inline NIBBLE_ABI {

// Cosines and sines of one distinct rotation, [tokens, frequencies].
struct gpu_rope_table {
  const rope_spec* spec = nullptr;
  double* frequencies = nullptr;
  float *cosine = nullptr, *sine = nullptr;
  float *back_cosine = nullptr, *back_sine = nullptr;  // over tokens that were dropped
};

// What a batch brings, in one block that is uploaded at once. The same layout is carved out of
// pinned memory, where it is filled in, and out of the device's.
struct gpu_step_block {
  std::int32_t* ids = nullptr;               // [tokens]
  std::int32_t* chunk = nullptr;             // [tokens]
  std::int64_t* index = nullptr;             // [tokens]
  std::int64_t* place = nullptr;             // [tokens]
  std::int32_t* outputs = nullptr;           // [outputs]
  gpu::sequence_pages* sequences = nullptr;  // [groups, max_sequences]
  std::int32_t* page_numbers = nullptr;      // [page_numbers_room]
};

// How long its arrays are.
struct gpu_step_sizes {
  std::int32_t tokens = 0, outputs = 0;
  std::int32_t groups = 0;     // of layers, at most
  std::int32_t sequences = 0;  // in a batch, at most
  std::int64_t page_numbers = 0;

  friend bool operator==(const gpu_step_sizes&, const gpu_step_sizes&) = default;
};

// Everything that a program needs. Of `size`, host_own is the step's block in pinned memory.
struct gpu_program_memory {
  workspace_layout values;
  std::byte* base = nullptr;  // of the values
  workspace_size size;

  gpu::q8_rows q8{};                   // the greatest quantised input
  float* normed = nullptr;             // the greatest input that stays in floats
  std::int32_t* pair_order = nullptr;  // [tokens * n_used]
  std::int32_t* pair_start = nullptr;  // [n_expert + 1]
  float* q_turned = nullptr;           // [tokens, n_head * key_length]
  float* attend_parts = nullptr;       // gpu::attend_args
  float* attend_states = nullptr;
  std::uint32_t* attend_counters = nullptr;
  std::int64_t n_counters = 0;
  std::vector<gpu_rope_table> ropes;
  gpu_step_sizes step_sizes;
  gpu_step_block step;  // on the device
  std::byte* step_base = nullptr;
  std::size_t step_bytes = 0;
  std::byte *host_input = nullptr, *host_output = nullptr;  // pinned
};

// Lays a step's arrays out from `base` on; null only counts. Returns the bytes.
std::size_t lay_out_step(const gpu_step_sizes& sizes, std::byte* base, gpu_step_block& block);

// Splits of a sequence that `tokens` tokens' attention is shared out over: enough blocks for every
// multiprocessor to have some.
std::int32_t attend_splits(const gpu::device_facts& facts, std::int64_t tokens,
                           std::int32_t n_head_kv);

// Where the parts of a program's memory begin; null only counts.
struct gpu_program_bases {
  std::byte* shared = nullptr;
  std::byte* own = nullptr;          // what keeps its values from run to run
  std::byte* host_shared = nullptr;  // pinned
};

gpu_program_memory lay_out_gpu_program(const recording& r, program_limits limits,
                                       activation_type activations, const gpu::device_facts& facts,
                                       const gpu_program_bases& at = {});

}  // namespace nibble::inline NIBBLE_ABI
