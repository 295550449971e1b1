// The device language in HIP's terms; see gpu/dialect.hpp. With NIBBLE_HIP_ON_CUDA nvcc compiles
// it, with on_cuda/hip/hip_runtime.h.
#pragma once

#include <hip/hip_runtime.h>

#define NIBBLE_KERNEL(threads) __global__ void __launch_bounds__(threads)
#define NIBBLE_KERNEL_RESIDENT(threads, blocks) NIBBLE_KERNEL(threads)
#define NIBBLE_DEVICE __device__ __forceinline__

namespace nibble::inline NIBBLE_ABI::kernels {

// The pass for the host knows no device, and must not depend on this.
#if defined(NIBBLE_HIP_ON_CUDA)
inline constexpr int warp_size = 32;
#elif defined(__GFX8__) || defined(__GFX9__)
inline constexpr int warp_size = 64;
#else
inline constexpr int warp_size = 32;
#endif

NIBBLE_DEVICE int thread_index() {
  return static_cast<int>(threadIdx.x);
}
NIBBLE_DEVICE int block_x() {
  return static_cast<int>(blockIdx.x);
}
NIBBLE_DEVICE int block_y() {
  return static_cast<int>(blockIdx.y);
}
NIBBLE_DEVICE int block_z() {
  return static_cast<int>(blockIdx.z);
}
NIBBLE_DEVICE int grid_x() {
  return static_cast<int>(gridDim.x);
}
NIBBLE_DEVICE int grid_y() {
  return static_cast<int>(gridDim.y);
}
NIBBLE_DEVICE int grid_z() {
  return static_cast<int>(gridDim.z);
}

NIBBLE_DEVICE void sync_block() {
  __syncthreads();
}

extern __shared__ words4 dynamic_shared[];
NIBBLE_DEVICE std::byte* shared_memory() {
  return reinterpret_cast<std::byte*>(dynamic_shared);
}

NIBBLE_DEVICE std::uint32_t atomic_add(std::uint32_t* to, std::uint32_t value) {
  return atomicAdd(to, value);
}
NIBBLE_DEVICE void fence() {
  __threadfence();
}
NIBBLE_DEVICE float fast_exp(float x) {
  return __expf(x);
}

// Kernels start when those before them have ended.
NIBBLE_DEVICE void wait_for_previous() {}
NIBBLE_DEVICE void allow_next() {}

NIBBLE_DEVICE words4 load16(const void* from) {
  return *static_cast<const words4*>(from);
}
NIBBLE_DEVICE void store16(void* to, words4 v) {
  *static_cast<words4*>(to) = v;
}

// No copies that a wave does not wait for.
NIBBLE_DEVICE void copy16_async(void* to, const void* from) {
  store16(to, load16(from));
}
NIBBLE_DEVICE void commit_async() {}
template <int n>
NIBBLE_DEVICE void wait_async() {}

NIBBLE_DEVICE void prefetch(const void*) {}

// Blocks of `threads` threads with `shared` bytes of shared memory.
template <auto kernel, typename... Args>
inline void launch(const gpu::launch_target& target, grid_size grid, int threads,
                   std::size_t shared, const Args&... args) {
  if (shared > 48 * 1024) {
    static_cast<void>(hipFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                          hipFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(shared)));
  }
  kernel<<<dim3(grid.x, grid.y, grid.z), static_cast<unsigned>(threads), shared,
           static_cast<hipStream_t>(target.stream)>>>(args...);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels

#if defined(NIBBLE_HIP_ON_CUDA)
#include "hip/lanes_on_cuda.hpp"
#else
#include "hip/lanes.hpp"
#endif
