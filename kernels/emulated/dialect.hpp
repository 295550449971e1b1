// The device language as plain C++ for the emulated device; see gpu/dialect.hpp and simt.hpp.
#pragma once

#include <atomic>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "emulated/simt.hpp"

#define NIBBLE_KERNEL(threads) void
#define NIBBLE_KERNEL_RESIDENT(threads, blocks) void
#define NIBBLE_DEVICE inline

namespace nibble::inline NIBBLE_ABI::kernels {

#if defined(NIBBLE_EMULATED_CDNA)
inline constexpr int warp_size = 64;
#elif defined(NIBBLE_EMULATED_CUDA) || defined(NIBBLE_EMULATED_RDNA)
inline constexpr int warp_size = 32;
#else
#error "which emulated device?"
#endif

NIBBLE_DEVICE int thread_index() {
  return simt::running->thread;
}
NIBBLE_DEVICE int block_x() {
  return static_cast<int>(simt::running->block[0]);
}
NIBBLE_DEVICE int block_y() {
  return static_cast<int>(simt::running->block[1]);
}
NIBBLE_DEVICE int block_z() {
  return static_cast<int>(simt::running->block[2]);
}
NIBBLE_DEVICE int grid_x() {
  return static_cast<int>(simt::running->grid[0]);
}
NIBBLE_DEVICE int grid_y() {
  return static_cast<int>(simt::running->grid[1]);
}
NIBBLE_DEVICE int grid_z() {
  return static_cast<int>(simt::running->grid[2]);
}

NIBBLE_DEVICE void sync_block(simt::call_site site = simt::call_site::here()) {
  simt::sync_block(site);
}
NIBBLE_DEVICE void sync_warp(simt::call_site site = simt::call_site::here()) {
  simt::collective(
      "sync_warp()", [](const simt::lanes&) {}, nullptr, nullptr, site);
}

NIBBLE_DEVICE std::byte* shared_memory() {
  return simt::running->shared;
}

// What a lane brings to a shuffle: its value, and whose it wants.
template <typename T>
struct shuffled {
  T value;
  int from;
};

template <typename T>
void exchange(const simt::lanes& warp) {
  for (int i = 0; i < warp.count; ++i) {
    const int from = static_cast<const shuffled<T>*>(warp.in[i])->from;
    if (from < 0 || from >= warp.count) simt::fail("a shuffle from lane %d", from);
    *static_cast<T*>(warp.out[i]) = static_cast<const shuffled<T>*>(warp.in[from])->value;
  }
}

template <typename T>
NIBBLE_DEVICE T shuffle(T value, int from, simt::call_site site = simt::call_site::here()) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  const shuffled<T> in{value, from};
  T out;
  simt::collective("shuffle()", exchange<T>, &in, &out, site);
  return out;
}
template <typename T>
NIBBLE_DEVICE T shuffle_xor(T value, int mask, simt::call_site site = simt::call_site::here()) {
  return shuffle(value, (thread_index() % warp_size) ^ mask, site);
}

NIBBLE_DEVICE std::int32_t dot4(std::uint32_t a, std::uint32_t b, std::int32_t c) {
  for (int i = 0; i < 4; ++i) {
    c += static_cast<std::int8_t>(a >> (8 * i)) * static_cast<std::int8_t>(b >> (8 * i));
  }
  return c;
}

NIBBLE_DEVICE words4 load16(const void* from, simt::call_site site = simt::call_site::here()) {
  simt::check_access("load16", from, site);
  words4 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
NIBBLE_DEVICE words4 load16_once(const void* from, simt::call_site site = simt::call_site::here()) {
  return load16(from, site);
}
NIBBLE_DEVICE void store16(void* to, words4 v, simt::call_site site = simt::call_site::here()) {
  simt::check_access("store16", to, site);
  std::memcpy(to, &v, sizeof v);
}

NIBBLE_DEVICE void copy16_async(void* to, const void* from,
                                simt::call_site site = simt::call_site::here()) {
  simt::copy_async(to, from, site);
}
NIBBLE_DEVICE void commit_async() {
  simt::commit_async();
}
template <int n>
NIBBLE_DEVICE void wait_async() {
  simt::wait_async(n);
}

NIBBLE_DEVICE std::uint32_t atomic_add(std::uint32_t* to, std::uint32_t value) {
  return std::atomic_ref<std::uint32_t>(*to).fetch_add(value);
}
NIBBLE_DEVICE void fence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

NIBBLE_DEVICE void wait_for_previous() {}
NIBBLE_DEVICE void allow_next() {}
NIBBLE_DEVICE void prefetch(const void*) {}

NIBBLE_DEVICE float fast_exp(float x) {
  return std::exp(x);
}
NIBBLE_DEVICE float fast_reciprocal(float x) {
  return 1 / x;
}

// Blocks of `threads` threads with `shared` bytes of shared memory. The arguments are copied now,
// the kernel runs when the queue does.
template <auto kernel, typename... Args>
inline void launch(const gpu::launch_target& target, grid_size grid, int threads,
                   std::size_t shared, const Args&... args) {
  static_assert((std::is_trivially_copyable_v<Args> && ...));
  static_assert((sizeof(Args) + ... + 0) <= 4096, "more than a kernel of a GPU can be given");
  static_cast<simt::launch_queue*>(target.stream)
      ->launch({{grid.x, grid.y, grid.z},
                threads,
                shared,
                [args...] { kernel(args...); },
                __PRETTY_FUNCTION__});
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
