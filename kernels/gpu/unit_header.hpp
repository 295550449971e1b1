// Headers of blocks in registers, as much of them as one unit needs.
//
// F::scale() picks bytes of a header by indices that are not constant, which registers cannot do.
// Here such an array is a type whose [] shifts words instead, so that the formats' own definition
// of scales works on what a few aligned loads have brought. A loaded header has
//   load(from, unit)   from: a block_header in memory, aligned to its size's greatest power of two;
//                      unit: in the block
#pragma once

#include <cstdint>

#include "gpu/block_headers.hpp"
#include "gpu/dialect.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// n words, aligned to 4 n bytes, n a power of two.
template <int n>
struct alignas(4 * n) aligned_words {
  std::uint32_t w[n];
};
template <int n>
NIBBLE_DEVICE void load_words(const void* from, std::uint32_t (&to)[n]) {
  const aligned_words<n> words = *static_cast<const aligned_words<n>*>(from);
  NIBBLE_UNROLL_DEVICE
  for (int i = 0; i < n; ++i) to[i] = words.w[i];
}
NIBBLE_DEVICE std::uint32_t load_word(const void* from) {
  return *static_cast<const std::uint32_t*>(from);
}
NIBBLE_DEVICE std::uint32_t load_two_bytes(const void* from) {
  return *static_cast<const std::uint16_t*>(from);
}

NIBBLE_DEVICE half low_half(std::uint32_t word) {
  return {static_cast<std::uint16_t>(word)};
}
NIBBLE_DEVICE half high_half(std::uint32_t word) {
  return {static_cast<std::uint16_t>(word >> 16)};
}
NIBBLE_HD inline int byte_of(std::uint32_t word, int i) {
  return static_cast<int>(word >> (8 * i) & 0xff);
}

template <typename Header>
struct unit_header;

// Scales themselves, of a format without a header of its own.
template <block_format F>
struct unit_header<maps_header<F>> {
  const affine* maps;
  NIBBLE_DEVICE void load(const std::byte* from, int) {
    maps = reinterpret_cast<const maps_header<F>*>(from)->maps;
  }
};

template <>
struct unit_header<d_header> {
  half d;
  NIBBLE_DEVICE void load(const std::byte* from, int) { d = low_half(load_two_bytes(from)); }
};

template <>
struct unit_header<d_m_header> {
  half d, m;
  NIBBLE_DEVICE void load(const std::byte* from, int) {
    const std::uint32_t word = load_word(from);
    d = low_half(word);
    m = high_half(word);
  }
};

template <>
struct unit_header<e_header> {
  std::uint8_t e;
  NIBBLE_DEVICE void load(const std::byte* from, int) { e = static_cast<std::uint8_t>(*from); }
};

template <>
struct unit_header<k_header> {
  struct {
    std::uint32_t w[3];
    NIBBLE_HD int operator[](int i) const {
      return byte_of(i < 4 ? w[0] : i < 8 ? w[1] : w[2], i & 3);
    }
  } scales;
  half d, dmin;
  NIBBLE_DEVICE void load(const std::byte* from, int) {
    const words4 words = load16(from);
    d = low_half(words.w[0]);
    dmin = high_half(words.w[0]);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < 3; ++i) scales.w[i] = words.w[1 + i];
  }
};

template <>
struct unit_header<q2_k_header> {
  struct {
    std::uint32_t pair;  // of groups 2 n and 2 n + 1
    NIBBLE_HD int operator[](int group) const { return byte_of(pair, group & 1); }
  } scales;
  half d, dmin;
  NIBBLE_DEVICE void load(const std::byte* from, int unit) {
    scales.pair = load_two_bytes(from + 2 * unit);
    const std::uint32_t word = load_word(from + 16);
    d = low_half(word);
    dmin = high_half(word);
  }
};

template <>
struct unit_header<q3_k_header> {
  struct {
    std::uint32_t low, high;  // bytes 2 n and 2 n + 1 of the first eight, and of the last four
    NIBBLE_HD int operator[](int i) const { return byte_of(i < 8 ? low : high, i & 1); }
  } scales;
  half d;
  NIBBLE_DEVICE void load(const std::byte* from, int unit) {
    scales.low = load_two_bytes(from + (2 * unit & 7));
    scales.high = load_two_bytes(from + 8 + (2 * unit & 3));
    d = low_half(load_two_bytes(from + 12));
  }
};

template <>
struct unit_header<q6_k_header> {
  struct {
    std::uint32_t pair;  // of groups 2 n and 2 n + 1
    NIBBLE_HD std::int8_t operator[](int group) const {
      return static_cast<std::int8_t>(byte_of(pair, group & 1));
    }
  } scales;
  half d;
  NIBBLE_DEVICE void load(const std::byte* from, int unit) {
    scales.pair = load_two_bytes(from + 2 * unit);
    d = low_half(load_two_bytes(from + 16));
  }
};

template <>
struct unit_header<iq4_xs_header> {
  struct {
    std::uint32_t word;
    NIBBLE_HD int operator[](int i) const { return byte_of(word, i); }
  } scales_l;
  half d;
  std::uint16_t scales_h;
  NIBBLE_DEVICE void load(const std::byte* from, int) {
    std::uint32_t words[2];
    load_words<2>(from, words);
    d = low_half(words[0]);
    scales_h = static_cast<std::uint16_t>(words[0] >> 16);
    scales_l.word = words[1];
  }
};

}  // namespace nibble::inline NIBBLE_ABI::kernels
