#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <nibble/formats/decode.hpp>
#include <random>
#include <vector>

#include "catch.hpp"
#include "golden_blocks.hpp"

using nibble::error;
using nibble::format_id;

namespace {

std::vector<unsigned char> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> byte(0, 255);
  std::vector<unsigned char> bytes(count);
  for (auto& b : bytes) b = static_cast<unsigned char>(byte(random));
  return bytes;
}

template <typename F>
typename F::block block_from(const unsigned char* bytes) {
  typename F::block b;
  std::memcpy(&b, bytes, sizeof b);
  return b;
}

}  // namespace

// Bit for bit: products of scale and code are exact (concepts.hpp), so the order of multiplications
// and fused multiply-adds change nothing, and the one addition is rounded the same everywhere.
TEST_CASE("every format decodes to the bits of an independent implementation") {
  const auto goldens = test::golden_blocks();
  nibble::for_each_format([&]<typename F>(F) {
    int blocks = 0;
    for (const auto& golden : goldens) {
      if (golden.format != F::name) continue;
      INFO(F::name << ", block " << blocks);
      ++blocks;
      REQUIRE(golden.bytes.size() == sizeof(typename F::block));
      REQUIRE(golden.values.size() == static_cast<std::size_t>(F::block_size));

      std::vector<float> typed(F::block_size), by_id(F::block_size);
      const auto b = block_from<F>(golden.bytes.data());
      nibble::decode_row<F>(&b, F::block_size, typed.data());
      nibble::decode_row(nibble::id_of<F>, golden.bytes.data(), F::block_size, by_id.data());
      for (std::size_t i = 0; i < typed.size(); ++i) {
        INFO("value " << i << ": " << typed[i] << ", expected " << golden.values[i]);
        REQUIRE(test::same_bits(typed[i], golden.values[i]));
        REQUIRE(test::same_bits(by_id[i], golden.values[i]));
      }
    }
    CHECK(blocks >= 8);
  });
}

TEST_CASE(
    "rows of several blocks decode from unaligned bytes, and nothing else is read or written") {
  nibble::for_each_format([]<typename F>(F) {
    INFO(F::name);
    constexpr std::uint64_t n = 3 * F::block_size;
    const auto bytes = random_bytes(nibble::row_bytes(nibble::id_of<F>, n), F::gguf_id);
    // Exactly as long as the row: AddressSanitizer sees one byte too many, UBSan a misaligned load.
    const auto odd = std::make_unique<unsigned char[]>(bytes.size() + 1);
    std::memcpy(odd.get() + 1, bytes.data(), bytes.size());
    std::vector<float> out(n);
    nibble::decode_row(nibble::id_of<F>, odd.get() + 1, n, out.data());
    for (std::uint64_t i = 0; i < n; i += F::block_size) {
      float expected[F::block_size];
      nibble::decode_block<F>(
          block_from<F>(bytes.data() + i / F::block_size * sizeof(typename F::block)), expected);
      for (int j = 0; j < F::block_size; ++j) {
        REQUIRE(test::same_bits(out[i + static_cast<std::uint64_t>(j)], expected[j]));
      }
    }
  });
}

TEST_CASE("codes stay in the stated range and reach its ends, whatever the bytes") {
  nibble::for_each_format([]<typename F>(F) {
    if constexpr (nibble::block_format<F>) {
      INFO(F::name);
      constexpr std::size_t count = 200;
      const auto bytes = random_bytes(count * sizeof(typename F::block), 7 + F::gguf_id);
      int least = 127, greatest = -128;
      for (std::size_t i = 0; i < count; ++i) {
        const auto b = block_from<F>(bytes.data() + i * sizeof(typename F::block));
        for (int group = 0; group < F::block_size / F::group_size; ++group) {
          const auto codes = std::make_unique<std::int8_t[]>(F::group_size);
          F::codes(b, group, codes.get());
          for (int j = 0; j < F::group_size; ++j) {
            least = std::min<int>(least, codes[j]);
            greatest = std::max<int>(greatest, codes[j]);
          }
          if constexpr (!F::has_offset) REQUIRE(F::scale(b, group).offset == 0.0f);
          if constexpr (nibble::table_format<F>) {
            const auto index = std::make_unique<std::uint8_t[]>(F::group_size);
            F::indices(b, group, index.get());
            for (int j = 0; j < F::group_size; ++j) REQUIRE(F::table.at(index[j]) == codes[j]);
          }
        }
      }
      CHECK(least == F::min_code);
      CHECK(greatest == F::max_code);
    }
  });
}

TEST_CASE("element formats convert both ways") {
  nibble::for_each_format([]<typename F>(F) {
    if constexpr (nibble::element_format<F>) {
      for (float x : {0.0f, -1.5f, 0.0078125f, 240.0f}) CHECK(F::value(F::from(x)) == x);
    }
  });
}

TEST_CASE("a format that is not there is an error that names it") {
  float out[256];
  const unsigned char bytes[512] = {};
  const auto message = [&](std::uint32_t id, std::uint64_t n) -> std::string {
    try {
      nibble::decode_row(format_id{id}, bytes, n, out);
    } catch (const error& e) {
      return e.what();
    }
    return "no error";
  };
  CHECK(message(16, 256).find("iq2_xxs (GGUF type 16)") != std::string::npos);
  CHECK(message(4321, 256).find("type 4321") != std::string::npos);
  CHECK(message(12, 255) ==
        "a row of 255 values cannot be q4_k: its length must be a multiple of 256.");
  CHECK(message(12, 256) == "no error");
}
