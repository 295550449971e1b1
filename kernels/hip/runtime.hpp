// HIP's runtime under the names that vendor/module.cpp uses for both vendors.
#pragma once

#include <hip/hip_runtime.h>

#include <cstdio>
#include <cstring>

#include "gpu/module.hpp"

// cudaMalloc, hipMalloc
#define NIBBLE_VENDOR(name) hip##name

// where HIP has another name
#define hipErrorMemoryAllocation hipErrorOutOfMemory
using hipDeviceProp = hipDeviceProp_t;

namespace nibble::inline v0::gpu::vendor {

inline constexpr module_kind kind = module_kind::hip;
inline constexpr const char* prefix = "hip";
inline constexpr hipError_t launch_timeout = hipErrorLaunchTimeOut;

inline hipError_t properties(hipDeviceProp_t* p, int device) {
  return hipGetDeviceProperties(p, device);
}
inline hipError_t allocate_host(void** memory, std::size_t bytes) {
  return hipHostMalloc(memory, bytes, hipHostMallocDefault);
}
inline hipError_t free_host(void* memory) {
  return hipHostFree(memory);
}
inline hipError_t instantiate(hipGraphExec_t* executable, hipGraph_t graph) {
  return hipGraphInstantiate(executable, graph, nullptr, nullptr, 0);
}

#if defined(NIBBLE_HIP_ON_CUDA)
inline void name_arch(const hipDeviceProp_t& p, char (&arch)[32]) {
  std::snprintf(arch, sizeof arch, "sm_%d%d", p.major, p.minor);
}
inline bool has_matrix_units(const hipDeviceProp_t&) {
  return false;  // tiles are made of plain products there
}
#else
// "gfx90a:sramecc+:xnack-" without what follows the colon
inline void name_arch(const hipDeviceProp_t& p, char (&arch)[32]) {
  std::snprintf(arch, sizeof arch, "%.*s", static_cast<int>(std::strcspn(p.gcnArchName, ":")),
                p.gcnArchName);
}
// MFMA from gfx908 on, WMMA from gfx11 on
inline bool has_matrix_units(const hipDeviceProp_t& p) {
  for (const char* const with : {"gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12"}) {
    if (std::strncmp(p.gcnArchName, with, std::strlen(with)) == 0) return true;
  }
  return false;
}
#endif

inline std::int32_t shared_by_request(const hipDeviceProp_t& p) {
  return static_cast<std::int32_t>(p.sharedMemPerBlock);
}
inline std::uint64_t bandwidth_of(int device, const hipDeviceProp_t& p) {
  int kilohertz = 0;
  if (hipDeviceGetAttribute(&kilohertz, hipDeviceAttributeMemoryClockRate, device) != hipSuccess) {
    return 0;
  }
  // two transfers a clock
  return 2000ull * static_cast<std::uint64_t>(kilohertz) *
         static_cast<std::uint64_t>(p.memoryBusWidth) / 8;
}

// Why there is no device.
inline void explain(hipError_t error, failure& why) {
  if (error == hipErrorNoDevice || error == hipSuccess) {
    why.what = fault::no_device;
    std::snprintf(
        why.text, sizeof why.text,
        "ROCm finds no device; HIP_VISIBLE_DEVICES may hide it, or this user may not be in "
        "the groups render and video");
  } else if (error == hipErrorInsufficientDriver) {
    why.what = fault::old_driver;
    std::snprintf(why.text, sizeof why.text,
                  "the driver for AMD's GPUs is older than this ROCm; install a newer one");
  } else {
    why.what = fault::other;
    std::snprintf(why.text, sizeof why.text, "counting devices failed: %s",
                  hipGetErrorString(error));
  }
}

}  // namespace nibble::inline v0::gpu::vendor
