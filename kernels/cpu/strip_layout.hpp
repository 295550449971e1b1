// How the blocks of a strip's rows lie in memory.
//
// A strip keeps the same bytes as its rows in the file, in another order: block by block, and
// within a block field by field. A field is an array of elements of 1, 2 or 4 bytes; element i of
// all rows lies together. So a vector of codes is one load, and so are the scales of all rows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nibble/formats/list.hpp>

#include "cpu/strip.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

struct strip_field {
  std::size_t offset;  // in the block of the file
  std::size_t width;   // bytes of an element
  std::size_t count;
  // Each element holds bits 4 k + j, which become bits 8 j + k: byte j has those of column j of
  // each word of four columns.
  bool bits = false;
};

// The fields of a format's block; one that is not listed keeps its blocks whole.
template <typename F>
inline constexpr std::array strip_fields = {strip_field{0, sizeof(typename F::block), 1}};

#define NIBBLE_FIELD(format, member, width)               \
  strip_field {                                           \
    offsetof(formats::format::block, member), width,      \
        sizeof(formats::format::block{}.member) / (width) \
  }
#define NIBBLE_BITS(format, member)                                                                \
  strip_field {                                                                                    \
    offsetof(formats::format::block, member), 4, sizeof(formats::format::block{}.member) / 4, true \
  }
#define NIBBLE_STRIP(format, ...) \
  template <>                     \
  inline constexpr std::array strip_fields<formats::format> = {__VA_ARGS__}

NIBBLE_STRIP(q4_0, NIBBLE_FIELD(q4_0, qs, 4), NIBBLE_FIELD(q4_0, d, 2));
NIBBLE_STRIP(q4_1, NIBBLE_FIELD(q4_1, qs, 4), NIBBLE_FIELD(q4_1, d, 2), NIBBLE_FIELD(q4_1, m, 2));
NIBBLE_STRIP(q5_0, NIBBLE_FIELD(q5_0, qs, 4), NIBBLE_BITS(q5_0, qh), NIBBLE_FIELD(q5_0, d, 2));
NIBBLE_STRIP(q5_1, NIBBLE_FIELD(q5_1, qs, 4), NIBBLE_BITS(q5_1, qh), NIBBLE_FIELD(q5_1, d, 2),
             NIBBLE_FIELD(q5_1, m, 2));
NIBBLE_STRIP(q8_0, NIBBLE_FIELD(q8_0, qs, 4), NIBBLE_FIELD(q8_0, d, 2));
NIBBLE_STRIP(q2_k, NIBBLE_FIELD(q2_k, qs, 4), NIBBLE_FIELD(q2_k, scales, 4),
             NIBBLE_FIELD(q2_k, d, 2), NIBBLE_FIELD(q2_k, dmin, 2));
NIBBLE_STRIP(q3_k, NIBBLE_FIELD(q3_k, qs, 4), NIBBLE_FIELD(q3_k, hmask, 4),
             NIBBLE_FIELD(q3_k, scales, 4), NIBBLE_FIELD(q3_k, d, 2));
NIBBLE_STRIP(q4_k, NIBBLE_FIELD(q4_k, qs, 4), NIBBLE_FIELD(q4_k, scales, 4),
             NIBBLE_FIELD(q4_k, d, 2), NIBBLE_FIELD(q4_k, dmin, 2));
NIBBLE_STRIP(q5_k, NIBBLE_FIELD(q5_k, qs, 4), NIBBLE_FIELD(q5_k, qh, 4),
             NIBBLE_FIELD(q5_k, scales, 4), NIBBLE_FIELD(q5_k, d, 2), NIBBLE_FIELD(q5_k, dmin, 2));
NIBBLE_STRIP(q6_k, NIBBLE_FIELD(q6_k, ql, 4), NIBBLE_FIELD(q6_k, qh, 4),
             NIBBLE_FIELD(q6_k, scales, 4), NIBBLE_FIELD(q6_k, d, 2));
NIBBLE_STRIP(iq4_nl, NIBBLE_FIELD(iq4_nl, qs, 4), NIBBLE_FIELD(iq4_nl, d, 2));
NIBBLE_STRIP(iq4_xs, NIBBLE_FIELD(iq4_xs, qs, 4), NIBBLE_FIELD(iq4_xs, scales_l, 4),
             NIBBLE_FIELD(iq4_xs, d, 2), NIBBLE_FIELD(iq4_xs, scales_h, 2));
