#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nibble/base/bytes.hpp>
#include <nibble/base/checked.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/half.hpp>

#include "catch.hpp"

using namespace nibble::literals;

namespace {

// Written from the definition of binary16, with ldexp: shares nothing with the fast conversion.
float half_by_definition(std::uint16_t bits) {
  const int sign = bits >> 15, exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  double value = 0;
  if (exponent == 31) {
    value = mantissa ? std::numeric_limits<double>::quiet_NaN()
                     : std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, -24);
  } else {
    value = std::ldexp(1024 + mantissa, exponent - 25);
  }
  return static_cast<float>(sign ? -value : value);
}

}  // namespace

TEST_CASE("every binary16 value converts exactly and back") {
  for (int bits = 0; bits < 65536; ++bits) {
    const nibble::half h{static_cast<std::uint16_t>(bits)};
    const float expected = half_by_definition(h.bits);
    const float got = nibble::to_float(h);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(got));
      REQUIRE(std::isnan(nibble::to_float(nibble::to_half(got))));
    } else {
      REQUIRE(std::bit_cast<std::uint32_t>(got) == std::bit_cast<std::uint32_t>(expected));
      REQUIRE(nibble::to_half(got).bits == h.bits);
    }
  }
}

TEST_CASE("float to binary16 rounds to the nearest, ties to even") {
  for (int bits = 0; bits < 0x7bff; ++bits) {
    const float low = half_by_definition(static_cast<std::uint16_t>(bits));
    const float high = half_by_definition(static_cast<std::uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;
    const int even = bits + (bits & 1);
    REQUIRE(nibble::to_half(middle).bits == even);
    REQUIRE(nibble::to_half(std::nextafter(middle, low)).bits == bits);
    REQUIRE(nibble::to_half(std::nextafter(middle, high)).bits == bits + 1);
  }
  CHECK(nibble::to_half(65519.99f).bits == 0x7bff);
  CHECK(nibble::to_half(65520.0f).bits == 0x7c00);
  CHECK(nibble::to_half(-1e30f).bits == 0xfc00);
}

TEST_CASE("bfloat16 keeps the upper half, rounded to even") {
  CHECK(nibble::to_bfloat16(1.0f).bits == 0x3f80);
  CHECK(nibble::to_bfloat16(std::bit_cast<float>(0x3f808000u)).bits == 0x3f80);
  CHECK(nibble::to_bfloat16(std::bit_cast<float>(0x3f818000u)).bits == 0x3f82);
  CHECK(std::isnan(nibble::to_float(nibble::to_bfloat16(std::nanf("")))));
}

TEST_CASE("sizes from files never wrap") {
  constexpr auto max = std::numeric_limits<std::uint64_t>::max();
  CHECK(nibble::checked_add(max, 0) == max);
  CHECK_FALSE(nibble::checked_add(max, 1));
  CHECK_FALSE(nibble::checked_mul(1_GiB << 20, 1_GiB << 10));
  CHECK(nibble::checked_mul(0, max) == 0);
  CHECK(nibble::checked_align(33, 32) == 64);
  CHECK_FALSE(nibble::checked_align(max, 32));
}

TEST_CASE("an error is a sentence that names the place") {
  const nibble::error e(nibble::errc::bad_file, "the shape has a zero.",
                        {.file = "a.gguf", .offset = 77, .tensor = "output.weight"});
  CHECK(std::string(e.what()) ==
        "a.gguf: tensor 'output.weight': the shape has a zero. (at byte 77)");
  CHECK(nibble::to_text(6_GiB) == "6.0 GiB");
  CHECK(nibble::to_text(512) == "512 B");
}
