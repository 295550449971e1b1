// Codes into the bits of blocks: the reverse of what formats/nibbles.hpp unpacks (host only).
#pragma once

#include <array>
#include <cstdint>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// 2 n codes -> n bytes: the first n in the low halves. Bits above the fourth are left out.
template <int n>
inline void pack_nibbles(const std::uint8_t* codes, std::uint8_t* out) {
  for (int i = 0; i < n; ++i) {
    out[i] = static_cast<std::uint8_t>((codes[i] & 0xf) | (codes[i + n] & 0xf) << 4);
  }
}

// The fifth bits of 32 codes: bit i of the result for code i.
inline void pack_fifth_bits(const std::uint8_t* codes, std::uint8_t* out) {
  for (int byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (int i = 0; i < 8; ++i) bits |= ((codes[8 * byte + i] >> 4) & 1) << i;
    out[byte] = static_cast<std::uint8_t>(bits);
  }
}

// The two bits from `shift` on of 256 codes -> 64 bytes: byte 32 h + i has codes
// 128 h + i + {0, 32, 64, 96}, from the low bits.
inline void pack_pairs(const std::uint8_t* codes, int shift, std::uint8_t* out) {
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 32; ++i) {
      int bits = 0;
      for (int k = 0; k < 4; ++k) bits |= ((codes[128 * h + 32 * k + i] >> shift) & 3) << (2 * k);
      out[32 * h + i] = static_cast<std::uint8_t>(bits);
    }
  }
}

// One bit of 256 codes -> 32 bytes: bit j of byte i has code 32 j + i.
inline void pack_bits(const std::uint8_t* codes, int bit, std::uint8_t* out) {
  for (int i = 0; i < 32; ++i) {
    int bits = 0;
    for (int j = 0; j < 8; ++j) bits |= ((codes[32 * j + i] >> bit) & 1) << j;
    out[i] = static_cast<std::uint8_t>(bits);
  }
}

// Codes of a table format (plus 128) -> their positions in the table.
template <int n>
inline void look_up_positions(const std::array<std::uint8_t, 256>& positions, std::uint8_t* codes) {
  for (int i = 0; i < n; ++i) codes[i] = positions[codes[i]];
}

}  // namespace nibble::inline NIBBLE_ABI::formats
