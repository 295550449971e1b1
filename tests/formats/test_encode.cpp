#include <algorithm>
#include <cmath>
#include <cstdlib>
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
        F::encode(x.data(), nullptr, b);
        float back[F::block_size];
        nibble::decode_block<F>(b, back);
        std::int8_t codes[F::group_size];
        F::codes(b, 0, codes);
        const double step = std::fabs(F::scale(b, 0).scale);
        int outermost = 0;
        for (const int code : codes) outermost = std::max(outermost, std::abs(code));
        // How many steps the greatest magnitude may be: its code, and what rounding the step to 16
        // bits (half a unit in the last place) adds over so many steps; half a step at most.
        const double unit = std::max(0x1p-24, step * 0x1p-10);
        const double reach =
            outermost + (step > 0 ? std::min(0.5, outermost * 0.5 * unit / step) : 0.0);
        for (int i = 0; i < F::block_size; ++i) {
          INFO("value " << i << ": " << x[i] << " became " << back[i] << ", step " << step);
          // Half a step; where the codes of one sign end before those of the other (Q4_0 has -8 but
          // not +8), the last one serves all that lies beyond it.
          const bool last = codes[i] == F::max_code && outermost > F::max_code;
          const double bound = (last ? reach - F::max_code : 0.5) * step;
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
      constexpr int outermost = std::min(-F::min_code, 127);
      float x[F::block_size];
      for (int i = 0; i < F::block_size; ++i) {
        x[i] = -0.125f * static_cast<float>(outermost - outermost / 8 * (i % 16));
      }
      typename F::block b;
      F::encode(x, nullptr, b);
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
        F::encode(x.data(), nullptr, b);
        float back[F::block_size];
        nibble::decode_block<F>(b, back);
        for (float v : back) CHECK(std::isfinite(v));
        if (std::isfinite(odd)) CHECK(std::signbit(back[3]) == std::signbit(odd));
      }
    }
  });
}
