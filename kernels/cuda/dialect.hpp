// The device language in CUDA's terms; see gpu/dialect.hpp.
#pragma once

#include <cuda_runtime.h>

#define NIBBLE_KERNEL(threads) __global__ void __launch_bounds__(threads)
#define NIBBLE_KERNEL_RESIDENT(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define NIBBLE_DEVICE __device__ __forceinline__

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int warp_size = 32;

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
NIBBLE_DEVICE void sync_warp() {
  __syncwarp();
}

extern __shared__ words4 dynamic_shared[];
NIBBLE_DEVICE std::byte* shared_memory() {
  return reinterpret_cast<std::byte*>(dynamic_shared);
}

template <typename T>
NIBBLE_DEVICE T shuffle(T value, int from) {
  return __shfl_sync(0xffffffffu, value, from);
}
template <typename T>
NIBBLE_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

NIBBLE_DEVICE std::int32_t dot4(std::uint32_t a, std::uint32_t b, std::int32_t c) {
  return __dp4a(static_cast<std::int32_t>(a), static_cast<std::int32_t>(b), c);
}

NIBBLE_DEVICE words4 load16(const void* from) {
  return *static_cast<const words4*>(from);
}
NIBBLE_DEVICE words4 load16_once(const void* from) {
  words4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
      : "l"(from));
  return v;
}
NIBBLE_DEVICE void store16(void* to, words4 v) {
  *static_cast<words4*>(to) = v;
}

#if __CUDA_ARCH__ >= 800
NIBBLE_DEVICE void copy16_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))), "l"(from)
               : "memory");
}
NIBBLE_DEVICE void commit_async() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int n>
NIBBLE_DEVICE void wait_async() {
  asm volatile("cp.async.wait_group %0;" : : "n"(n) : "memory");
}
#else
NIBBLE_DEVICE void copy16_async(void* to, const void* from) {
  store16(to, load16(from));
}
NIBBLE_DEVICE void commit_async() {}
template <int n>
NIBBLE_DEVICE void wait_async() {}
#endif

NIBBLE_DEVICE std::uint32_t atomic_add(std::uint32_t* to, std::uint32_t value) {
  return atomicAdd(to, value);
}
NIBBLE_DEVICE void fence() {
  __threadfence();
}

#if __CUDA_ARCH__ >= 900
NIBBLE_DEVICE void wait_for_previous() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
NIBBLE_DEVICE void allow_next() {
  asm volatile("griddepcontrol.launch_dependents;");
}
#else
NIBBLE_DEVICE void wait_for_previous() {}
NIBBLE_DEVICE void allow_next() {}
#endif

NIBBLE_DEVICE void prefetch(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" : : "l"(from));
}

NIBBLE_DEVICE float fast_exp(float x) {
  return __expf(x);
}
NIBBLE_DEVICE float fast_reciprocal(float x) {
  return __frcp_rn(x);
}

// Blocks of `threads` threads with `shared` bytes of shared memory.
template <auto kernel, typename... Args>
inline void launch(const gpu::launch_target& target, grid_size grid, int threads,
                   std::size_t shared, const Args&... args) {
  if (shared > 48 * 1024) {
    static_cast<void>(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shared)));
  }
  kernel<<<dim3(grid.x, grid.y, grid.z), static_cast<unsigned>(threads), shared,
           static_cast<cudaStream_t>(target.stream)>>>(args...);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
