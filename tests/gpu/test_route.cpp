// The router's choice of experts, and the order of pairs by expert.
#include <algorithm>
#include <cmath>
#include <limits>
#include <nibble/device/steps.hpp>
#include <numeric>

#include "../kernels/kernel_test.hpp"
#include "gpu_test.hpp"

namespace gpu = nibble::gpu;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

struct routing {
  std::int32_t n_expert, n_used;
  nibble::route_kind kind = nibble::route_kind::softmax_then_top;
  bool normalise = false;
  float scale = 1;
};

struct routed {
  std::vector<std::int32_t> selection;
  std::vector<float> weights;
};

routed run_route(test::gpu_device& device, const routing& how, const std::vector<float>& logits) {
  const std::size_t rows = logits.size() / static_cast<std::size_t>(how.n_expert);
  const std::size_t n = rows * static_cast<std::size_t>(how.n_used);
  const test::device_array<float> in(device, logits);
  const test::device_array<std::int32_t> selection(device, n);
  const test::device_array<float> weights(device, n);
  test::run(device, &gpu::kernel_table::route,
            {in.data(), static_cast<std::int64_t>(rows), how.n_expert, how.n_used,
             static_cast<std::int32_t>(how.kind), how.normalise, how.scale, selection.data(),
             weights.data()});
  return {selection.read(), weights.read()};
}

// The choice and the weights of one row, by definition.
struct definition {
  std::vector<std::int32_t> chosen;
  std::vector<double> weights;
};
definition define(const routing& how, const float* logits) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(how.n_expert));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
  const double greatest = logits[order[0]];
  const auto sum_of_first = [&](std::int32_t n) {
    double sum = 0;
    for (std::int32_t i = 0; i < n; ++i) {
      sum += std::exp(logits[order[static_cast<std::size_t>(i)]] - greatest);
    }
    return sum;
  };
  const bool of_all = how.kind == nibble::route_kind::softmax_then_top && !how.normalise;
  const double total = sum_of_first(of_all ? how.n_expert : how.n_used);
  order.resize(static_cast<std::size_t>(how.n_used));
  definition d{order, {}};
  for (const std::int32_t i : order) {
    d.weights.push_back(how.scale * std::exp(logits[i] - greatest) / total);
  }
  return d;
}

void check_route(test::gpu_device& device, const routing& how, const std::vector<float>& logits) {
  INFO(how.n_used << " of " << how.n_expert << ", kind " << static_cast<int>(how.kind)
                  << (how.normalise ? ", normalised" : ""));
  const routed got = run_route(device, how, logits);
  for (std::size_t row = 0; row * static_cast<std::size_t>(how.n_expert) < logits.size(); ++row) {
    const float* const of_row = logits.data() + row * static_cast<std::size_t>(how.n_expert);
    const definition expected = define(how, of_row);
    const float greatest = of_row[expected.chosen[0]];
    for (std::size_t i = 0; i < expected.chosen.size(); ++i) {
      const std::size_t at = row * expected.chosen.size() + i;
      INFO("row " << row << ", slot " << i);
      REQUIRE(got.selection[at] == expected.chosen[i]);
      // The argument of an exponential is rounded, and so is its product with log2(e) in a fast
      // exponential: its error grows with the argument, and that of a sum with its terms. Very
      // small exponentials may be flushed to 0.
      const double argument = std::min(200.0f, greatest - of_row[expected.chosen[i]]);
      const double tolerance =
          test::unit_roundoff * (8 + 4 * argument + how.n_expert) * expected.weights[i] + 1e-36;
      REQUIRE(std::fabs(got.weights[at] - expected.weights[i]) <= tolerance);
    }
  }
}

}  // namespace

TEST_CASE("the router takes the greatest logits, with their softmax as weights") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(5);
    for (const auto& [n_expert, n_used] :
         {std::pair{1, 1}, {4, 4}, {8, 2}, {60, 4}, {128, 8}, {300, 40}, {512, 10}}) {
      const auto logits = random.normals(static_cast<std::size_t>(7 * n_expert), 4);
      for (const auto kind :
           {nibble::route_kind::softmax_then_top, nibble::route_kind::top_then_softmax}) {
        for (const bool normalise : {false, true}) {
          check_route(device, {n_expert, n_used, kind, normalise, normalise ? 2.5f : 1.0f}, logits);
        }
      }
    }
  }
}