NIBBLE_STRIP(mxfp4, NIBBLE_FIELD(mxfp4, qs, 4), NIBBLE_FIELD(mxfp4, e, 1));
NIBBLE_STRIP(tq1_0, NIBBLE_FIELD(tq1_0, qs, 4), NIBBLE_FIELD(tq1_0, qh, 4),
             NIBBLE_FIELD(tq1_0, d, 2));
NIBBLE_STRIP(tq2_0, NIBBLE_FIELD(tq2_0, qs, 4), NIBBLE_FIELD(tq2_0, d, 2));

#undef NIBBLE_STRIP
#undef NIBBLE_BITS
#undef NIBBLE_FIELD

template <typename F>
inline constexpr bool has_strip_fields = strip_fields<F>.size() > 1;

// Bytes before field `index` in the strip's block, for each row.
template <typename F>
constexpr std::size_t bytes_before(std::size_t index) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < index; ++i)
    bytes += strip_fields<F>[i].width * strip_fields<F>[i].count;
  return bytes;
}

// Every byte of a block is in one field.
template <typename... Fs>
constexpr bool fields_are_whole(type_list<Fs...>) {
  return ((bytes_before<Fs>(strip_fields<Fs>.size()) == sizeof(typename Fs::block)) && ...);
}
static_assert(fields_are_whole(all_formats{}));

// Swaps the bits of `mask` with those `shift` above them.
template <typename Words>
constexpr Words swap_bits(const Words& x, std::uint32_t mask, int shift) {
  const Words t = (x ^ x >> shift) & mask;
  return x ^ t ^ t << shift;
}
// Bit 4 k + j -> bit 8 j + k, in four rounds of swaps: even places move to the lower half, twice.
template <typename Words>
constexpr Words gather_bits(Words x) {
  for (int i = 0; i < 2; ++i) {
    x = swap_bits(x, 0x22222222, 1);
    x = swap_bits(x, 0x0c0c0c0c, 2);
    x = swap_bits(x, 0x00f000f0, 4);
    x = swap_bits(x, 0x0000ff00, 8);
  }
  return x;
}
// The way back.
template <typename Words>
constexpr Words spread_bits(Words x) {
  for (int i = 0; i < 2; ++i) {
    x = swap_bits(x, 0x0000ff00, 8);
    x = swap_bits(x, 0x00f000f0, 4);
    x = swap_bits(x, 0x0c0c0c0c, 2);
    x = swap_bits(x, 0x22222222, 1);
  }
  return x;
}
static_assert(gather_bits(0x10u) == 2 && gather_bits(2u) == 0x100);
static_assert(spread_bits(gather_bits(0x89abcdefu)) == 0x89abcdef);

// Calls copy(field, i, in, out) for elements of all fields: `field` a constant index of
// strip_fields, `i` the first of those that are yet to be copied, `in` the offset of that element
// in the file's block, `out` that in the strip's block, both for row 0. The strip has the element
// of row r `r * width` bytes further. copy() returns how many elements it has copied.
template <typename F, int Rows, typename Copy>
inline void for_each_element(Copy copy) {
  unrolled<static_cast<int>(strip_fields<F>.size())>([&](auto index) {
    constexpr strip_field field = strip_fields<F>[index];
    for (std::size_t i = 0; i < field.count;) {
      const std::size_t done = i * field.width;
      i += static_cast<std::size_t>(copy(std::integral_constant<std::size_t, index>{}, i,
                                         field.offset + done,
                                         bytes_before<F>(index) * Rows + done * Rows));
    }
  });
}

// One element of one row, between the file's order and the strip's.
template <strip_field field>
inline void pack_element(const unsigned char* from, unsigned char* to) {
  if constexpr (field.bits) {
    write(to, gather_bits(read<std::uint32_t>(from)));
  } else {
    std::memcpy(to, from, field.width);
  }
}
template <strip_field field>
inline void unpack_element(const unsigned char* from, unsigned char* to) {
  if constexpr (field.bits) {
    write(to, spread_bits(read<std::uint32_t>(from)));
  } else {
    std::memcpy(to, from, field.width);
  }
}

