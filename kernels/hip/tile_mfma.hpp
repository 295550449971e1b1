// Tiles of MFMA instructions, 64 lanes. Lane 16 g + r holds column r, rows 4 g .. 4 g + 3.
#pragma once

namespace nibble::inline NIBBLE_ABI::kernels {

// A quarter of a row, the g-th of row r. Which columns an instruction multiplies with which does
// not matter as long as a and b agree.
template <int bytes>
struct alignas(bytes / 4) tile_operand {
  std::uint32_t word[bytes / 16];
};

NIBBLE_DEVICE int tile_row(int i) {
  return lane() / 16 * 4 + i;
}
NIBBLE_DEVICE int tile_column(int) {
  return lane() % 16;
}

template <int bytes>
NIBBLE_DEVICE tile_operand<bytes> load_rows(const void* first, int stride) {
  static_assert(bytes == 16 || bytes == 32);
  return *reinterpret_cast<const tile_operand<bytes>*>(
      static_cast<const std::byte*>(first) + lane() % 16 * stride + lane() / 16 * (bytes / 4));
}

using mfma_integers = std::int32_t __attribute__((ext_vector_type(4)));
using mfma_floats = float __attribute__((ext_vector_type(4)));
using mfma_halves = _Float16 __attribute__((ext_vector_type(4)));

#if defined(__gfx908__) || defined(__gfx90a__)
template <int bytes>
NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<bytes>& a,
                            const tile_operand<bytes>& b) {
  auto c = __builtin_bit_cast(mfma_integers, to);
#pragma unroll
  for (int w = 0; w < bytes / 16; ++w) {
    c = __builtin_amdgcn_mfma_i32_16x16x16i8(static_cast<std::int32_t>(a.word[w]),
                                             static_cast<std::int32_t>(b.word[w]), c, 0, 0, 0);
  }
  to = __builtin_bit_cast(tile_s8, c);
}
#else
template <int bytes>
NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<bytes>& a,
                            const tile_operand<bytes>& b) {
  // rows of 16 bytes are half of what the instruction takes
  const auto wide = [](const tile_operand<bytes>& x) {
    return static_cast<long>(x.word[0] | static_cast<std::uint64_t>(x.word[bytes / 16 - 1])
                                             << 32 * (bytes / 16 - 1));
  };
  const auto c = __builtin_bit_cast(mfma_integers, to);
  to = __builtin_bit_cast(tile_s8,
                          __builtin_amdgcn_mfma_i32_16x16x32_i8(wide(a), wide(b), c, 0, 0, 0));
}
#endif

NIBBLE_DEVICE void multiply(tile_f16& to, const tile_operand<32>& a, const tile_operand<32>& b) {
  const auto c = __builtin_bit_cast(mfma_floats, to);
  to = __builtin_bit_cast(tile_f16, __builtin_amdgcn_mfma_f32_16x16x16f16(
                                        __builtin_bit_cast(mfma_halves, a),
                                        __builtin_bit_cast(mfma_halves, b), c, 0, 0, 0));
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
