#include <algorithm>
#include <cmath>
#include <limits>
#include <nibble/formats/decode.hpp>
#include <random>
#include <string>
#include <vector>

#include "catch.hpp"
#include "golden_blocks.hpp"
#include "naive_encoder.hpp"

namespace {

template <typename Function>
void for_each_block_format(Function&& f) {
  nibble::for_each_format([&]<typename F>(F) {
    if constexpr (nibble::block_format<F>) {
      static_assert(nibble::encodable_format<F>);
      INFO(F::name);
      f(F{});
    }
  });
}

struct row_kind {
  const char* name;
  float (*draw)(std::mt19937&);
};

float gaussian(std::mt19937& random) {
  return std::normal_distribution<float>()(random);
}

const std::vector<row_kind> kinds = {
    {"Gaussian", gaussian},
    {"heavy tails", [](std::mt19937& r) { return std::student_t_distribution<float>(3.0f)(r); }},
    {"uniform", [](std::mt19937& r) { return std::uniform_real_distribution<float>(-1, 1)(r); }},
    {"one sign", [](std::mt19937& r) { return 1.0f + std::fabs(gaussian(r)); }},
};

std::vector<float> draw(const row_kind& kind, int count, std::mt19937& random) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (auto& v : x) v = kind.draw(random);
  return x;
}

template <typename F>
std::vector<float> recoded(const float* x, const float* importance = nullptr) {
  typename F::block b;
  F::encode(x, importance, b);
  std::vector<float> out(F::block_size);
  nibble::decode_block<F>(b, out.data());
  return out;
}

// Sum of weighted squared differences.
template <typename T>
double distance(const std::vector<float>& x, const std::vector<T>& y,
                const std::vector<float>& weights = {}) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double rest = static_cast<double>(y[i]) - x[i];
    sum += (weights.empty() ? 1.0 : weights[i]) * rest * rest;
  }
  return sum;
}

}  // namespace

// The witness rounds to the nearest code with scales from the extremes, which keeps every value
// within half a step; its scales have all bits of a float, ours those of the file.
TEST_CASE("errors are below those of the obvious encoder, on the whole and block by block") {
  for_each_block_format([]<typename F>(F) {
    for (const auto& kind : kinds) {
      INFO(kind.name);
      std::mt19937 random(5);
      double ours = 0, naive = 0;
      for (int i = 0; i < 6400 / F::block_size + 25; ++i) {
        const auto x = draw(kind, F::block_size, random);
        const double here = distance(x, recoded<F>(x.data()));
        const double there = distance(x, test::naive_block<F>(x.data()));
        CHECK(here <= 1.1 * there);
        ours += here;
        naive += there;
      }
      // all of one sign and of like size: the mean magnitude is the best that ternary codes can do
      const bool no_better = F::name.substr(0, 2) == "tq" && std::string(kind.name) == "one sign";
      CHECK(ours < (no_better ? 1.001 : 0.97) * naive);
    }
  });
}

TEST_CASE("blocks of all magnitudes that 16-bit scales can serve are as good") {
  for_each_block_format([]<typename F>(F) {
    std::mt19937 random(6);
    const auto x = draw(kinds[0], F::block_size, random);
    const double expected =
        distance(x, recoded<F>(x.data())) / distance(x, std::vector<float>(x.size()));
    for (int power = -30; power <= 18; ++power) {
      INFO("2^" << power);
      auto scaled = x;
      for (auto& v : scaled) v = std::ldexp(v, power);
      const auto back = recoded<F>(scaled.data());
      const double error = distance(scaled, back) / distance(scaled, std::vector<float>(x.size()));
      for (const float v : back) REQUIRE(std::isfinite(v));
      // never worse than all zeros; and where the scale has its ten bits, as good as at 2^0
      CHECK(error <= 1.0);
      if (power >= -2 && power <= 12) CHECK(error <= 1.05 * expected + 1e-9);
    }
  });
}

TEST_CASE("importance moves the error to where it matters less") {
  for_each_block_format([]<typename F>(F) {
    std::mt19937 random(7);
    std::lognormal_distribution<float> spread(0.0f, 1.5f);
    double plain = 0, informed = 0, unweighted = 0, best = 0;
    for (int i = 0; i < 6400 / F::block_size; ++i) {
      const auto x = draw(kinds[0], F::block_size, random);
      std::vector<float> importance(x.size());
      for (auto& v : importance) v = spread(random);
      const auto without = recoded<F>(x.data()), with = recoded<F>(x.data(), importance.data());
      plain += distance(x, without, importance);
      informed += distance(x, with, importance);
      best += distance(x, without);
      unweighted += distance(x, with);
    }
    CHECK(informed < 0.99 * plain);
    CHECK(best < unweighted);
  });
}

TEST_CASE("importances count relative to each other, and odd ones do no harm") {
  for_each_block_format([]<typename F>(F) {
    std::mt19937 random(8);
    const auto x = draw(kinds[0], F::block_size, random);
    const auto plain = recoded<F>(x.data());
    std::vector<float> importance(x.size());
    for (const float alike : {1.0f, 4.0f, 0.0f, 0x1p-140f, 0x1p-100f, 0x1p100f}) {
      std::fill(importance.begin(), importance.end(), alike);
      // the weights that follow are all alike, but not to the last bit
      const auto back = recoded<F>(x.data(), importance.data());
      CHECK(distance(x, back) == Approx(distance(x, plain)).epsilon(0.1));
    }
    for (const float odd : {std::numeric_limits<float>::infinity(), -1.0f,
                            std::numeric_limits<float>::quiet_NaN(), 0x1p127f}) {
      importance[1] = odd;
      for (const float v : recoded<F>(x.data(), importance.data())) CHECK(std::isfinite(v));
    }
  });
}

