// Packed matrices: every bit of a file is in its place, however the packing is divided.
#include <thread>

#include "product_test.hpp"

namespace {

namespace kernels = nibble::kernels;
using kernels::matrix_layout;

// A matrix packed in one go, filled up with 0xee.
template <typename F>
std::vector<std::byte> packed_image(const test::host_matrices<F>& from) {
  const matrix_layout layout = kernels::layout_of<F>(from.columns, from.rows);
  std::vector<std::byte> image(layout.bytes, std::byte{0xee});
  const auto all = kernels::rows_of(layout, 0, from.rows);
  kernels::plane_pointers planes{};
  for (int p = 0; p < kernels::matrix_planes; ++p) planes.at[p] = image.data() + all.pieces[p].to;
  kernels::pack_rows<F>(from.blocks.data(), from.rows, from.columns, planes);
  return image;
}

// The stored code of a column, bit by bit as matrix_layout.hpp says.
template <typename F>
int stored_code(const std::vector<std::byte>& image, std::int64_t columns, std::int64_t rows,
                std::int64_t row, std::int64_t column) {
  const matrix_layout layout = kernels::layout_of<F>(columns, rows);
  const auto byte = [&](int plane, std::int64_t at) {
    return std::to_integer<int>(
        image[layout.offset[plane] + static_cast<std::size_t>(row) * layout.row_bytes[plane] +
              static_cast<std::size_t>(at)]);
  };
  const std::int64_t units = columns / 32, unit = column / 32;
  const int c = static_cast<int>(column % 32);
  const auto two_bits = [&](int plane) {
    return byte(plane, 8 * unit + 4 * (c / 16) + c % 4) >> (2 * (c % 16 / 4)) & 3;
  };
  constexpr kernels::code_bits bits = kernels::code_bits_of<F>;
  if (bits.low == 8) return byte(0, 16 * (c < 16 ? unit : units + unit) + c % 16);
  const int low =
      bits.low == 2 ? two_bits(0) : byte(0, 16 * unit + c % 16) >> (c < 16 ? 0 : 4) & 15;
  const int high = bits.high == 0   ? 0
                   : bits.high == 1 ? byte(1, 4 * unit + c % 4) >> (c / 4) & 1
                                    : two_bits(1);
  return low | high << bits.low;
}

// All stored codes of a block, found by the format's own functions.
template <typename F>
std::vector<int> codes_of(const typename F::block& b) {
  std::vector<int> stored;
  for (int g = 0; g < F::block_size / F::group_size; ++g) {
    if constexpr (nibble::table_format<F>) {
      std::uint8_t places[F::group_size];
      F::indices(b, g, places);
      stored.insert(stored.end(), std::begin(places), std::end(places));
    } else {
      std::int8_t codes[F::group_size];
      F::codes(b, g, codes);
      for (const int code : codes) {
        stored.push_back(kernels::code_bits_of<F>.low == 8 ? code & 0xff : code - F::min_code);
      }
    }
  }
  return stored;
}

// Where each bit of a block goes: flipping a bit of a code flips one bit of one stored code.
struct bit_place {
  int value, bit;
};
template <typename F>
std::vector<std::optional<bit_place>> code_places() {
  std::vector<std::optional<bit_place>> places;
  const typename F::block zero{};
  const auto before = codes_of<F>(zero);
  for (std::size_t i = 0; i < 8 * sizeof zero; ++i) {
    std::uint8_t bytes[sizeof zero] = {};
    bytes[i / 8] = static_cast<std::uint8_t>(1 << i % 8);
    typename F::block flipped;
    std::memcpy(&flipped, bytes, sizeof flipped);
    const auto after = codes_of<F>(flipped);
    places.emplace_back();
    for (std::size_t v = 0; v < after.size(); ++v) {
      if (after[v] == before[v]) continue;
      REQUIRE_FALSE(places.back());
      const unsigned change = static_cast<unsigned>(after[v] ^ before[v]);
      REQUIRE(std::has_single_bit(change));
      places.back() = bit_place{static_cast<int>(v), std::countr_zero(change)};
    }
  }
  return places;
}

// A block made of stored codes and a header. Bits that no code has are the header's, in order of
// their members; which have other places there where members lie around the codes.
template <typename F>
typename F::block block_of(const std::vector<int>& codes, const std::byte* header,
                           const std::vector<std::optional<bit_place>>& places) {
  typename F::block b{};
  auto* const bytes = reinterpret_cast<unsigned char*>(&b);
  const auto set = [&](std::size_t i, int bit) {
    bytes[i / 8] = static_cast<unsigned char>(bytes[i / 8] | bit << i % 8);
  };
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (places[i]) set(i, codes[static_cast<std::size_t>(places[i]->value)] >> places[i]->bit & 1);
  }
  std::size_t at = 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (places[i]) continue;
    set(i, std::to_integer<int>(header[at / 8]) >> at % 8 & 1);
    ++at;
  }
  REQUIRE(at == 8 * sizeof(kernels::block_header<F>));
  return b;
}

