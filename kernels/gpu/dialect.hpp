// The language that device code is written in: the same source for CUDA, HIP and the emulated
// device. Kernels use nothing of a vendor's beside what stands here and in tile.hpp.
//
// Rules, which the emulated device checks where it can:
// - a kernel is a function template or function marked NIBBLE_KERNEL(threads), launched with
// exactly
//   that many threads a block by launch<kernel>();
// - shared memory is dynamic only, and holds garbage when a block starts;
// - all threads of a block reach the same sync_block(), all lanes of a warp the same shuffle;
// - lanes see what others wrote to shared memory after sync_warp() or sync_block(), not before;
// - no block waits for another one.
//
//   NIBBLE_KERNEL_RESIDENT(threads, blocks)
//                                  instead of NIBBLE_KERNEL: a multiprocessor is to have registers
//                                  for so many blocks at once, where that can be said
//   warp_size                      lanes: 32 or 64; of the device pass, so not for the host
//   thread_index()                 in the block, 0 .. threads - 1; lane(), warp_index()
//   block_x(), block_y(), block_z(), grid_x(), grid_y(), grid_z()
//   sync_block(), sync_warp()
//   shared_memory()                std::byte*, aligned to 16 bytes
//   shuffle(value, lane)           the value of another lane; value: 4 or 8 bytes
//   shuffle_xor(value, mask)       of lane() ^ mask
//   dot4(a, b, c)                  c + four products of signed bytes
//   load16(pointer)                16 aligned bytes as words4
//   load16_once(pointer)           the same of global memory that is read once: not kept in L1
//   store16(pointer, words4)
//   copy16_async(to, from)         16 bytes from global to shared memory; to be seen after
//   commit_async()                 wait_async<n>() by the same thread (all but the last n commits
//   wait_async<n>()                have arrived) and, by others, a sync_block() after that
//   atomic_add(pointer, value)     of std::uint32_t; returns what was there
//   fence()                        what this thread wrote before is seen by others before what it
//                                  writes after
//   wait_for_previous()            a kernel that was launched early waits here for the one before
//   it allow_next()                   and here lets the next one be launched early
//   prefetch(pointer)              a line of global memory, into L2
//   fast_exp(x), fast_reciprocal(x)  some ulp of error
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nibble/base/config.hpp>

#include "gpu/kernel_table.hpp"
#include "gpu/module.hpp"

// Before loops whose arrays are to stay in registers.
#if defined(NIBBLE_EMULATED)
#define NIBBLE_UNROLL_DEVICE
#else
#define NIBBLE_UNROLL_DEVICE _Pragma("unroll")
#endif

namespace nibble::inline NIBBLE_ABI::kernels {

struct alignas(16) words4 {
  std::uint32_t w[4];
};

struct grid_size {
  std::uint32_t x = 1, y = 1, z = 1;
};

}  // namespace nibble::inline NIBBLE_ABI::kernels

#if defined(NIBBLE_EMULATED)
#include "emulated/dialect.hpp"
#elif defined(__HIP__) || defined(__HIPCC__) || defined(NIBBLE_HIP_ON_CUDA)
#include "hip/dialect.hpp"
#elif defined(__CUDACC__)
#include "cuda/dialect.hpp"
#else
#error "device code is compiled by nvcc, by hipcc, or with NIBBLE_EMULATED"
#endif

namespace nibble::inline NIBBLE_ABI::kernels {

NIBBLE_DEVICE int lane() {
  return thread_index() % warp_size;
}
NIBBLE_DEVICE int warp_index() {
  return thread_index() / warp_size;
}

// Over all lanes; every lane gets the result.
NIBBLE_DEVICE float warp_sum(float x) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}
NIBBLE_DEVICE float warp_max(float x) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    const float other = shuffle_xor(x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// Over the threads of a block; every thread gets the result. scratch: [threads / warp_size] floats
// of shared memory, not in use by anyone.
template <int threads>
NIBBLE_DEVICE float block_sum(float x, float* scratch) {
  constexpr int warps = threads / warp_size;
  x = warp_sum(x);
  if (lane() == 0) scratch[warp_index()] = x;
  sync_block();
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += scratch[i];
  sync_block();
  return sum;
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
