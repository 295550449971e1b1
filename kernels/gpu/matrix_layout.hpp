// How a matrix lies in a GPU's memory. For host and device.
//
// Rows go in units of 32 columns. Codes are stored as numbers that are not negative (code -
// min_code; the index into a table; codes of eight bits as they are) and are split in planes, each
// of which holds all rows, one after another:
//   low     4 bits: 16 bytes a unit, byte j has column j in its low half and j + 16 in the high one
//           2 bits: 8 bytes a unit, byte 4 k + i has columns 16 k + i + {0, 4, 8, 12}, from the low
//           bits on: word k, shifted by 2 w, has columns 16 k + 4 w + {0, 1, 2, 3} in its bytes
//           8 bits: the first 16 columns of all units of a row, then the last 16 of all of them
//   high    what codes of 3, 5 and 6 bits have more. 1 bit: 4 bytes a unit, byte i has columns
//           4 w + i at bit w. 2 bits: as above
//   header  what scales are made of: the bits of the file, in the file's blocks
// So every plane can be read in aligned pieces of 16, 8 or 4 bytes, by neighbouring threads side by
// side, and a word of a plane gives codes of four neighbouring columns by a shift and a mask. The
// bytes are as many as in the file (TQ1_0 alone takes more: 2 bits a code).
//
// Formats of floats have one plane of their rows, filled up with zeros to whole units.
//
// Experts lie matrix after matrix. Each plane starts at a multiple of 256 bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nibble/formats/list.hpp>

#include "gpu/block_headers.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Columns of a unit.
inline constexpr int layout_columns = 32;

enum matrix_plane { low_plane, high_plane, header_plane, matrix_planes };

// The bits of a stored code: those in the low plane and those in the high one.
struct code_bits {
  int low, high;
};
template <block_format F>
constexpr code_bits stored_bits() {
  if (table_format<F>) return {4, 0};
  const int most = F::max_code - F::min_code;
  return most < 4    ? code_bits{2, 0}
         : most < 8  ? code_bits{2, 1}
         : most < 16 ? code_bits{4, 0}
         : most < 32 ? code_bits{4, 1}
         : most < 64 ? code_bits{4, 2}
                     : code_bits{8, 0};
}
template <block_format F>
inline constexpr code_bits code_bits_of = stored_bits<F>();

// A stored code less this is the code (a table's index: the place of the code).
template <block_format F>
inline constexpr int stored_zero =
    table_format<F> || code_bits_of<F>.low == 8 ? 0 : -int{F::min_code};

struct matrix_layout {
  std::size_t offset[matrix_planes];     // from the matrix's begin
  std::size_t row_bytes[matrix_planes];  // 0: there is no such plane
  std::size_t bytes;                     // of the matrix, a multiple of 256
};

// columns: a multiple of the format's block size
template <weight_format F>
constexpr matrix_layout layout_of(std::int64_t columns, std::int64_t rows) {
  matrix_layout layout{};
  const auto units = static_cast<std::size_t>((columns + layout_columns - 1) / layout_columns);
  if constexpr (element_format<F>) {
    layout.row_bytes[low_plane] = units * layout_columns * sizeof(typename F::block);
  } else {
    constexpr code_bits bits = code_bits_of<F>;
    layout.row_bytes[low_plane] = units * 4 * bits.low;
    layout.row_bytes[high_plane] = units * 4 * bits.high;
    layout.row_bytes[header_plane] =
        units * layout_columns / F::block_size * sizeof(block_header<F>);
  }
  for (int p = 0; p < matrix_planes; ++p) {
    layout.offset[p] = layout.bytes;
    layout.bytes += (layout.row_bytes[p] * static_cast<std::size_t>(rows) + 255) / 256 * 256;
  }
  return layout;
}

// ---- for the host ----

// The same for a format known at run time only. Throws error: unsupported.
inline matrix_layout layout_of(format_id id, std::int64_t columns, std::int64_t rows) {
  return with_format(id, [&]<typename F>(F) { return layout_of<F>(columns, rows); });
}

// Where rows, plane by plane, come to lie: row i of plane p at at[p] + i * row_bytes[p].
struct plane_pointers {
  std::byte* at[matrix_planes];
};

// Some rows of a matrix in memory of their own, plane after plane: each piece is one copy.
struct packed_piece {
  std::size_t from;   // in that memory
  std::size_t to;     // in the matrix
  std::size_t bytes;  // 0: nothing
};
struct packed_rows {
  packed_piece pieces[matrix_planes];
  std::size_t bytes;  // of that memory

  plane_pointers planes(std::byte* memory) const {
    plane_pointers to{};
    for (int p = 0; p < matrix_planes; ++p) to.at[p] = memory + pieces[p].from;
    return to;
  }
};
// Rows [first, first + n).
inline packed_rows rows_of(const matrix_layout& layout, std::int64_t first, std::int64_t n) {
  packed_rows rows{};
  for (int p = 0; p < matrix_planes; ++p) {
    const std::size_t row_bytes = layout.row_bytes[p];
    rows.pieces[p] = {rows.bytes, layout.offset[p] + static_cast<std::size_t>(first) * row_bytes,
                      static_cast<std::size_t>(n) * row_bytes};
    rows.bytes += (rows.pieces[p].bytes + 15) / 16 * 16;
  }
  return rows;
}

