// What changes from step to step: tokens, their positions, the sequences they belong to.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <nibble/device/kv_table.hpp>
#include <span>

namespace nibble::inline NIBBLE_ABI {

using token = std::int32_t;

// A run of consecutive tokens of one sequence, whose first one gets index n_past.
struct batch_chunk {
  kv_cache* cache = nullptr;
  // Has pages for all tokens that are to be seen, and for the new ones, which no other sequence
  // uses.
  const kv_table* table = nullptr;
  std::int32_t first = 0;  // index of its first token in the batch
  std::int32_t count = 0;
  std::int32_t n_past = 0;  // tokens that the sequence holds already
};

// Several sequences may be in one batch: prompts beside single tokens.
struct batch {
  std::span<const token> tokens;
  std::span<const batch_chunk> chunks;    // cover the tokens, in order
  std::span<const std::int32_t> outputs;  // indices of tokens whose logits are wanted, ascending
};

}  // namespace nibble::inline NIBBLE_ABI
