// The part of the dialect that hip/lanes.hpp has for AMD's devices, for NVIDIA's.
#pragma once

namespace nibble::inline NIBBLE_ABI::kernels {

NIBBLE_DEVICE void sync_warp() {
  __syncwarp();
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

NIBBLE_DEVICE words4 load16_once(const void* from) {
  return load16(from);
}

NIBBLE_DEVICE float fast_reciprocal(float x) {
  return __fdividef(1.0f, x);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
