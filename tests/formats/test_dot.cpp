#include <cmath>
#include <cstring>
#include <limits>
#include <nibble/formats/decode.hpp>
#include <nibble/formats/dot.hpp>
#include <random>
#include <vector>

#include "catch.hpp"
#include "golden_blocks.hpp"

namespace {

std::vector<float> random_values(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (auto& v : x) v = normal(random);
  return x;
}

bool all_finite(const std::vector<float>& values) {
  for (float v : values) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("the reference dot product is that of the decoded values") {
  const auto goldens = test::golden_blocks();
  nibble::for_each_format([&]<typename F>(F) {
    INFO(F::name);
    std::vector<typename F::block> row;
    std::vector<float> weights;
    for (const auto& golden : goldens) {
      if (golden.format != F::name || !all_finite(golden.values)) continue;
      typename F::block b;
      std::memcpy(&b, golden.bytes.data(), sizeof b);
      row.push_back(b);
      weights.insert(weights.end(), golden.values.begin(), golden.values.end());
    }
    REQUIRE(row.size() >= 4);
    const std::uint64_t n = weights.size();
    const auto x = random_values(n, 3);
    std::vector<nibble::activation_block> activations(nibble::activation_blocks(n));
    nibble::quantise_activations(x.data(), n, activations.data());

    double expected = 0, magnitude = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
      const auto& a = activations[i / 32];
      const double term = static_cast<double>(weights[i]) * a.scale * a.codes[i % 32];
      expected += term;
      magnitude += std::fabs(term);
    }
    const double got = nibble::dot_row<F>(row.data(), activations.data(), n);
    // What decoding rounds: scale * code + offset once, to float, where there is an offset; nothing
    // otherwise. What the two sums in double round: n + 3 operations a term at the worst.
    double unit = 0x1p-53 * static_cast<double>(n + 3);
    if constexpr (nibble::block_format<F>) unit += F::has_offset ? 0x1p-24 : 0.0;
    CHECK(std::fabs(got - expected) <= unit * magnitude);
    CHECK(nibble::dot_row(nibble::id_of<F>, row.data(), activations.data(), n) == got);
  });
}

TEST_CASE("quantised activations are within half a step") {
  const auto x = random_values(100, 5);
  std::vector<nibble::activation_block> blocks(nibble::activation_blocks(100));
  REQUIRE(blocks.size() == 4);
  nibble::quantise_activations(x.data(), 100, blocks.data());
  for (std::size_t i = 0; i < 128; ++i) {
    const auto& b = blocks[i / 32];
    const float expected = i < 100 ? x[i] : 0.0f;
    // half a step, and the roundings of scale, inverse and product: 3 * 127 * 2^-24 of a step
    CHECK(std::fabs(b.scale * b.codes[i % 32] - expected) <= b.scale * (0.5f + 3e-5f));
    CHECK(std::abs(b.codes[i % 32]) <= 127);
  }
}

TEST_CASE("odd activations: zeros, tiny, huge and not finite") {
  const auto quantise = [](float value) {
    std::vector<float> x(32, 0.0f);
    x[7] = value;
    nibble::activation_block b;
    nibble::quantise_activations(x.data(), 32, &b);
    return b;
  };
  constexpr float max = std::numeric_limits<float>::max();
  for (float zero : {0.0f, -0.0f}) CHECK(quantise(zero).scale == 0.0f);
  for (float zero : {0.0f, -0.0f, 1e-45f, 0x1p-78f}) CHECK(quantise(zero).codes[7] == 0);
  CHECK(quantise(0x1p-76f).codes[7] == 1);
  for (float value : {0x1p-57f, 1e-15f, 3.0f, max}) {
    CHECK(quantise(value).codes[7] == 127);
    CHECK(quantise(-value).codes[7] == -127);
    CHECK(quantise(value).codes[6] == 0);
  }
  for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    CHECK(std::isnan(quantise(bad).scale));
  }
}

TEST_CASE("scales of a stretch are small multiples of one power of two") {
  for (const float factor : {1e-30f, 1.0f, 1e30f}) {
    auto x = random_values(3 * 512 + 96, 7);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] *= factor * std::ldexp(1.0f, -static_cast<int>(i / 32 * 5 % 23));
    }
    x[700] = std::numeric_limits<float>::infinity();
    std::vector<nibble::activation_block> blocks(nibble::activation_blocks(x.size()));
    nibble::quantise_activations(x.data(), x.size(), blocks.data());
    for (std::size_t first = 0; first < blocks.size(); first += 16) {
      const std::size_t end = std::min(first + 16, blocks.size());
      float greatest = 0;
      for (std::size_t b = first; b < end; ++b) greatest = std::fmax(greatest, blocks[b].scale);
      const float step = std::ldexp(1.0f, std::ilogb(greatest) - 12);
      for (std::size_t b = first; b < end; ++b) {
        if (b == 700 / 32) {
          CHECK(std::isnan(blocks[b].scale));
          continue;
        }
        const float steps = blocks[b].scale / step;
        CHECK(steps == std::floor(steps));
        CHECK(steps < 8192);
        // a step of 2^-12 of the greatest, and what is below disappears
        for (std::size_t i = 0; i < 32; ++i) {
          const float off = std::fabs(x[32 * b + i] - blocks[b].scale * blocks[b].codes[i]);
          CHECK(off <= 0.501f * blocks[b].scale);
        }
      }
    }
  }
}
