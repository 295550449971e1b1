// Pieces that several formats share: bits unpacked to bytes, and tables of 16 codes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nibble/formats/concepts.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// Several formats unpack 16 bytes at a time. Compilers give up on byte loops that short once they
// are inlined, so those work on eight bytes in a word: the same speed on every compiler, and four
// values an instruction on GPUs.
using byte_word = std::uint64_t;  // the first byte lowest

// Every byte of the result is `byte`.
constexpr byte_word each_byte(std::uint8_t byte) {
  return 0x0101010101010101u * byte;
}

NIBBLE_HD inline byte_word load_bytes(const std::uint8_t* from) {
  byte_word word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

template <typename T>
NIBBLE_HD inline void store_bytes(byte_word word, T* to) {
  static_assert(sizeof(T) == 1);
  std::memcpy(to, &word, sizeof word);
}

// Subtracts `amount` <= 128 from every byte, each of which must be below 128. The top bit, set
// first and flipped back after, takes the borrow; nothing passes from byte to byte.
NIBBLE_HD inline byte_word subtract_from_bytes(byte_word word, std::uint8_t amount) {
  return ((word | each_byte(0x80)) - each_byte(amount)) ^ each_byte(0x80);
}

// Bit i of `bits` -> the lowest bit of byte i.
NIBBLE_HD inline byte_word spread_bits(std::uint8_t bits) {
  const byte_word one_each = each_byte(bits) & 0x8040201008040201u;  // byte i keeps bit i
  return ((one_each + each_byte(0x7f)) >> 7) & each_byte(1);
}

// 16 bytes -> 32 values, less `zero`: the low halves first, then the high halves.
template <typename T>
NIBBLE_HD inline void split_nibbles(const std::uint8_t* packed, T* __restrict out,
                                    std::uint8_t zero = 0) {
  for (int i = 0; i < 16; i += 8) {
    const byte_word word = load_bytes(packed + i);
    store_bytes(subtract_from_bytes(word & each_byte(0xf), zero), out + i);
    store_bytes(subtract_from_bytes((word >> 4) & each_byte(0xf), zero), out + 16 + i);
  }
}

// The same with a fifth bit for each value: bit i of the 32 bits from high[0] on for value i.
NIBBLE_HD inline void split_nibbles_5(const std::uint8_t* packed, const std::uint8_t* high,
                                      std::int8_t* __restrict out, std::uint8_t zero) {
  for (int i = 0; i < 16; i += 8) {
    const byte_word word = load_bytes(packed + i);
    const byte_word low = (word & each_byte(0xf)) | spread_bits(high[i / 8]) << 4;
    const byte_word upper = ((word >> 4) & each_byte(0xf)) | spread_bits(high[2 + i / 8]) << 4;
    store_bytes(subtract_from_bytes(low, zero), out + i);
    store_bytes(subtract_from_bytes(upper, zero), out + 16 + i);
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