// Formats with one scale a block always return. Those with scales of groups return if the groups
// leave no doubt: in a block of mostly zeros, or of groups that differ by a thousand, a group may
// have one or two values that are not 0, which fit many grids.
TEST_CASE("values that were in a format before come back as they are") {
  for_each_block_format([]<typename F>(F) {
    constexpr bool one_scale = F::block_size == F::group_size || F::name.substr(0, 2) == "tq";
    std::mt19937 random(9);
    int changed = 0, sparse_changed = 0;
    constexpr int count = 12800 / F::block_size;
    for (int i = 0; i < count; ++i) {
      auto x = draw(kinds[i % 3], F::block_size, random);
      const auto once = recoded<F>(x.data());
      changed += recoded<F>(once.data()) != once;
      for (auto& v : x) v = random() % 4 == 0 ? std::ldexp(v, static_cast<int>(random() % 8)) : 0;
      const auto sparse = recoded<F>(x.data());
      sparse_changed += recoded<F>(sparse.data()) != sparse;
    }
    INFO(changed << " and " << sparse_changed << " of " << count << " blocks changed");
    CHECK(changed <= (one_scale ? 0 : count / 25));
    CHECK(sparse_changed <= (one_scale ? 0 : count / 5));
  });
}

// Blocks that another implementation decodes to these values: their bits, not only their values.
TEST_CASE("what an independent implementation decoded is encoded to the same values") {
  const auto goldens = test::golden_blocks();
  for_each_block_format([&]<typename F>(F) {
    int blocks = 0;
    for (const auto& golden : goldens) {
      if (golden.format != F::name) continue;
      const auto& x = golden.values;
      // scales of 16 bits that are subnormal or infinite are not made
      const bool sane = std::all_of(x.begin(), x.end(), [](float v) {
        return std::isfinite(v) && std::fabs(v) < 6e4f && (v == 0 || std::fabs(v) > 1e-6f);
      });
      if (!sane) continue;
      // code 2, which the bits of a ternary format allow, is not made
      const auto [least, greatest] = std::minmax_element(x.begin(), x.end());
      if (F::name == "tq2_0" && *least * *greatest < 0 && *least != -*greatest) continue;
      const auto back = recoded<F>(x.data());
      const double total = distance(x, std::vector<float>(x.size()));
      // a block of random bits may hold codes and levels that no encoder makes
      CHECK(distance(x, back) <= 0.01 * total);
      ++blocks;
    }
    CHECK(blocks >= 1);
  });
}

TEST_CASE("zeros, constants and single values") {
  for_each_block_format([]<typename F>(F) {
    std::vector<float> x(F::block_size, 0.0f);
    for (const float v : recoded<F>(x.data())) CHECK(v == 0.0f);
    for (const float constant : {2.5f, -2.5f, 0.375f, 1e-4f, -3000.0f, 7e-8f}) {
      INFO(constant);
      std::fill(x.begin(), x.end(), constant);
      // half a unit in the last place of the scale; or half a step of 2^-24, times a code
      const float bound = std::fabs(constant) * 0x1p-10f + 127 * 0x1p-25f;
      const bool coarse = F::name == "mxfp4";  // its nearest values are a factor of 1.5 apart
      for (const float v : recoded<F>(x.data())) {
        CHECK(std::fabs(v - constant) <= (coarse ? 0.2f * std::fabs(constant) : bound));
      }
    }
    std::fill(x.begin(), x.end(), 0.0f);
    x[5] = -1.5f;
    const auto back = recoded<F>(x.data());
    // a table that has no 0 has a 1 instead, of 127
    const float bound = F::name.substr(0, 3) == "iq4" ? 1.5f / 120 : 1e-3f;
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::fabs(back[i] - x[i]) < bound);
  });
}

TEST_CASE("values that no scale can serve give a valid block") {
  using limits = std::numeric_limits<float>;
  for_each_block_format([]<typename F>(F) {
    std::mt19937 random(10);
    for (const float odd : {limits::max(), -limits::max(), limits::infinity(), -limits::infinity(),
                            limits::quiet_NaN(), limits::denorm_min(), 1e30f}) {
      INFO(odd);
      auto x = draw(kinds[0], F::block_size, random);
      x[3] = odd;
      const auto back = recoded<F>(x.data());
      for (const float v : back) REQUIRE(std::isfinite(v));
      if (std::fabs(odd) >= 1e30f) CHECK(std::signbit(back[3]) == std::signbit(odd));
      std::fill(x.begin(), x.end(), odd);
      for (const float v : recoded<F>(x.data())) REQUIRE(std::isfinite(v));
      // and as an importance
      auto sane = draw(kinds[0], F::block_size, random);
      for (const float v : recoded<F>(sane.data(), x.data())) REQUIRE(std::isfinite(v));
    }
  });
}

TEST_CASE("ternary weights are exact, with any share of zeros") {
  for_each_block_format([]<typename F>(F) {
    if (F::name.substr(0, 2) != "tq") return;
    std::mt19937 random(11);
    for (const unsigned share : {1u, 2u, 3u, 20u, 200u}) {  // one in so many is not 0
      for (const float magnitude : {1.0f, 0.0371f, 900.0f}) {
        std::vector<float> x(F::block_size);
        const float d = nibble::to_float(nibble::to_half(magnitude));
        for (auto& v : x) v = random() % share != 0 ? 0.0f : random() % 2 ? d : -d;
        CHECK(recoded<F>(x.data()) == x);
      }
    }
  });
}
