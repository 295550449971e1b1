// Kernels of the tests themselves: of what the dialect and the tiles promise, and with mistakes
// that the emulated device must find. probes.cpp is compiled for each kind of device.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <span>
#include <string_view>

#include "gpu/kernel_table.hpp"

namespace nibble::inline v0::gpu {

struct probe_args {
  const void* a;
  const void* b;
  void* out;
  std::int32_t n;
};

// Kernels of one block, unless said otherwise, of probe_threads threads.
inline constexpr int probe_threads = 128;

struct probe {
  std::string_view name;
  void (*launch)(const launch_target&, const probe_args&);
};

// Rows of tiles in memory: as in the shared memory that they are copied to.
inline constexpr int probe_stride = 48;

}  // namespace nibble::inline v0::gpu

namespace nibble::inline NIBBLE_ABI::kernels {

std::span<const gpu::probe> probes();

}  // namespace nibble::inline NIBBLE_ABI::kernels
