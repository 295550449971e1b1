// Tiles of emulated matrix instructions, with the layouts of the device that is emulated; see
// gpu/tile.hpp.
#pragma once

#include <nibble/base/half.hpp>

namespace nibble::inline NIBBLE_ABI::kernels {

// Where in its row the first of the four bytes of an operand's word stands, by lane.
struct tile_place {
  int row, byte;
};

#if defined(NIBBLE_EMULATED_CUDA)
// mma.sync.m16n8k16 and m16n8k32, two of each
inline constexpr int operand_lanes = 4;  // that a row is spread over
template <int bytes>
constexpr tile_place operand_place(int of_lane, int word) {
  return {of_lane / 4 + word % 2 * 8, of_lane % 4 * 4 + word / 2 * 16};
}
constexpr tile_place element_place(int of_lane, int i) {
  return {of_lane / 4 + i / 2 % 2 * 8, of_lane % 4 * 2 + i % 2 + i / 4 * 8};
}
inline constexpr int operand_rows = 2;
#elif defined(NIBBLE_EMULATED_RDNA)
// v_wmma_*_16x16x16 of RDNA 3; both halves of the wave hold all of an operand
inline constexpr int operand_lanes = 1;
template <int bytes>
constexpr tile_place operand_place(int of_lane, int word) {
  return {of_lane % 16, word * 4};
}
constexpr tile_place element_place(int of_lane, int i) {
  return {of_lane / 16 + 2 * i, of_lane % 16};
}
inline constexpr int operand_rows = 1;
#else
// v_mfma_*_16x16x16 and 16x16x32
inline constexpr int operand_lanes = 4;
template <int bytes>
constexpr tile_place operand_place(int of_lane, int word) {
  return {of_lane % 16, of_lane / 16 * (bytes / 4) + word * 4};
}
constexpr tile_place element_place(int of_lane, int i) {
  return {of_lane / 16 * 4 + i, of_lane % 16};
}
inline constexpr int operand_rows = 1;
#endif

NIBBLE_DEVICE int tile_row(int i) {
  return element_place(lane(), i).row;
}
NIBBLE_DEVICE int tile_column(int i) {
  return element_place(lane(), i).byte;
}

struct tile_rows {
  const std::byte* first;
  int stride;
};

template <int bytes>
struct tile_operand {
  static constexpr int words = bytes / 4 / operand_lanes * operand_rows;
  std::uint32_t word[words];
  tile_rows from;  // for the rule that they stay until multiply()
};

template <int bytes>
inline std::uint32_t word_in_memory(const tile_rows& from, int of_lane, int word) {
  const tile_place at = operand_place<bytes>(of_lane, word);
  std::uint32_t value;
  std::memcpy(&value, from.first + at.row * from.stride + at.byte, sizeof value);
  return value;
}

template <int bytes>
void load_operands(const simt::lanes& warp) {
  const tile_rows from = *static_cast<const tile_rows*>(warp.in[0]);
  const auto address = reinterpret_cast<std::uintptr_t>(from.first);
  if (address % 16 != 0 || from.stride % 16 != 0) {
    simt::fail("load_rows() of rows that do not start at multiples of 16");
  }
  const std::byte* const end = from.first + 15 * from.stride + bytes;
  if (from.stride < 0 || from.first < simt::running->shared ||
      end > simt::running->shared + simt::running->shared_bytes) {
    simt::fail("load_rows() of what is not shared memory of the block");
  }
  for (int i = 0; i < warp.count; ++i) {
    const tile_rows& own = *static_cast<const tile_rows*>(warp.in[i]);
    if (own.first != from.first || own.stride != from.stride) {
      simt::fail("load_rows() with arguments that differ between lanes");
    }
    auto& to = *static_cast<tile_operand<bytes>*>(warp.out[i]);
    to.from = from;
    for (int w = 0; w < to.words; ++w) to.word[w] = word_in_memory<bytes>(from, i, w);
  }
}

template <int bytes>
NIBBLE_DEVICE tile_operand<bytes> load_rows(const void* first, int stride,
                                            simt::call_site site = simt::call_site::here()) {
  static_assert(bytes == 16 || bytes == 32);
  const tile_rows from{static_cast<const std::byte*>(first), stride};
  tile_operand<bytes> to;
  simt::collective("load_rows()", load_operands<bytes>, &from, &to, site);
  return to;
}

template <int bytes>
struct tile_factors {
  const tile_operand<bytes>* operand[2];  // a, b
};

// The rows of an operand, as the lanes hold them.
template <int bytes>
void gather(const simt::lanes& warp, int which, std::uint8_t (&rows)[tile_size][bytes]) {
  for (int i = 0; i < warp.count; ++i) {
    const auto& operand = *static_cast<const tile_factors<bytes>*>(warp.in[i])->operand[which];
    for (int w = 0; w < operand.words; ++w) {
      if (operand.word[w] != word_in_memory<bytes>(operand.from, i, w)) {
        simt::fail("multiply() of rows that were overwritten since load_rows()");
      }
      const tile_place at = operand_place<bytes>(i, w);
      std::memcpy(&rows[at.row][at.byte], &operand.word[w], sizeof operand.word[w]);
    }
  }
}

template <int bytes>
void multiply_bytes(const simt::lanes& warp) {
  std::uint8_t a[tile_size][bytes], b[tile_size][bytes];
  gather<bytes>(warp, 0, a);
  gather<bytes>(warp, 1, b);
  for (int i = 0; i < warp.count; ++i) {
    auto& to = *static_cast<tile_s8*>(warp.out[i]);
    for (int e = 0; e < tile_elements; ++e) {
      const auto [row, column] = element_place(i, e);
      std::int32_t sum = 0;
      for (int k = 0; k < bytes; ++k) {
        sum += static_cast<std::int8_t>(a[row][k]) * static_cast<std::int8_t>(b[column][k]);
      }
      to.sum[e] += sum;
    }
  }
}

inline void multiply_halves(const simt::lanes& warp) {
  float rows[2][tile_size][tile_size];
  for (int which = 0; which < 2; ++which) {
    std::uint8_t all[tile_size][32];
    gather<32>(warp, which, all);
    for (int r = 0; r < tile_size; ++r) {
      for (int k = 0; k < tile_size; ++k) {
        half x;
        std::memcpy(&x, &all[r][2 * k], sizeof x);
        rows[which][r][k] = to_float(x);
      }
    }
  }
  for (int i = 0; i < warp.count; ++i) {
    auto& to = *static_cast<tile_f16*>(warp.out[i]);
    for (int e = 0; e < tile_elements; ++e) {
      const auto [row, column] = element_place(i, e);
      float sum = 0;
      for (int k = 0; k < tile_size; ++k) sum += rows[0][row][k] * rows[1][column][k];
      to.sum[e] += sum;
    }
  }
}

template <int bytes>
NIBBLE_DEVICE void multiply(tile_s8& to, const tile_operand<bytes>& a, const tile_operand<bytes>& b,
                            simt::call_site site = simt::call_site::here()) {
  const tile_factors<bytes> in{{&a, &b}};
  simt::collective("multiply()", multiply_bytes<bytes>, &in, &to, site);
}

NIBBLE_DEVICE void multiply(tile_f16& to, const tile_operand<32>& a, const tile_operand<32>& b,
                            simt::call_site site = simt::call_site::here()) {
  const tile_factors<32> in{{&a, &b}};
  simt::collective("multiply()", multiply_halves, &in, &to, site);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
