// What changes from step to step: tokens, their positions, the sequences they belong to.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <span>

namespace nibble::inline NIBBLE_ABI {

using token = std::int32_t;

// A run of consecutive tokens of one sequence: its first token stands at position n_past of
// `cache`.
struct batch_chunk {
  kv_cache* cache = nullptr;
  std::int32_t first = 0;  // index of its first token in the batch
  std::int32_t count = 0;
  std::int32_t n_past = 0;  // tokens that the cache holds already
};

// Several sequences may be in one batch: prompts beside single tokens.
struct batch {
  std::span<const token> tokens;
  std::span<const batch_chunk> chunks;    // cover the tokens, in order
  std::span<const std::int32_t> outputs;  // indices of tokens whose logits are wanted, ascending
};

}  // namespace nibble::inline NIBBLE_ABI