template <typename F>
void check_round_trip(std::int64_t columns, std::int64_t rows, test::random_source& random) {
  test::host_matrices<F> from{columns, rows, 1, {}};
  from.blocks.resize(static_cast<std::size_t>(rows * (columns / F::block_size)));
  for (auto& b : from.blocks) {
    std::uint8_t bytes[sizeof b];
    for (auto& byte : bytes) byte = random.byte();
    std::memcpy(&b, bytes, sizeof b);
  }
  const auto image = packed_image(from);
  const matrix_layout layout = kernels::layout_of<F>(columns, rows);
  constexpr bool same_bits = F::gguf_id != nibble::formats::tq1_0::gguf_id;
  std::vector<std::optional<bit_place>> places;
  if constexpr (same_bits) places = code_places<F>();
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < columns / F::block_size; ++i) {
      const typename F::block& b = from.row(0, r)[i];
      std::vector<int> codes;
      for (std::int64_t c = i * F::block_size; c < (i + 1) * F::block_size; ++c) {
        codes.push_back(stored_code<F>(image, columns, rows, r, c));
      }
      REQUIRE(codes == codes_of<F>(b));
      const std::byte* const header =
          image.data() + layout.offset[kernels::header_plane] +
          static_cast<std::size_t>(r) * layout.row_bytes[kernels::header_plane] +
          static_cast<std::size_t>(i) * sizeof(kernels::block_header<F>);
      if constexpr (same_bits) {
        const auto again = block_of<F>(codes, header, places);
        REQUIRE(std::memcmp(&again, &b, sizeof b) == 0);
      } else {
        REQUIRE(std::memcmp(header, &b.d, sizeof b.d) == 0);
      }
    }
  }
}

// Five bits, two scales for 32 values, and no header of its own.
struct plain_format {
  static constexpr std::string_view name = "plain";
  static constexpr std::uint32_t gguf_id = 1000;
  static constexpr int block_size = 64;
  static constexpr int group_size = 16;
  static constexpr bool has_offset = true;
  static constexpr int min_code = -3;
  static constexpr int max_code = 20;
  struct block {
    std::uint8_t codes[64];
    nibble::half scales[4];
  };
  static void codes(const block& b, int group, std::int8_t* out) {
    for (int i = 0; i < 16; ++i) out[i] = static_cast<std::int8_t>(b.codes[16 * group + i] - 3);
  }
  template <typename Block>
  static nibble::affine scale(const Block& b, int group) {
    return {nibble::to_float(b.scales[group]), static_cast<float>(group)};
  }
};
static_assert(nibble::block_format<plain_format>);

}  // namespace

TEST_CASE("packed matrices hold every bit of the file") {
  int formats = 0;
  test::random_source random(3);
  nibble::for_each_format([&]<typename F>(F) {
    INFO(F::name);
    ++formats;
    if constexpr (nibble::block_format<F>) {
      for (const std::int64_t columns : {32, 96, 256, 768}) {
        if (columns % F::block_size != 0) continue;
        for (const std::int64_t rows : {1, 3}) check_round_trip<F>(columns, rows, random);
      }
    } else {
      for (const std::int64_t columns : {1, 31, 32, 70}) {
        const auto from = test::make_matrices<F>(columns, 3, 1, random);
        const auto image = packed_image(from);
        const std::size_t stride = kernels::layout_of<F>(columns, 3).row_bytes[0];
        REQUIRE(stride ==
                static_cast<std::size_t>((columns + 31) / 32 * 32) * sizeof from.blocks[0]);
        for (std::size_t r = 0; r < 3; ++r) {
          const std::size_t used = static_cast<std::size_t>(columns) * sizeof from.blocks[0];
          REQUIRE(std::memcmp(image.data() + r * stride, from.row(0, static_cast<std::int64_t>(r)),
                              used) == 0);
          for (std::size_t i = used; i < stride; ++i) {
            REQUIRE(image[r * stride + i] == std::byte{0});
          }
        }
      }
    }
  });
  CHECK(formats == nibble::format_count);
}

