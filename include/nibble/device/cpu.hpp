// The CPU as a backend.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Sees what enters the matrix products of a backend, for programs that measure models.
class NIBBLE_API matmul_observer {
 public:
  virtual ~matmul_observer() = default;
  // x: [columns], a token's input of matrix `which` of the weight (an expert's; else 0): in floats,
  // normalised where the product normalises. Before each product, by one thread at a time: for
  // each token in turn, for each of its experts in turn. Neither the numbers nor their order depend
  // on the number of threads.
  virtual void observe(const weight& matrix, std::int64_t which,
                       std::span<const float> x) noexcept = 0;
};

struct cpu_options {
  // 0: NIBBLE_NUM_THREADS, then OMP_NUM_THREADS, then the physical cores that this process may use
  // (affinity mask and cgroup quota).
  std::int32_t threads = 0;
  bool pin_threads = false;  // bind each thread to one core
  activation_type activations = activation_type::int8;
  std::string isa = {};                 // empty: NIBBLE_ISA, then the best that the machine has
  matmul_observer* observer = nullptr;  // null: none; must outlive the backend
};

// The instruction sets compiled in that this machine can run, best first; "scalar" is always last.
NIBBLE_API std::vector<std::string_view> available_isas();

// What a backend with these options would be, without making one. Throws as make_cpu_backend().
NIBBLE_API device_info describe_cpu(const cpu_options& options = {});

// Throws error (invalid_argument) for an unknown or unavailable instruction set, naming those
// available, or a number of threads that makes no sense.
NIBBLE_API std::unique_ptr<backend> make_cpu_backend(const cpu_options& options = {});

}  // namespace nibble::inline NIBBLE_ABI