// The 32 stored codes of a unit of a block.
template <block_format F>
inline void stored_codes(const typename F::block& b, int unit, std::uint8_t* stored) {
  constexpr int groups = layout_columns / F::group_size;
  for (int g = 0; g < groups; ++g, stored += F::group_size) {
    if constexpr (table_format<F>) {
      F::indices(b, unit * groups + g, stored);
    } else {
      std::int8_t codes[F::group_size];
      F::codes(b, unit * groups + g, codes);
      for (int i = 0; i < F::group_size; ++i) {
        stored[i] = static_cast<std::uint8_t>(codes[i] + stored_zero<F>);
      }
    }
  }
}

// 32 numbers below 4 to 8 bytes, below 2 to 4 bytes.
inline void pack_two_bits(const std::uint8_t* codes, std::byte* to) {
  for (int k = 0; k < 2; ++k, codes += 16, to += 4) {
    for (int i = 0; i < 4; ++i) {
      to[i] = static_cast<std::byte>(codes[i] | codes[4 + i] << 2 | codes[8 + i] << 4 |
                                     codes[12 + i] << 6);
    }
  }
}
inline void pack_one_bit(const std::uint8_t* codes, std::byte* to) {
  for (int i = 0; i < 4; ++i) {
    int byte = 0;
    for (int w = 0; w < 8; ++w) byte |= codes[4 * w + i] << w;
    to[i] = static_cast<std::byte>(byte);
  }
}

// Puts a unit into the planes of its row of `units`.
template <block_format F>
inline void pack_unit(const typename F::block& b, int unit_of_block, std::int64_t unit,
                      std::int64_t units, const plane_pointers& row) {
  constexpr code_bits bits = code_bits_of<F>;
  std::uint8_t stored[layout_columns];
  stored_codes<F>(b, unit_of_block, stored);
  if constexpr (bits.low == 8) {
    std::memcpy(row.at[low_plane] + 16 * unit, stored, 16);
    std::memcpy(row.at[low_plane] + 16 * (units + unit), stored + 16, 16);
  } else {
    std::uint8_t low[layout_columns], high[layout_columns];
    for (int i = 0; i < layout_columns; ++i) {
      low[i] = static_cast<std::uint8_t>(stored[i] & ((1 << bits.low) - 1));
      high[i] = static_cast<std::uint8_t>(stored[i] >> bits.low);
    }
    std::byte* const to = row.at[low_plane] + 4 * bits.low * unit;
    if constexpr (bits.low == 2) {
      pack_two_bits(low, to);
    } else {
      for (int j = 0; j < 16; ++j) to[j] = static_cast<std::byte>(low[j] | low[16 + j] << 4);
    }
    if constexpr (bits.high == 1) pack_one_bit(high, row.at[high_plane] + 4 * unit);
    if constexpr (bits.high == 2) pack_two_bits(high, row.at[high_plane] + 8 * unit);
  }
}

// Packs `n` blocks of a row, from its block `first` on; `row`: where the row begins in each plane.
// Several threads may pack parts of one row.
template <block_format F>
inline void pack_blocks(const void* blocks, std::int64_t first, std::int64_t n,
                        std::int64_t columns, const plane_pointers& row) {
  constexpr int units_of_block = F::block_size / layout_columns;
  const auto* from = static_cast<const std::byte*>(blocks);
  for (std::int64_t i = first; i < first + n; ++i, from += sizeof(typename F::block)) {
    typename F::block b;
    std::memcpy(&b, from, sizeof b);
    for (int u = 0; u < units_of_block; ++u) {
      pack_unit<F>(b, u, i * units_of_block + u, columns / layout_columns, row);
    }
    const auto header = block_header<F>::of(b);
    std::memcpy(row.at[header_plane] + static_cast<std::size_t>(i) * sizeof header, &header,
                sizeof header);
  }
}

// Packs whole rows of the file, which lie one after another and may have any alignment.
template <weight_format F>
inline void pack_rows(const void* rows, std::int64_t n, std::int64_t columns, plane_pointers to) {
  const matrix_layout layout = layout_of<F>(columns, n);
  const std::int64_t blocks = columns / F::block_size;
  const std::size_t row_bytes = static_cast<std::size_t>(blocks) * sizeof(typename F::block);
  const auto* from = static_cast<const std::byte*>(rows);
  for (std::int64_t r = 0; r < n; ++r, from += row_bytes) {
    if constexpr (element_format<F>) {
      std::memcpy(to.at[low_plane], from, row_bytes);
      std::memset(to.at[low_plane] + row_bytes, 0, layout.row_bytes[low_plane] - row_bytes);
    } else {
      pack_blocks<F>(from, 0, blocks, columns, to);
    }
    for (int p = 0; p < matrix_planes; ++p) to.at[p] += layout.row_bytes[p];
  }
}
inline void pack_rows(format_id id, const void* rows, std::int64_t n, std::int64_t columns,
                      const plane_pointers& to) {
  with_format(id, [&]<typename F>(F) { pack_rows<F>(rows, n, columns, to); });
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