TEST_CASE("packed matrices take as many bytes as the file, in aligned rows") {
  nibble::for_each_format([]<typename F>(F) {
    INFO(F::name);
    for (const std::int64_t columns : {256, 768, 4096}) {
      const matrix_layout layout = kernels::layout_of<F>(columns, 5);
      const matrix_layout by_id = nibble::kernels::layout_of(nibble::id_of<F>, columns, 5);
      CHECK(by_id.bytes == layout.bytes);
      CHECK(layout.bytes % 256 == 0);
      std::size_t row = 0;
      for (int p = 0; p < kernels::matrix_planes; ++p) {
        CHECK(by_id.offset[p] == layout.offset[p]);
        CHECK(layout.offset[p] % 256 == 0);
        row += layout.row_bytes[p];
      }
      const std::size_t in_file = nibble::row_bytes(nibble::id_of<F>, columns);
      if (nibble::id_of<F> == nibble::id_of<nibble::formats::tq1_0>) {
        CHECK(row == nibble::row_bytes(nibble::id_of<nibble::formats::tq2_0>, columns));
      } else {
        CHECK(row == in_file);
      }
      if constexpr (nibble::block_format<F>) {
        constexpr kernels::code_bits bits = kernels::code_bits_of<F>;
        CHECK(layout.row_bytes[0] % std::min<std::size_t>(16, 4 * bits.low) == 0);
        if (bits.high > 0) CHECK(layout.row_bytes[1] % (4 * bits.high) == 0);
      }
    }
  });
}

TEST_CASE("a matrix packed in pieces is the same matrix") {
  test::random_source random(5);
  nibble::for_each_format([&]<typename F>(F) {
    INFO(F::name);
    const std::int64_t columns = 768, rows = 11;
    const auto from = test::make_matrices<F>(columns, rows, 1, random);
    const auto whole = packed_image(from);
    const matrix_layout layout = kernels::layout_of<F>(columns, rows);
    // rows through memory of their own, which is copied piece by piece
    std::vector<std::byte> image(layout.bytes, std::byte{0xee});
    for (const auto& [first, n] : {std::pair{0, 4}, {4, 1}, {5, 6}}) {
      const auto some = kernels::rows_of(layout, first, n);
      std::vector<std::byte> staging(some.bytes);
      nibble::kernels::pack_rows(nibble::id_of<F>, from.row(0, first), n, columns,
                                 some.planes(staging.data()));
      for (const kernels::packed_piece& piece : some.pieces) {
        REQUIRE(piece.from + piece.bytes <= staging.size());
        if (piece.bytes == 0) continue;
        std::memcpy(image.data() + piece.to, staging.data() + piece.from, piece.bytes);
      }
    }
    CHECK(image == whole);
    if constexpr (nibble::block_format<F>) {
      // parts of rows, by several threads
      std::vector<std::byte> parts(layout.bytes, std::byte{0xee});
      const std::int64_t blocks = columns / F::block_size;
      const auto pack = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = 0; r < rows; ++r) {
          const auto row = kernels::rows_of(layout, r, 1);
          kernels::plane_pointers to{};
          for (int p = 0; p < kernels::matrix_planes; ++p) {
            to.at[p] = parts.data() + row.pieces[p].to;
          }
          kernels::pack_blocks<F>(from.row(0, r) + begin, begin, end - begin, columns, to);
        }
      };
      std::thread other(pack, 0, blocks / 2);
      pack(blocks / 2, blocks);
      other.join();
      CHECK(parts == whole);
    }
  });
}

TEST_CASE("a format without a header of its own is packed with its scales") {
  test::random_source random(7);
  test::host_matrices<plain_format> from{128, 3, 1, std::vector<plain_format::block>(6)};
  for (auto& b : from.blocks) {
    for (auto& code : b.codes) code = static_cast<std::uint8_t>(random.in(0, 23));
    for (auto& scale : b.scales) scale = nibble::to_half(random.normal());
  }
  const auto image = packed_image(from);
  const matrix_layout layout = kernels::layout_of<plain_format>(128, 3);
  for (std::int64_t r = 0; r < 3; ++r) {
    for (std::int64_t c = 0; c < 128; ++c) {
      REQUIRE(stored_code<plain_format>(image, 128, 3, r, c) ==
              from.row(0, r)[c / 64].codes[c % 64]);
    }
    kernels::maps_header<plain_format> headers[2];
    std::memcpy(headers,
                image.data() + layout.offset[kernels::header_plane] +
                    static_cast<std::size_t>(r) * layout.row_bytes[kernels::header_plane],
                sizeof headers);
    for (int g = 0; g < 8; ++g) {
      const nibble::affine expected = plain_format::scale(from.row(0, r)[g / 4], g % 4);
      CHECK(headers[g / 4].maps[g % 4].scale == expected.scale);
      CHECK(headers[g / 4].maps[g % 4].offset == expected.offset);
    }
  }
}
