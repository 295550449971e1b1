// Pieces that several formats share: 4-bit halves of bytes, and tables of 16 codes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nibble/formats/concepts.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// 16 bytes -> 32 values: the low halves first, then the high halves; `shift` is added to each.
template <typename T>
NIBBLE_HD inline void split_nibbles(const std::uint8_t* packed, T* __restrict out, int shift = 0) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<T>((packed[i] & 0xf) + shift);
  for (int i = 0; i < 16; ++i) out[16 + i] = static_cast<T>((packed[i] >> 4) + shift);
}

// The same with a fifth bit for each value, bit i of the little-endian word `high` for value i.
NIBBLE_HD inline void split_nibbles_5(const std::uint8_t* packed, const std::uint8_t* high,
                                      std::int8_t* __restrict out, int shift) {
  const std::uint32_t bits = high[0] | std::uint32_t{high[1]} << 8 | std::uint32_t{high[2]} << 16 |
                             std::uint32_t{high[3]} << 24;
  for (int i = 0; i < 16; ++i) {
    const int fifth = static_cast<int>((bits >> i) & 1u) << 4;
    out[i] = static_cast<std::int8_t>(((packed[i] & 0xf) | fifth) + shift);
  }
  for (int i = 0; i < 16; ++i) {
    const int fifth = static_cast<int>((bits >> (16 + i)) & 1u) << 4;
    out[16 + i] = static_cast<std::int8_t>(((packed[i] >> 4) | fifth) + shift);
  }
}

// Eight table entries from `first` on in one word, the first in the lowest byte.
constexpr std::uint64_t pack_table(const std::array<std::int8_t, 16>& table, std::size_t first) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    word |= std::uint64_t{static_cast<std::uint8_t>(table[first + i])} << (8 * i);
  }
  return word;
}

// F::table[index]. Device code may not address a host array, so there the table lives in two
// constants.
template <typename F>
NIBBLE_HD inline std::int8_t table_entry(int index) {
#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__)
  constexpr std::uint64_t low = pack_table(F::table, 0);
  constexpr std::uint64_t high = pack_table(F::table, 8);
  const std::uint64_t word = index < 8 ? low : high;
  return static_cast<std::int8_t>(word >> (8 * (index & 7)));
#else
  return F::table[static_cast<std::size_t>(index)];
#endif
}

// Codes of a table format by way of its indices.
template <typename F>
NIBBLE_HD inline void look_up_codes(const typename F::block& b, int group,
                                    std::int8_t* __restrict out) {
  std::uint8_t index[F::group_size];
  F::indices(b, group, index);
  for (int i = 0; i < F::group_size; ++i) out[i] = table_entry<F>(index[i]);
}

}  // namespace nibble::inline NIBBLE_ABI::formats
