// Random weights, written as blocks of their format.
#pragma once

#include <cstdint>
#include <functional>
#include <nibble/formats/format_id.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/tensor/view.hpp>
#include <string>

namespace synth {

struct random_tensor {
  std::string name;
  nibble::format_id format;
  nibble::shape shape;
  float mean = 0;    // of formats with one value a block; the others are balanced about zero
  float spread = 1;  // standard deviation
};

struct random_options {
  std::uint64_t seed = 0;
  unsigned threads = 1;
  // Called by the writing thread with the bytes that it has written since the last call; may throw.
  std::function<void(std::uint64_t)> written;
};

// The tensor's bytes. They depend on the name, the seed, the format and the shape, and not on the
// number of threads. Memory: a few MiB a thread. `options` is copied.
nibble::gguf::tensor_source random_source(const random_tensor& tensor,
                                          const random_options& options);

}  // namespace synth
