// What an architecture emits: the steps of a run of blocks, over named buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/steps.hpp>
#include <span>
#include <utility>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// The steps of one segment. `input` and `output` are what crosses its borders: the hidden state, or
// nothing (a segment that starts with the embedding), or the logits (one that ends with the head).
struct recording {
  std::vector<value_info> values;
  std::vector<step> steps;
  value input, output;

  value make(value_info info) {
    values.push_back(info);
    return {static_cast<std::int32_t>(values.size() - 1)};
  }
  value make(std::int64_t width) { return make(value_info{.width = width}); }
  const value_info& info(value v) const { return values[static_cast<std::size_t>(v.id)]; }
  void emit(step s) { steps.push_back(std::move(s)); }
  friend bool operator==(const recording&, const recording&) = default;
};

// The greatest batch that a program made from a recording will be given.
struct program_limits {
  std::int32_t max_tokens = 1;
  std::int32_t max_outputs = 1;
  // Tokens of context over which the attention of a single token may be shared out among threads;
  // 0: it is not.
  std::int32_t max_context = 0;
};

// Bytes of a value's rows, without alignment.
constexpr std::size_t value_bytes(const value_info& info, program_limits limits) {
  const std::int32_t rows =
      info.rows == value_rows::per_token ? limits.max_tokens : limits.max_outputs;
  return static_cast<std::size_t>(info.width) * static_cast<std::size_t>(rows) * 4;
}

// Where each value lies. Values that are never alive together share bytes.
struct workspace_layout {
  std::vector<std::size_t> offset;  // by value id
  std::size_t bytes = 0;
};

inline constexpr std::size_t workspace_alignment = 256;

// "matmul"
NIBBLE_API const char* step_name(const step& s);

// Whether the steps make sense: values exist, are written before they are read, have the widths,
// rows and element types that the steps and their weights ask for, and are not both read and
// written by a step that cannot work in place. Throws error (invalid_argument) that names the first
// bad step by index and kind. Every backend calls this before it makes a program.
NIBBLE_API void check_recording(const recording& steps);

// A value that a backend reads up to this step, later than the recording says.
struct kept_value {
  value which;
  std::size_t until = 0;
};

NIBBLE_API workspace_layout lay_out_workspace(const recording& steps, program_limits limits,
                                              std::span<const kept_value> kept = {});

}  // namespace nibble::inline NIBBLE_ABI