// Four elements of four bytes of `Rows` rows, which are `stride` bytes apart.
template <int Rows>
inline void pack_words(const unsigned char* from, std::size_t stride, unsigned char* to) {
  using words = vector_type<std::uint32_t, 16>::type;
  NIBBLE_UNROLL for (int r = 0; r < Rows; r += 4, from += 4 * stride, to += 16) {
    const auto a = read<words>(from), b = read<words>(from + stride);
    const auto c = read<words>(from + 2 * stride), d = read<words>(from + 3 * stride);
    const words ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const words cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const words ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const words cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    write(to, words(__builtin_shufflevector(ab, cd, 0, 1, 4, 5)));
    write(to + 4 * Rows, words(__builtin_shufflevector(ab, cd, 2, 3, 6, 7)));
    write(to + 8 * Rows, words(__builtin_shufflevector(ab2, cd2, 0, 1, 4, 5)));
    write(to + 12 * Rows, words(__builtin_shufflevector(ab2, cd2, 2, 3, 6, 7)));
  }
}

// The bits of one word of all rows, side by side.
template <typename Arch>
inline void pack_bits(const unsigned char* from, std::size_t stride, unsigned char* to) {
  typename strip<Arch>::u32 words;
  for (int r = 0; r < strip_rows<Arch>; ++r, from += stride) words[r] = read<std::uint32_t>(from);
  write(to, gather_bits(words));
}

// rows: `n` <= strip_rows rows of blocks, `stride` bytes apart; missing ones become zeros.
template <typename Arch, typename F>
inline void pack_strip(const unsigned char* rows, std::size_t stride, int n, std::int64_t blocks,
                       unsigned char* to) {
  constexpr int all = strip_rows<Arch>;
  constexpr std::size_t block_bytes = sizeof(typename F::block);
  if (n < all) std::memset(to, 0, static_cast<std::size_t>(blocks) * block_bytes * all);
  for (std::int64_t b = 0; b < blocks; ++b, rows += block_bytes, to += block_bytes * all) {
    for_each_element<F, all>([&](auto index, std::size_t i, std::size_t in, std::size_t out) {
      constexpr strip_field field = strip_fields<F>[index];
      if constexpr (field.width == 4 && !field.bits) {
        if (n == all && i + 4 <= field.count) {
          pack_words<all>(rows + in, stride, to + out);
          return 4;
        }
      }
      if constexpr (field.bits) {
        if (n == all) {
          pack_bits<Arch>(rows + in, stride, to + out);
          return 1;
        }
      }
      const unsigned char* from = rows + in;
      for (int r = 0; r < n; ++r, from += stride) {
        pack_element<field>(from, to + out + static_cast<std::size_t>(r) * field.width);
      }
      return 1;
    });
  }
}

// See cpu::kernel_table::pack.
template <typename Arch, typename F>
void pack(const void* rows, std::int64_t n_rows, std::int64_t columns, void* to) {
  const std::int64_t blocks = columns / F::block_size;
  const auto row_bytes = static_cast<std::size_t>(blocks) * sizeof(typename F::block);
  const auto* from = static_cast<const unsigned char*>(rows);
  auto* out = static_cast<unsigned char*>(to);
  constexpr std::int64_t all = strip_rows<Arch>;
  for (std::int64_t r = 0; r < n_rows; r += all) {
    pack_strip<Arch, F>(from, row_bytes, static_cast<int>(least(all, n_rows - r)), blocks, out);
    from += static_cast<std::size_t>(all) * row_bytes;
    out += static_cast<std::size_t>(all) * row_bytes;
  }
}

// Row r of a strip's block, as in the file.
template <typename Arch, typename F>
inline void unpack_block(const unsigned char* strip_block, int r, typename F::block& to) {
  auto* const block = reinterpret_cast<unsigned char*>(&to);
  for_each_element<F, strip_rows<Arch>>(
      [&](auto index, std::size_t, std::size_t in, std::size_t out) {
        constexpr strip_field field = strip_fields<F>[index];
        unpack_element<field>(strip_block + out + static_cast<std::size_t>(r) * field.width,
                              block + in);
        return 1;
      });
}

// See cpu::kernel_table::unpack_row.
template <typename Arch, typename F>
void unpack_row(const void* packed, std::int64_t row, std::int64_t columns, void* to) {
  constexpr std::int64_t all = strip_rows<Arch>;
  const std::int64_t blocks = columns / F::block_size;
  constexpr std::size_t step = sizeof(typename F::block) * static_cast<std::size_t>(all);
  const auto* from = static_cast<const unsigned char*>(packed) +
                     static_cast<std::size_t>(row / all * blocks) * step;
  auto* out = static_cast<typename F::block*>(to);
  for (std::int64_t b = 0; b < blocks; ++b, from += step) {
    unpack_block<Arch, F>(from, static_cast<int>(row % all), out[b]);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
