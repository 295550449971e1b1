// The 6-bit scales and minima of Q4_K and Q5_K: eight of each in 12 bytes.
#pragma once

#include <cstdint>
#include <nibble/formats/concepts.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

// Bytes 0..3 hold the scales 0..3 and bytes 4..7 the minima 0..3 in their low six bits. Bytes 8..11
// hold the low four bits of scales (low half) and minima (high half) 4..7, whose upper two bits are
// the top of bytes 0..3 and 4..7.
// d is the block's scale for scales, m its scale for minima; a minimum is subtracted.
template <typename Bytes>
NIBBLE_HD inline affine k_scale(const Bytes& packed, half d, half m, int group) {
  const int i = group & 3;
  const bool upper = group >= 4;
  const int scale = upper ? (packed[8 + i] & 0xf) | (packed[i] >> 6) << 4 : packed[i] & 63;
  const int minimum = upper ? packed[8 + i] >> 4 | (packed[4 + i] >> 6) << 4 : packed[4 + i] & 63;
  return {to_float(d) * static_cast<float>(scale), -(to_float(m) * static_cast<float>(minimum))};
}

// scales, minima: [8], below 64.
inline void pack_k_scales(const std::uint8_t* scales, const std::uint8_t* minima,
                          std::uint8_t* packed) {
  for (int i = 0; i < 4; ++i) {
    packed[i] = static_cast<std::uint8_t>(scales[i] | scales[4 + i] >> 4 << 6);
    packed[4 + i] = static_cast<std::uint8_t>(minima[i] | minima[4 + i] >> 4 << 6);
    packed[8 + i] = static_cast<std::uint8_t>((scales[4 + i] & 0xf) | (minima[4 + i] & 0xf) << 4);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::formats
