// Decoding to float: the plain loops over what a format states. They define what a block means; the
// kernels of all backends are tested against them.
#pragma once

#include <cstdint>
#include <cstring>
#include <nibble/formats/concepts.hpp>
#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {

// out: [block_size]
template <weight_format F>
NIBBLE_HD inline void decode_block(const typename F::block& b, float* out) {
  if constexpr (element_format<F>) {
    out[0] = F::value(b);
  } else {
    for (int group = 0; group < F::block_size / F::group_size; ++group) {
      std::int8_t codes[F::group_size];
      F::codes(b, group, codes);
      const affine map = F::scale(b, group);
      float* const to = out + group * F::group_size;
      for (int i = 0; i < F::group_size; ++i) {
        const float product = map.scale * static_cast<float>(codes[i]);
        // without this test a product of -0 would become +0
        to[i] = F::has_offset ? product + map.offset : product;
      }
    }
  }
}

// n values from n / block_size blocks; n must be a multiple of block_size.
template <weight_format F>
NIBBLE_HD inline void decode_row(const typename F::block* row, std::uint64_t n, float* out) {
  for (std::uint64_t i = 0; i < n / F::block_size; ++i) {
    decode_block<F>(row[i], out + i * F::block_size);
  }
}

// The same for a format known at run time only, from bytes of any alignment: row_bytes(id, n) of
// them are read. Throws error: unsupported, or invalid_argument if n is no multiple of block_size.
inline void decode_row(format_id id, const void* row, std::uint64_t n, float* out) {
  with_format(id, [&]<typename F>(F) {
    const std::uint64_t bytes = row_bytes(id, n);
    const auto* from = static_cast<const unsigned char*>(row);
    for (std::uint64_t at = 0; at < bytes; at += sizeof(typename F::block)) {
      typename F::block b;
      std::memcpy(&b, from + at, sizeof b);
      decode_block<F>(b, out);
      out += F::block_size;
    }
  });
}

}  // namespace nibble::inline NIBBLE_ABI
