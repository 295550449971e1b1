#include "references.hpp"

using nibble::cpu::kernel_table;

TEST_CASE("gates agree with their definition, from -10000 to 10000") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(2);
    std::vector<float> g = random.normals(2000, 4), u = random.normals(2000, 4);
    for (int i = -300; i <= 300; ++i) {
      g.push_back(static_cast<float>(i) * 0.37f);
      u.push_back(1.5f);
    }
    for (const float x : {0.0f, -0.0f, 1e4f, -1e4f, 1e-30f, -1e-30f, 88.0f, -88.0f, -100.0f}) {
      g.push_back(x);
      u.push_back(-2.0f);
    }
    for (int kind = 0; kind < 4; ++kind) {
      std::vector<float> out(g.size());
      table.gate[kind](g.data(), u.data(), static_cast<std::int64_t>(g.size()), out.data());
      double worst = 0;
      for (std::size_t i = 0; i < g.size(); ++i) {
        const auto expected = test::gate_by_definition(kind, g[i], u[i]);
        INFO("gate " << kind << " of " << g[i] << ", " << u[i] << ": " << out[i] << ", not "
                     << expected.value);
        REQUIRE(std::fabs(out[i] - expected.value) <= expected.tolerance);
        if (std::fabs(g[i]) < 2 && std::fabs(expected.value) > 1e-30) {
          worst =
              std::max(worst, std::fabs(out[i] / expected.value - 1) / (2 * test::unit_roundoff));
        }
      }
      std::cout << table.isa << " gate " << kind << ": " << worst << " ulp for |g| < 2\n";
      CHECK(worst < (kind == 1 ? 0x1.01p12 : 6));  // 11 bits against 24
      // a NaN in either input is a NaN in the output
      const float nan = std::nanf("");
      for (std::size_t at : {std::size_t{3}, g.size() - 1}) {
        auto broken = g;
        broken[at] = nan;
        table.gate[kind](broken.data(), u.data(), static_cast<std::int64_t>(g.size()), out.data());
        CHECK(std::isnan(out[at]));
        CHECK_FALSE(std::isnan(out[at - 1]));
        broken = u;
        broken[at] = nan;
        table.gate[kind](g.data(), broken.data(), static_cast<std::int64_t>(g.size()), out.data());
        CHECK(std::isnan(out[at]));
      }
    }
  });
}

TEST_CASE("rms_norm agrees with double, also in place and for huge values") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(4);
    for (const std::int64_t n : {1, 7, 8, 64, 100, 576, 4096, 14337}) {
      for (const float size : {1.0f, 1e-20f, 1e30f}) {
        auto x = random.normals(static_cast<std::size_t>(n), size);
        const auto gain = random.normals(static_cast<std::size_t>(n));
        double sum = 0;
        for (const float v : x) sum += static_cast<double>(v) * v;
        const float epsilon = 1e-6f;
        const double scale = 1 / std::sqrt(sum / static_cast<double>(n) + double{epsilon});
        std::vector<float> expected_at(x.size());
        std::vector<float> out(x.size());
        table.rms_norm(x.data(), gain.data(), epsilon, n, out.data());
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double expected = x[i] * scale * gain[i];
          REQUIRE(std::fabs(out[i] - expected) <=
                  4 * test::unit_roundoff * std::fabs(expected) + 1e-37);
        }
        table.rms_norm(x.data(), gain.data(), epsilon, n, x.data());
        REQUIRE(x == out);
      }
    }
  });
}

TEST_CASE("rotation agrees with its definition and leaves the rest alone") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(6);
    for (const std::int64_t pairs : {1, 3, 16, 32, 40, 64, 128}) {
      const auto n = static_cast<std::size_t>(2 * pairs);
      const auto x = random.normals(n + 5);
      std::vector<float> cosine, sine;
      for (std::int64_t i = 0; i < pairs; ++i) {
        const float angle = random.normal(100);
        cosine.push_back(std::cos(angle));
        sine.push_back(std::sin(angle));
      }
      for (const bool neox : {false, true}) {
        auto got = x;
        (neox ? table.rope_neox : table.rope_norm)(got.data(), cosine.data(), sine.data(), pairs);
        for (std::size_t i = 0; i < n / 2; ++i) {
          const std::size_t first = neox ? i : 2 * i, second = neox ? i + n / 2 : 2 * i + 1;
          const double a = x[first], b = x[second], c = cosine[i], s = sine[i];
          const double bound = 3 * test::unit_roundoff * (std::fabs(a) + std::fabs(b));
          REQUIRE(std::fabs(got[first] - (a * c - b * s)) <= bound);
          REQUIRE(std::fabs(got[second] - (a * s + b * c)) <= bound);
        }
        for (std::size_t i = n; i < x.size(); ++i) REQUIRE(got[i] == x[i]);
      }
    }
  });
}

TEST_CASE("add_scaled and halves agree with their definition for every length") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(8);
    const auto to_f16 = table.store_row[static_cast<int>(nibble::kv_type::f16)];
    for (std::int64_t n = 0; n < 70; ++n) {
      const auto x = random.normals(static_cast<std::size_t>(n) + 1);
      auto out = random.normals(x.size());
      const auto before = out;
      table.add_scaled(x.data(), 0.3f, n, out.data());
      std::vector<nibble::half> halves(x.size(), nibble::half{0x1234});
      to_f16(x.data(), n, halves.data(), nullptr);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (i == static_cast<std::size_t>(n)) {
          REQUIRE(out[i] == before[i]);
          REQUIRE(halves[i].bits == 0x1234);
          continue;
        }
        const double product = static_cast<double>(0.3f) * x[i];
        const double bound =
            test::unit_roundoff * (std::fabs(product) + std::fabs(product + before[i]));
        REQUIRE(std::fabs(out[i] - (product + before[i])) <= bound * 1.01);
        REQUIRE(halves[i].bits == nibble::to_half(x[i]).bits);
      }
    }
    const float odd[] = {65504.0f, 65519.0f, 65520.0f, 1e9f, -1e9f, 6e-8f, 2e-8f, HUGE_VALF};
    nibble::half got[8];
    to_f16(odd, 8, got, nullptr);
    for (int i = 0; i < 8; ++i) CHECK(got[i].bits == nibble::to_half(odd[i]).bits);
    const float nan[8] = {std::nanf(""), 1, 1, 1, 1, 1, 1, 1};
    to_f16(nan, 8, got, nullptr);
    CHECK(std::isnan(nibble::to_float(got[0])));
  });
}
