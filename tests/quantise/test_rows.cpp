#include <cstring>
#include <limits>
#include <nibble/base/error.hpp>
#include <nibble/formats/decode.hpp>
#include <nibble/quantise/rows.hpp>
#include <random>
#include <string>
#include <vector>

#include "catch.hpp"

using nibble::errc;
using nibble::format_id;

namespace {

std::vector<float> normal_values(std::size_t count) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (auto& v : x) v = normal(random);
  return x;
}

// The sentence of the error that these arguments cause; empty if there is none.
std::string refusal(format_id to, std::size_t values, std::int64_t columns,
                    const std::vector<float>& importance, std::size_t bytes) {
  const auto x = normal_values(values);
  std::vector<std::byte> out(bytes);
  try {
    nibble::quantise_rows(to, x, columns, importance, out);
  } catch (const nibble::error& e) {
    CHECK(e.code() == errc::invalid_argument);
    return e.what();
  }
  return {};
}

}  // namespace

TEST_CASE("rows are the encoder's blocks one after another, at any alignment") {
  nibble::for_each_format([]<typename F>(F) {
    if constexpr (nibble::block_format<F> && !nibble::encodable_format<F>) return;
    INFO(F::name);
    constexpr std::int64_t columns = 2 * F::block_size;
    const auto x = normal_values(3 * columns);
    std::vector<float> importance(columns);
    for (std::size_t i = 0; i < importance.size(); ++i) {
      importance[i] = 1.0f + static_cast<float>(i % 5);
    }
    for (const bool weighted : {false, true}) {
      std::vector<std::byte> bytes(3 * nibble::row_bytes(nibble::id_of<F>, columns) + 1);
      const std::span out(bytes.data() + 1, bytes.size() - 1);
      nibble::quantise_rows(
          nibble::id_of<F>, x, columns,
          weighted ? std::span<const float>(importance) : std::span<const float>{}, out);
      const std::byte* at = out.data();
      for (std::size_t i = 0; i < x.size(); i += F::block_size) {
        typename F::block b;
        if constexpr (nibble::element_format<F>) {
          b = F::from(x[i]);
        } else if constexpr (nibble::encodable_format<F>) {
          F::encode(x.data() + i, weighted ? importance.data() + i % columns : nullptr, b);
        }
        REQUIRE(std::memcmp(at, &b, sizeof b) == 0);
        at += sizeof b;
      }
    }
  });
}

TEST_CASE("sizes that do not fit are refused, and the sentence says which") {
  const auto q8 = *nibble::find_format("q8_0");
  CHECK(refusal(q8, 64, 32, {}, 68).empty());
  CHECK(refusal(q8, 0, 32, {}, 0).empty());
  CHECK(refusal(q8, 64, 0, {}, 68) == "rows of 0 columns cannot be quantised.");
  CHECK(refusal(q8, 64, -32, {}, 68) == "rows of -32 columns cannot be quantised.");
  CHECK(refusal(q8, 66, 33, {}, 68) ==
        "a row of 33 values cannot be q8_0: its length must be a multiple of 32.");
  CHECK(refusal(q8, 65, 32, {}, 68) == "65 values are not whole rows of 32 columns.");
  CHECK(refusal(q8, 64, 32, {}, 67) ==
        "quantising 2 rows of 32 columns to q8_0 makes 68 bytes; there is room for 67.");
  CHECK(refusal(q8, 64, 32, std::vector<float>(31, 1.0f), 68) ==
        "there are 31 importances for 32 columns; one for each column is needed.");
  for (const float bad :
       {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> importance(32, 1.0f);
    importance[7] = bad;
    CHECK(refusal(q8, 64, 32, importance, 68).find("the importance of column 7 is ") == 0);
  }
}

TEST_CASE("a format that nibble does not make is refused by name") {
  const auto x = normal_values(256);
  std::vector<std::byte> out(66);
  try {
    nibble::quantise_rows(format_id{16}, x, 256, {}, out);
    FAIL("no error");
  } catch (const nibble::error& e) {
    CHECK(e.code() == errc::unsupported);
    CHECK(std::string(e.what()).find("iq2_xxs") != std::string::npos);
  }
}
