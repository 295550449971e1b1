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

struct cpu_options {
  // 0: NIBBLE_NUM_THREADS, then OMP_NUM_THREADS, then the physical cores that this process may use
  // (affinity mask and cgroup quota).
  std::int32_t threads = 0;
  bool pin_threads = false;  // bind each thread to one core
  activation_type activations = activation_type::int8;
  std::string isa = {};  // empty: NIBBLE_ISA, then the best that the machine has
};

// The instruction sets compiled in that this machine can run, best first; "scalar" is always last.
NIBBLE_API std::vector<std::string_view> available_isas();

// Throws error (invalid_argument) for an unknown or unavailable instruction set, naming those
// available, or a number of threads that makes no sense.
NIBBLE_API std::unique_ptr<backend> make_cpu_backend(const cpu_options& options = {});

}  // namespace nibble::inline NIBBLE_ABI
