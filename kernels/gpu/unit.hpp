// Units of 32 columns of a packed matrix (matrix_layout.hpp), as kernels take them.
//
//   const unit_reader<F> reader(matrix);
//   const packed_unit<F> packed = reader.load(index, row, unit);  // on its way from memory
//   stored_words(packed, words);             // eight words of four stored codes, columns in order
//   signed_words(packed, words);             // the same of codes: signed bytes
//   const affine map = unit_scale(packed, unit, group);  // of each of unit_groups<F> groups
//
// Everything is in registers: loops are unrolled, arrays are indexed by constants.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <nibble/formats/list.hpp>
#include <nibble/formats/nibbles.hpp>

#include "gpu/dialect.hpp"
#include "gpu/matrix_layout.hpp"
#include "gpu/unit_header.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

static_assert(layout_columns == gpu::unit_columns);

// Groups of columns of a unit that have a scale of their own: 1, or 2 of 16 columns each.
template <block_format F>
inline constexpr int unit_groups = layout_columns / F::group_size;

// A unit as it was read.
template <block_format F>
struct packed_unit {
  static constexpr code_bits bits = code_bits_of<F>;
  std::uint32_t low[bits.low];
  std::uint32_t high[bits.high > 0 ? bits.high : 1];
  unit_header<block_header<F>> header;
};

// Four times the same byte.
constexpr std::uint32_t four_bytes(int byte) {
  return 0x01010101u * static_cast<std::uint8_t>(byte);
}

// ---- codes ----

// Eight places of F's table, columns j and j + 16 of a low plane's word in the halves of byte j, to
// the codes of both.
template <table_format F>
NIBBLE_DEVICE void look_up(std::uint32_t places, std::uint32_t& first, std::uint32_t& second) {
  constexpr std::uint64_t lower = formats::pack_table(F::table, 0);
  constexpr std::uint64_t upper = formats::pack_table(F::table, 8);
#if defined(__CUDA_ARCH__)
  // A selector's four bits choose one of eight bytes by three of them (the fourth would ask for
  // copies of a sign), so each half of the table is asked, and the fourth bit chooses between them.
  const auto four = [](std::uint32_t selectors) {
    const std::uint32_t place = selectors & 0x7777;
    const std::uint32_t a = __byte_perm(static_cast<std::uint32_t>(lower),
                                        static_cast<std::uint32_t>(lower >> 32), place);
    const std::uint32_t b = __byte_perm(static_cast<std::uint32_t>(upper),
                                        static_cast<std::uint32_t>(upper >> 32), place);
    return __byte_perm(a, b, 0x3210 | (selectors & 0x8888) >> 1);
  };
  const std::uint32_t a = four(places), b = four(places >> 16);
  first = __byte_perm(a, b, 0x6420);
  second = __byte_perm(a, b, 0x7531);
#elif defined(__HIP_DEVICE_COMPILE__)
  const auto four = [](std::uint32_t at) {
    const std::uint32_t place = at & 0x07070707;
    const std::uint32_t a = __builtin_amdgcn_perm(static_cast<std::uint32_t>(lower >> 32),
                                                  static_cast<std::uint32_t>(lower), place);
    const std::uint32_t b = __builtin_amdgcn_perm(static_cast<std::uint32_t>(upper >> 32),
                                                  static_cast<std::uint32_t>(upper), place);
    return __builtin_amdgcn_perm(b, a, 0x03020100 | (at & 0x08080808) >> 1);
  };
  first = four(places & 0x0f0f0f0f);
  second = four(places >> 4 & 0x0f0f0f0f);
#else
  const auto entry = [](std::uint32_t place) {
    const std::uint64_t half = (place & 8) != 0 ? upper : lower;
    return static_cast<std::uint32_t>(half >> (8 * (place & 7))) & 0xff;
  };
  first = second = 0;
  for (int i = 0; i < 32; i += 8) {
    first |= entry(places >> i & 15) << i;
    second |= entry(places >> (i + 4) & 15) << i;
  }
#endif
}

// x shifted to the left, or, by less than 0, to the right.
template <int by>
NIBBLE_DEVICE std::uint32_t shifted(std::uint32_t x) {
  return by >= 0 ? x << (by >= 0 ? by : 0) : x >> (by >= 0 ? 0 : -by);
}

