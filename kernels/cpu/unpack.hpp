// Weight blocks to codes, and rows to floats.
#pragma once

#include <cstdint>
#include <nibble/formats/concepts.hpp>

#include "cpu/fast_codes.hpp"
#include "cpu/simd.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// All codes of a block.
template <typename Arch, typename F>
inline void unpack_codes(const typename F::block& b, std::int8_t* out) {
  if constexpr (requires { fast_codes(b, out); }) {
    fast_codes(b, out);
  } else if constexpr (table_format<F>) {
    table_codes<F>(b, out);
  } else {
    for (int g = 0; g < F::block_size / F::group_size; ++g) {
      F::codes(b, g, out + g * F::group_size);
    }
  }
}

// out[i] = value first + i of the row, i < n; first and n are multiples of the block size.
template <typename Arch, weight_format F>
inline void decode_stretch(const void* row, std::int64_t first, std::int64_t n, float* out) {
  using floats = typename Arch::floats;
  const auto* from = static_cast<const typename F::block*>(row) + first / F::block_size;
  if constexpr (element_format<F>) {
    map<floats>(
        n, out, [](const floats& x) { return x; }, from);
  } else {
    constexpr int groups = F::block_size / F::group_size;
    constexpr int width = static_cast<int>(floats::size);
    for (std::int64_t i = 0; i < n / F::block_size; ++i) {
      std::int8_t codes[F::block_size];
      unpack_codes<Arch, F>(from[i], codes);
      for (int g = 0; g < groups; ++g, out += F::group_size) {
        const affine to = F::scale(from[i], g);
        const floats scale(to.scale), offset(to.offset);
        for (int j = 0; j < F::group_size; j += width) {
          const floats product = scale * load<floats>(codes + g * F::group_size + j);
          (F::has_offset ? product + offset : product).store_unaligned(out + j);
        }
      }
    }
  }
}

// A whole row of n values.
template <typename Arch, weight_format F>
void decode(const void* row, std::int64_t n, float* out) {
  decode_stretch<Arch, F>(row, 0, n, out);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
