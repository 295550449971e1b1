// Tiles of mma.sync; see gpu/tile.hpp. Lane 4 g + t holds of a tile: rows g and g + 8, columns
// 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
#pragma once

namespace nibble::inline NIBBLE_ABI::kernels {

// Word w: bytes [4 t + 16 (w / 2), + 4) of row g + 8 (w % 2).
template <int bytes>
struct tile_operand {
  std::uint32_t word[bytes / 8];
};

NIBBLE_DEVICE int tile_row(int i) {
  return lane() / 4 + i / 2 % 2 * 8;
}
NIBBLE_DEVICE int tile_column(int i) {
  return lane() % 4 * 2 + i % 2 + i / 4 * 8;
}

template <int bytes>
NIBBLE_DEVICE tile_operand<bytes> load_rows(const void* first, int stride) {
  static_assert(bytes == 16 || bytes == 32);
  tile_operand<bytes> to;
  // the lane says where 16 bytes of a row are
  const auto* const row = static_cast<const std::byte*>(first) + lane() % 16 * stride +
                          (bytes == 32 ? lane() / 16 * 16 : 0);
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (bytes == 32) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.word[0]), "=r"(to.word[1]), "=r"(to.word[2]), "=r"(to.word[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to.word[0]), "=r"(to.word[1])
                 : "r"(address)
                 : "memory");
  }
  return to;
}

// Words 2 n and 2 n + 1 of a and b: 16 columns of bytes.
#if __CUDA_ARCH__ >= 800
NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<16>& a, const tile_operand<16>& b) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    std::int32_t* const c = to.sum + 4 * j;
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(b.word[j]));
  }
}

NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<32>& a, const tile_operand<32>& b) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    std::int32_t* const c = to.sum + 4 * j;
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[j]),
          "r"(b.word[2 + j]));
  }
}

NIBBLE_DEVICE void multiply(tile_f16& to, const tile_operand<32>& a, const tile_operand<32>& b) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float* const c = to.sum + 4 * j;
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[j]),
          "r"(b.word[2 + j]));
  }
}
#else
// Smaller instructions over the same registers.
template <int bytes>
NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<bytes>& a,
                            const tile_operand<bytes>& b) {
#pragma unroll
  for (int n = 0; n < bytes / 8; n += 2) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {  // quarters of the tile: rows from 8 (q % 2), columns 8 (q / 2)
      std::int32_t* const c = to.sum + 2 * q;
      asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
          : "+r"(c[0]), "+r"(c[1])
          : "r"(a.word[n + q % 2]), "r"(b.word[n + q / 2]));
    }
  }
}

NIBBLE_DEVICE void multiply(tile_f16& to, const tile_operand<32>& a, const tile_operand<32>& b) {
#pragma unroll
  for (int n = 0; n < 4; n += 2) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float* const c = to.sum + 4 * j;
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a.word[n]), "r"(a.word[n + 1]), "r"(b.word[n + j]));
    }
  }
}
#endif

}  // namespace nibble::inline NIBBLE_ABI::kernels