// Word `w` of stored codes, columns 4 w to 4 w + 3.
template <int w, block_format F>
NIBBLE_DEVICE std::uint32_t stored_word(const packed_unit<F>& unit) {
  constexpr code_bits bits = code_bits_of<F>;
  std::uint32_t word;
  if constexpr (bits.low == 8) {
    word = unit.low[w];
  } else if constexpr (bits.low == 4) {
    word = shifted < w < 4 ? 0 : -4 > (unit.low[w % 4]) & four_bytes(15);
  } else {
    word = shifted<-2 * (w % 4)>(unit.low[w / 4]) & four_bytes(3);
  }
  if constexpr (bits.high == 1) {
    word |= shifted<bits.low - w>(unit.high[0]) & four_bytes(1 << bits.low);
  } else if constexpr (bits.high == 2) {
    word |= shifted<bits.low - 2 * (w % 4)>(unit.high[w / 4]) & four_bytes(3 << bits.low);
  }
  return word;
}

// Stored codes are not negative, and stored_zero<F> greater than the codes; codes of tables and of
// eight bits are as they are, signed.
template <block_format F>
NIBBLE_DEVICE void stored_words(const packed_unit<F>& unit, std::uint32_t (&words)[8]) {
  if constexpr (table_format<F>) {
    NIBBLE_UNROLL_DEVICE
    for (int w = 0; w < 4; ++w) look_up<F>(unit.low[w], words[w], words[w + 4]);
  } else {
    words[0] = stored_word<0>(unit);
    words[1] = stored_word<1>(unit);
    words[2] = stored_word<2>(unit);
    words[3] = stored_word<3>(unit);
    words[4] = stored_word<4>(unit);
    words[5] = stored_word<5>(unit);
    words[6] = stored_word<6>(unit);
    words[7] = stored_word<7>(unit);
  }
}

template <block_format F>
NIBBLE_DEVICE void signed_words(const packed_unit<F>& unit, std::uint32_t (&words)[8]) {
  stored_words(unit, words);
  if constexpr (stored_zero<F> != 0) {
    NIBBLE_UNROLL_DEVICE
    for (int w = 0; w < 8; ++w) {
      // the top bits, set first and flipped back after, take the borrows (formats/nibbles.hpp)
      words[w] = ((words[w] | four_bytes(0x80)) - four_bytes(stored_zero<F>)) ^ four_bytes(0x80);
    }
  }
}

// ---- scales ----

// `group` of unit `unit` of the row.
template <block_format F>
NIBBLE_DEVICE affine unit_scale(const packed_unit<F>& packed, std::int64_t unit, int group) {
  constexpr int units_of_block = F::block_size / layout_columns;
  const int in_block = static_cast<int>(unit % units_of_block);
  if constexpr (requires { packed.header.maps; }) {
    return packed.header.maps[in_block * unit_groups<F> + group];
  } else {
    return F::scale(packed.header, in_block * unit_groups<F> + group);
  }
}

// ---- from memory ----

// What a unit of any format begins with: where the planes of a matrix are.
template <weight_format F>
class unit_reader {
 public:
  NIBBLE_DEVICE explicit unit_reader(const gpu::packed_matrix& matrix)
      : data_(matrix.data),
        matrix_bytes_(matrix.matrix_bytes),
        units_((matrix.columns + layout_columns - 1) / layout_columns) {
    const matrix_layout layout = layout_of<F>(matrix.columns, matrix.rows);
    high_ = layout.offset[high_plane];
    header_ = layout.offset[header_plane];
  }

  // Units of a row.
  NIBBLE_DEVICE std::int64_t units() const { return units_; }

  NIBBLE_DEVICE packed_unit<F> load(std::int64_t matrix, std::int64_t row,
                                    std::int64_t unit) const {
    constexpr code_bits bits = code_bits_of<F>;
    constexpr int units_of_block = F::block_size / layout_columns;
    const std::byte* const base = data_ + static_cast<std::size_t>(matrix) * matrix_bytes_;
    const std::int64_t first = row * units_, at = first + unit;
    packed_unit<F> packed;
    if constexpr (bits.low == 8) {
      const std::byte* const from = base + 16 * (first + at);  // a row has two halves
      const words4 a = load16_once(from), b = load16_once(from + 16 * units_);
      NIBBLE_UNROLL_DEVICE
      for (int w = 0; w < 4; ++w) {
        packed.low[w] = a.w[w];
        packed.low[4 + w] = b.w[w];
      }
    } else {
      load_plane<bits.low>(base + 4 * bits.low * at, packed.low);
    }
    if constexpr (bits.high > 0) {
      load_plane<bits.high>(base + high_ + 4 * bits.high * at, packed.high);
    } else {
      packed.high[0] = 0;
    }
    const std::int64_t block =
        units_of_block == 1 ? at : first / units_of_block + unit / units_of_block;
    packed.header.load(base + header_ + static_cast<std::size_t>(block) * sizeof(block_header<F>),
                       static_cast<int>(unit % units_of_block));
    return packed;
  }

