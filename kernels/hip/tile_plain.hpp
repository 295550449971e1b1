// Tiles for devices without matrix instructions: each lane makes its elements by itself, straight
// from shared memory.
#pragma once

#include <nibble/base/half.hpp>

namespace nibble::inline NIBBLE_ABI::kernels {

template <int bytes>
struct tile_operand {
  const std::byte* first;
  int stride;
};

// Neighbouring lanes share rows and differ in columns.
NIBBLE_DEVICE int tile_row(int i) {
  return lane() / 16 * tile_elements + i;
}
NIBBLE_DEVICE int tile_column(int) {
  return lane() % 16;
}

template <int bytes>
NIBBLE_DEVICE tile_operand<bytes> load_rows(const void* first, int stride) {
  static_assert(bytes == 16 || bytes == 32);
  return {static_cast<const std::byte*>(first), stride};
}

// c + two products of halves
NIBBLE_DEVICE float dot2(std::uint32_t a, std::uint32_t b, float c) {
#if defined(__gfx906__) || defined(__gfx1011__) || defined(__gfx1012__) || defined(__gfx1030__) || \
    defined(__gfx1031__) || defined(__gfx1032__) || defined(__gfx1033__) ||                        \
    defined(__gfx1034__) || defined(__gfx1035__) || defined(__gfx1036__)
  using halves = _Float16 __attribute__((ext_vector_type(2)));
  return __builtin_amdgcn_fdot2(__builtin_bit_cast(halves, a), __builtin_bit_cast(halves, b), c,
                                false);
#else
  for (int i = 0; i < 32; i += 16) {
    c += to_float(half{static_cast<std::uint16_t>(a >> i)}) *
         to_float(half{static_cast<std::uint16_t>(b >> i)});
  }
  return c;
#endif
}

template <int bytes, typename Sum, typename Dot>
NIBBLE_DEVICE void multiply_words(Sum (&sum)[tile_elements], const tile_operand<bytes>& a,
                                  const tile_operand<bytes>& b, Dot dot) {
#pragma unroll
  for (int at = 0; at < bytes; at += 16) {
    const words4 y = load16(b.first + tile_column(0) * b.stride + at);
#pragma unroll
    for (int i = 0; i < tile_elements; ++i) {
      const words4 x = load16(a.first + tile_row(i) * a.stride + at);
#pragma unroll
      for (int w = 0; w < 4; ++w) sum[i] = dot(x.w[w], y.w[w], sum[i]);
    }
  }
}

template <int bytes>
NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<bytes>& a,
                            const tile_operand<bytes>& b) {
  multiply_words(to.sum, a, b,
                 [](std::uint32_t x, std::uint32_t y, std::int32_t c) { return dot4(x, y, c); });
}

NIBBLE_DEVICE void multiply(tile_f16& to, const tile_operand<32>& a, const tile_operand<32>& b) {
  multiply_words(to.sum, a, b,
                 [](std::uint32_t x, std::uint32_t y, float c) { return dot2(x, y, c); });
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
