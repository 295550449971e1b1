// What differs between the emulated devices, told by the code that is compiled for each.
#pragma once

#include <cstddef>

#include "gpu/kernel_table.hpp"

namespace nibble::inline v0::gpu {

struct emulated_target_facts {
  const char* name;
  const char* arch;
  int warp;
  int shared_bytes;    // that a block may have, by request
  int shared_default;  // without one
  const kernel_table* kernels;
};

}  // namespace nibble::inline v0::gpu