TEST_CASE("the router takes the lower index at a tie") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(6);
    std::vector<float> logits(70 * 9);
    for (float& x : logits) x = static_cast<float>(random.in(-2, 2)) / 2;
    for (std::size_t i = 0; i < 70; ++i) logits[i] = i % 2 == 0 ? 0.0f : -0.0f;
    check_route(device, {70, 12}, logits);
    // far apart, where exponentials are 0, and with logits that have no exponential
    for (float& x : logits) x *= 1000;
    for (std::size_t i = 0; i < logits.size(); i += 3) logits[i] = -infinity;
    check_route(device, {70, 12}, logits);
  }
}

TEST_CASE("the router's choice is valid whatever the logits are, and a NaN shows") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(7);
    for (const auto kind :
         {nibble::route_kind::softmax_then_top, nibble::route_kind::top_then_softmax}) {
      constexpr std::int32_t n_expert = 40, n_used = 6, rows = 8;
      auto logits = random.normals(rows * n_expert);
      for (std::size_t i = 0; i < n_expert; ++i) {
        logits[i] = no_number;                               // row 0: all of them
        logits[n_expert + i] = -infinity;                    // row 1
        logits[2 * n_expert + i] = i % 2 ? infinity : 1.0f;  // row 2
      }
      for (std::size_t row = 3; row < rows; ++row)
        logits[row * n_expert + 7 * (row - 3)] = -no_number;
      const routed got = run_route(device, {n_expert, n_used, kind}, logits);
      for (std::size_t row = 0; row < rows; ++row) {
        std::vector<bool> taken(n_expert);
        for (std::size_t i = 0; i < n_used; ++i) {
          const std::int32_t chosen = got.selection[row * n_used + i];
          REQUIRE(chosen >= 0);
          REQUIRE(chosen < n_expert);
          REQUIRE(!taken[static_cast<std::size_t>(chosen)]);
          taken[static_cast<std::size_t>(chosen)] = true;
          INFO("row " << row << ", slot " << i);
          if (row != 2 || i == 0) REQUIRE(std::isnan(got.weights[row * n_used + i]));
        }
      }
    }
  }
}

TEST_CASE("pairs are put in order of their experts, and else stay in order") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(8);
    for (const auto& [pairs, n_expert] : {std::pair{0, 3},
                                          {1, 1},
                                          {1, 8},
                                          {64, 8},
                                          {255, 2},
                                          {256, 60},
                                          {257, 128},
                                          {900, 5},
                                          {1500, 512}}) {
      INFO(pairs << " pairs, " << n_expert << " experts");
      std::vector<std::int32_t> selection(static_cast<std::size_t>(pairs));
      // the upper experts are used less, some not at all
      for (auto& e : selection)
        e = std::min(random.in(0, n_expert - 1), random.in(0, n_expert - 1));
      const test::device_array<std::int32_t> in(device, selection);
      const test::device_array<std::int32_t> order(device, selection.size());
      const test::device_array<std::int32_t> start(device, static_cast<std::size_t>(n_expert) + 1);
      test::run(device, &gpu::kernel_table::group_pairs,
                {in.data(), pairs, n_expert, order.data(), start.data()});

      std::vector<std::int32_t> expected(selection.size());
      std::iota(expected.begin(), expected.end(), 0);
      const auto expert_of = [&](std::int32_t pair) {
        return selection[static_cast<std::size_t>(pair)];
      };
      std::stable_sort(expected.begin(), expected.end(),
                       [&](auto a, auto b) { return expert_of(a) < expert_of(b); });
      REQUIRE(order.read() == expected);
      const auto starts = start.read();
      for (std::int32_t e = 0; e <= n_expert; ++e) {
        REQUIRE(starts[static_cast<std::size_t>(e)] ==
                std::count_if(selection.begin(), selection.end(), [&](auto x) { return x < e; }));
      }
    }
  }
}
