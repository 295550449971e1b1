// CUDA's runtime under the names that vendor/module.cpp uses for both vendors.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>

#include "gpu/module.hpp"

// cudaMalloc, hipMalloc
#define NIBBLE_VENDOR(name) cuda##name

namespace nibble::inline v0::gpu::vendor {

inline constexpr module_kind kind = module_kind::cuda;
inline constexpr const char* prefix = "cuda";
inline constexpr cudaError_t launch_timeout = cudaErrorLaunchTimeout;

inline cudaError_t properties(cudaDeviceProp* p, int device) {
  return cudaGetDeviceProperties(p, device);
}
inline cudaError_t allocate_host(void** memory, std::size_t bytes) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}
inline cudaError_t free_host(void* memory) {
  return cudaFreeHost(memory);
}
inline cudaError_t instantiate(cudaGraphExec_t* executable, cudaGraph_t graph) {
  return cudaGraphInstantiate(executable, graph, 0);
}

inline void name_arch(const cudaDeviceProp& p, char (&arch)[32]) {
  std::snprintf(arch, sizeof arch, "sm_%d%d", p.major, p.minor);
}
// mma.sync on signed bytes, cp.async
inline bool has_matrix_units(const cudaDeviceProp& p) {
  return p.major >= 8;
}
inline std::int32_t shared_by_request(const cudaDeviceProp& p) {
  return static_cast<std::int32_t>(p.sharedMemPerBlockOptin);
}
inline std::uint64_t bandwidth_of(int device, const cudaDeviceProp& p) {
  int kilohertz = 0;
  if (cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, device) != cudaSuccess) {
    return 0;
  }
  // two transfers a clock
  return 2000ull * static_cast<std::uint64_t>(kilohertz) *
         static_cast<std::uint64_t>(p.memoryBusWidth) / 8;
}

// Why there is no device.
inline void explain(cudaError_t error, failure& why) {
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  constexpr int needed = CUDART_VERSION;
  if (driver == 0) {
    why.what = fault::no_driver;
    std::snprintf(why.text, sizeof why.text,
                  "no NVIDIA driver answers; install one for CUDA %d.%d or newer", needed / 1000,
                  needed % 1000 / 10);
  } else if (error == cudaErrorInsufficientDriver) {
    why.what = fault::old_driver;
    std::snprintf(why.text, sizeof why.text,
                  "the NVIDIA driver is for CUDA %d.%d; this module needs %d.%d or newer",
                  driver / 1000, driver % 1000 / 10, needed / 1000, needed % 1000 / 10);
  } else if (error == cudaErrorNoDevice || error == cudaSuccess) {
    why.what = fault::no_device;
    std::snprintf(why.text, sizeof why.text,
                  "the NVIDIA driver finds no device; CUDA_VISIBLE_DEVICES may hide it");
  } else {
    why.what = fault::other;
    std::snprintf(why.text, sizeof why.text, "counting devices failed: %s",
                  cudaGetErrorString(error));
  }
}

}  // namespace nibble::inline v0::gpu::vendor
