#include <cmath>
#include <limits>
#include <nibble/formats/decode.hpp>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

// Rows of every magnitude that a 16-bit scale can serve, from subnormal scales on.
std::vector<std::vector<float>> rows() {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> out{std::vector<float>(32, 0.0f), std::vector<float>(32, -2.5f),
                                      std::vector<float>(32, 7e-8f)};
  for (int power = -26; power <= 14; ++power) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::vector<float> x(32);
      for (auto& v : x) v = std::ldexp(normal(random), power);
      out.push_back(std::move(x));
    }
  }
  return out;
}

}  // namespace

TEST_CASE("encoding keeps every value within half a step") {
  nibble::for_each_format([]<typename F>(F) {
    if constexpr (nibble::encodable_format<F>) {
      INFO(F::name);
      for (const auto& x : rows()) {
        typename F::block b;
        F::encode(x.data(), b);
        float back[F::block_size];
        nibble::decode_block<F>(b, back);
        std::int8_t codes[F::group_size];
        F::codes(b, 0, codes);
        const double step = std::fabs(F::scale(b, 0).scale);
        for (int i = 0; i < F::block_size; ++i) {
          INFO("value " << i << ": " << x[i] << " became " << back[i] << ", step " << step);
          // Half a step; where the code range ends one code short of the range of values (Q4_0 has
          // -8 but not +8), one step. 2^-11: the scale itself is rounded to 11 bits, and the
          // outermost code, at most F::max_code + 1 steps out, carries that much.
          const bool at_end =
              codes[i] == F::max_code && F::max_code + F::min_code < 0 && F::name != "q8_0";
          const double bound = (at_end ? 1.0 + 8 * 0x1p-11 : 0.5) * step;
          REQUIRE(std::fabs(static_cast<double>(back[i]) - x[i]) <= bound * (1 + 1e-6));
        }
      }
    }
  });
}

TEST_CASE("values that codes and scale express exactly survive a round trip") {
  nibble::for_each_format([]<typename F>(F) {
    if constexpr (nibble::encodable_format<F>) {
      INFO(F::name);
      // the outermost code is present, so that the scale is found again
      float x[F::block_size];
      for (int i = 0; i < F::block_size; ++i) {
        x[i] = -0.125f * static_cast<float>(F::name == "q8_0" ? 127 - 8 * i : 8 - (i % 16));
      }
      typename F::block b;
      F::encode(x, b);
      float back[F::block_size];
      nibble::decode_block<F>(b, back);
      for (int i = 0; i < F::block_size; ++i) CHECK(back[i] == x[i]);
    }
  });
}

TEST_CASE("values that no scale can serve give a valid block") {
  nibble::for_each_format([]<typename F>(F) {
    if constexpr (nibble::encodable_format<F>) {
      for (float odd :
           {std::numeric_limits<float>::max(), -std::numeric_limits<float>::max(),
            std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> x(F::block_size, 1.0f);
        x[3] = odd;
        typename F::block b;
        F::encode(x.data(), b);
        float back[F::block_size];
        nibble::decode_block<F>(b, back);
        for (float v : back) CHECK(std::isfinite(v));
        if (std::isfinite(odd)) CHECK(std::signbit(back[3]) == std::signbit(odd));
      }
    }
  });
}
