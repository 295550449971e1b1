// Tiles of WMMA instructions, 32 lanes. Lane 16 g + r holds column r; rows g, g + 2, .. g + 14
// (RDNA 3) or 8 g .. 8 g + 7 (RDNA 4).
#pragma once

namespace nibble::inline NIBBLE_ABI::kernels {

NIBBLE_DEVICE int tile_column(int) {
  return lane() % 16;
}

using wmma_integers = std::int32_t __attribute__((ext_vector_type(8)));
using wmma_floats = float __attribute__((ext_vector_type(8)));

#if defined(__GFX12__)
inline constexpr int operand_lanes = 2;  // that a row is spread over
NIBBLE_DEVICE int tile_row(int i) {
  return lane() / 16 * 8 + i;
}
using wmma_bytes = std::int32_t __attribute__((ext_vector_type(2)));
using wmma_halves = _Float16 __attribute__((ext_vector_type(8)));

NIBBLE_DEVICE wmma_integers wmma(wmma_bytes a, wmma_bytes b, wmma_integers c) {
  return __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(true, a, true, b, c, false);
}
NIBBLE_DEVICE wmma_floats wmma(wmma_halves a, wmma_halves b, wmma_floats c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c);
}
#else
inline constexpr int operand_lanes = 1;  // both halves of the wave hold the same
NIBBLE_DEVICE int tile_row(int i) {
  return lane() / 16 + 2 * i;
}
using wmma_bytes = std::int32_t __attribute__((ext_vector_type(4)));
using wmma_halves = _Float16 __attribute__((ext_vector_type(16)));

NIBBLE_DEVICE wmma_integers wmma(wmma_bytes a, wmma_bytes b, wmma_integers c) {
  return __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(true, a, true, b, c, false);
}
NIBBLE_DEVICE wmma_floats wmma(wmma_halves a, wmma_halves b, wmma_floats c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c);
}
#endif

// What the lane holds of row lane() % 16. Which columns an instruction multiplies with which does
// not matter as long as a and b agree.
template <int bytes>
struct tile_operand {
  std::uint32_t word[bytes / 4 / operand_lanes];
};

template <int bytes>
NIBBLE_DEVICE tile_operand<bytes> load_rows(const void* first, int stride) {
  static_assert(bytes == 16 || bytes == 32);
  struct alignas(bytes / operand_lanes < 16 ? 8 : 16) aligned {
    tile_operand<bytes> operand;
  };
  const int part = operand_lanes == 1 ? 0 : lane() / 16 * (bytes / 2);
  return reinterpret_cast<const aligned*>(static_cast<const std::byte*>(first) +
                                          lane() % 16 * stride + part)
      ->operand;
}

template <int bytes>
NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<bytes>& a,
                            const tile_operand<bytes>& b) {
  struct halves {  // 16 columns each
    wmma_bytes part[bytes / 16];
  };
  const auto x = __builtin_bit_cast(halves, a), y = __builtin_bit_cast(halves, b);
  auto c = __builtin_bit_cast(wmma_integers, to);
#pragma unroll
  for (int i = 0; i < bytes / 16; ++i) c = wmma(x.part[i], y.part[i], c);
  to = __builtin_bit_cast(tile_s8, c);
}

NIBBLE_DEVICE void multiply(tile_f16& to, const tile_operand<32>& a, const tile_operand<32>& b) {
  to = __builtin_bit_cast(
      tile_f16, wmma(__builtin_bit_cast(wmma_halves, a), __builtin_bit_cast(wmma_halves, b),
                     __builtin_bit_cast(wmma_floats, to)));
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
