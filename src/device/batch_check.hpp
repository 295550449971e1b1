// Whether a batch can be run, before anything is changed.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/batch.hpp>
#include <nibble/device/recording.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

class backend;

// What a recording asks of its batches.
struct batch_needs {
  program_limits limits;
  std::int64_t n_vocab = 0;  // 0: token ids are not looked at
  bool outputs = false;      // rows of wanted tokens are made
  struct attended_layer {
    std::int32_t layer;
    kv_layer shape;
  };
  std::vector<attended_layer> layers;
};

batch_needs find_needs(const recording& r, program_limits limits);

// Throws error (invalid_argument) that says what is wrong with the batch. `owner`: the backend that
// the caches must come from.
void check_batch(const batch& work, const batch_needs& needs, const backend* owner);

}  // namespace nibble::inline NIBBLE_ABI