  // Codes as signed bytes, and scales.
  NIBBLE_DEVICE void codes(std::int64_t matrix, std::int64_t row, std::int64_t unit,
                           std::uint32_t (&words)[8], affine (&scales)[unit_groups<F>]) const {
    const packed_unit<F> packed = load(matrix, row, unit);
    signed_words(packed, words);
    NIBBLE_UNROLL_DEVICE
    for (int g = 0; g < unit_groups<F>; ++g) scales[g] = unit_scale(packed, unit, g);
  }

  // The values, as decode_block() gives them.
  NIBBLE_DEVICE void floats(std::int64_t matrix, std::int64_t row, std::int64_t unit,
                            float (&out)[layout_columns]) const {
    std::uint32_t words[8];
    affine scales[unit_groups<F>];
    codes(matrix, row, unit, words, scales);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < layout_columns; ++i) {
      const auto code = static_cast<std::int8_t>(words[i / 4] >> (8 * (i % 4)));
      const affine map = scales[i / F::group_size];
      const float product = map.scale * static_cast<float>(code);  // exact
      out[i] = F::has_offset ? product + map.offset : product;
    }
  }

  // Asks for the codes of a row to come nearer; by all lanes of a warp.
  NIBBLE_DEVICE void fetch_row(std::int64_t matrix, std::int64_t row) const {
    constexpr int line = 128;
    const std::int64_t bytes = 4 * code_bits_of<F>.low * units_;
    const std::byte* const from =
        data_ + static_cast<std::size_t>(matrix) * matrix_bytes_ + row * bytes;
    for (std::int64_t at = lane() * line; at < bytes; at += warp_size * line) prefetch(from + at);
  }

 private:
  template <int words>
  NIBBLE_DEVICE static void load_plane(const std::byte* from, std::uint32_t (&to)[words]) {
    if constexpr (words == 4) {
      const words4 four = load16_once(from);
      NIBBLE_UNROLL_DEVICE
      for (int w = 0; w < 4; ++w) to[w] = four.w[w];
    } else {
      load_words<words>(from, to);
    }
  }

  const std::byte* data_;
  std::size_t matrix_bytes_, high_, header_;
  std::int64_t units_;
};

// Floats need no scales.
template <element_format F>
class unit_reader<F> {
 public:
  NIBBLE_DEVICE explicit unit_reader(const gpu::packed_matrix& matrix)
      : data_(matrix.data),
        matrix_bytes_(matrix.matrix_bytes),
        units_((matrix.columns + layout_columns - 1) / layout_columns) {}

  NIBBLE_DEVICE std::int64_t units() const { return units_; }

  NIBBLE_DEVICE void floats(std::int64_t matrix, std::int64_t row, std::int64_t unit,
                            float (&out)[layout_columns]) const {
    using element = typename F::block;
    constexpr int n = 16 / sizeof(element);  // in 16 bytes
    const std::byte* const from =
        data_ + static_cast<std::size_t>(matrix) * matrix_bytes_ +
        static_cast<std::size_t>((row * units_ + unit) * layout_columns) * sizeof(element);
    NIBBLE_UNROLL_DEVICE
    for (int i = 0; i < layout_columns; i += n) {
      const auto some =
          std::bit_cast<std::array<element, n>>(load16_once(from + i * sizeof(element)));
      NIBBLE_UNROLL_DEVICE
      for (int j = 0; j < n; ++j) out[i + j] = F::value(some[static_cast<std::size_t>(j)]);
    }
  }

 private:
  const std::byte* data_;
  std::size_t matrix_bytes_;
  std::int64_t units_;
};

}  // namespace nibble::inline NIBBLE_ABI::kernels
