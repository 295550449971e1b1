// Comparing the kernels over single rows: quantising, norms, rotations, gates, sums, halves.
#pragma once

#include <cmath>
#include <nibble/formats/dot.hpp>
#include <vector>

#include "differential.hpp"

namespace test {

// Values of all sizes, none of them odd.
inline std::vector<float> values_of_all_sizes(random_source& random) {
  std::vector<float> x = random.normals(500, 3);
  for (int exponent = -149; exponent < 127; exponent += 3) {
    const float power = std::ldexp(1.0f, exponent);
    for (const float v : {power, -power, power * random.normal()}) x.push_back(v);
  }
  for (const float v : {0.0f, -0.0f, FLT_MAX, -FLT_MAX, FLT_MIN, -FLT_MIN}) x.push_back(v);
  for (int i = -240; i <= 240; ++i) x.push_back(static_cast<float>(i) * 0.5f);  // also ties
  return x;
}

inline const float odd_values[] = {HUGE_VALF, -HUGE_VALF, std::nanf(""), -std::nanf("")};

inline void compare_quantising(differential& test, random_source& random) {
  std::vector<float> x;
  for (const float size : {0.0f, 1.0f, 1e-36f, 0x1p-119f, 0x1p-120f, 1e-44f, 3e38f, 1e10f}) {
    for (int i = 0; i < 32; ++i) x.push_back(size * random.normal(0.25f));
  }
  for (int i = 0; i < 32; ++i) x.push_back(static_cast<float>(i) + 0.5f);  // ties, with 127 next
  x.back() = 127.0f;
  for (const float odd : odd_values) {
    for (int i = 0; i < 32; ++i) x.push_back(i == 21 ? odd : 1.0f);
  }
  const auto more = values_of_all_sizes(random);
  x.insert(x.end(), more.begin(), more.end());
  while (x.size() % 32 != 0) x.push_back(0);
  for (int i = 0; i < 32 * 2000; ++i) x.push_back(random.normal());

  // codes, then scales, then sums
  const std::size_t n = x.size();
  std::vector<nibble::activation_block> blocks(n / 32);
  nibble::quantise_activations(x.data(), n, blocks.data());
  std::vector<expectation> expected;
  for (const auto& b : blocks) {
    for (const std::int8_t q : b.codes) expected.push_back({double(q), 0});
  }
  for (const auto& b : blocks) expected.push_back({b.scale, 0});
  for (std::size_t i = 0; i < n; i += 16) {
    double sum = 0;
    for (std::size_t j = i; j < i + 16; ++j) sum += expected[j].value;
    expected.push_back({sum, 0});
  }
  test.compare("quantise_q8", "", agreement::exact, expected,
               [&](const nibble::cpu::kernel_table& table) {
                 std::vector<std::int8_t> q(n);
                 std::vector<float> scale(n / 32);
                 std::vector<std::int16_t> sum(n / 16);
                 table.quantise_q8(x.data(), static_cast<std::int64_t>(n), q.data(), scale.data(),
                                   sum.data());
                 std::vector<float> out(q.begin(), q.end());
                 out.insert(out.end(), scale.begin(), scale.end());
                 out.insert(out.end(), sum.begin(), sum.end());
                 return out;
               });
}

inline void compare_norms(differential& test, random_source& random) {
  const auto check = [&](const std::vector<float>& x, const std::vector<float>& gain) {
    double sum = 0;
    for (const float v : x) sum += static_cast<double>(v) * v;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(x.size()) + double{1e-6f});
    std::vector<expectation> expected;
    for (std::size_t i = 0; i < x.size() && std::isfinite(scale); ++i) {
      const double value = x[i] * scale * gain[i];
      expected.push_back({value, 4 * test::unit_roundoff * std::fabs(value) + 1e-37});
    }
    test.compare("rms_norm", "", agreement::exact, expected,
                 [&](const nibble::cpu::kernel_table& table) {
                   std::vector<float> out(x.size());
                   table.rms_norm(x.data(), gain.data(), 1e-6f, static_cast<std::int64_t>(x.size()),
                                  out.data());
                   return out;
                 });
  };
  for (const std::size_t n : {1, 7, 8, 33, 100, 576, 4099}) {
    const auto gain = random.normals(n);
    for (const float size : {1.0f, 1e-20f, 1e-42f, 0.0f, 1e30f}) {
      auto x = random.normals(n, size);
      check(x, gain);
      if (size != 1.0f) continue;
      for (const float odd : odd_values) {
        x[n / 2] = odd;
        check(x, gain);
      }
    }
  }
}

inline void compare_rotations(differential& test, random_source& random) {
  for (const bool neox : {false, true}) {
    for (const std::int64_t pairs : {1, 3, 16, 40, 64, 129}) {
      for (const float size : {1.0f, 1e-42f, 1e30f, HUGE_VALF}) {
        const auto n = static_cast<std::size_t>(2 * pairs);
        auto x = random.normals(n + 5, std::isinf(size) ? 1.0f : size);
        if (std::isinf(size)) x[n / 3] = size;
        std::vector<float> cosine, sine;
        for (std::int64_t i = 0; i < pairs; ++i) {
          const float angle = random.normal(100);
          cosine.push_back(std::cos(angle));
          sine.push_back(std::sin(angle));
        }
        std::vector<expectation> expected(x.size());
        for (std::size_t i = 0; i < x.size(); ++i) expected[i] = {x[i], 0};
        for (std::size_t i = 0; i < n / 2; ++i) {
          const std::size_t first = neox ? i : 2 * i, second = neox ? i + n / 2 : 2 * i + 1;
          const double a = x[first], b = x[second], c = cosine[i], s = sine[i];
          const double bound = 3 * test::unit_roundoff * (std::fabs(a) + std::fabs(b)) + 1e-44;
          expected[first] = {a * c - b * s, bound};
          expected[second] = {a * s + b * c, bound};
        }
        test.compare(neox ? "rope_neox" : "rope_norm", "", agreement::exact, expected,
                     [&](const nibble::cpu::kernel_table& table) {
                       auto out = x;
                       (neox ? table.rope_neox : table.rope_norm)(out.data(), cosine.data(),
                                                                  sine.data(), pairs);
                       return out;
                     });
      }
    }
  }
}

inline void compare_gates(differential& test, random_source& random) {
  const std::vector<float> g = values_of_all_sizes(random);
  std::vector<float> u = random.normals(g.size(), 4);
  for (std::size_t i = 0; i < u.size(); i += 7) u[i] = i % 2 ? 1e-42f : 0.0f;
  std::vector<float> odd_g, odd_u;
  for (const float a : {1.0f, 0.0f, HUGE_VALF, -HUGE_VALF, std::nanf("")}) {
    for (const float b : {1.0f, 0.0f, HUGE_VALF, -HUGE_VALF, std::nanf("")}) {
      odd_g.push_back(a);
      odd_u.push_back(b);
    }
  }
  for (int kind = 0; kind < 4; ++kind) {
    const std::string name = "gate[" + std::to_string(kind) + "]";
    // relu_squared has neither exp nor mul_add
    const auto how = kind == 2 ? agreement::exact : agreement::bounded;
    const auto check = [&](const std::vector<float>& gate, const std::vector<float>& up,
                           const std::vector<expectation>& expected) {
      test.compare(name, "", how, expected, [&](const nibble::cpu::kernel_table& table) {
        std::vector<float> out(gate.size());
        table.gate[kind](gate.data(), up.data(), static_cast<std::int64_t>(gate.size()),
                         out.data());
        return out;
      });
    };
    std::vector<expectation> expected;
    for (std::size_t i = 0; i < g.size(); ++i) {
      expected.push_back(test::gate_by_definition(kind, g[i], u[i]));
    }
    check(g, u, expected);
    check(odd_g, odd_u, {});
  }
}

inline void compare_sums_and_halves(differential& test, random_source& random) {
  std::vector<float> x = values_of_all_sizes(random);
  const auto base = random.normals(x.size(), 10);
  for (const float scale : {0.3f, 0.0f, -1.0f, 1e-40f}) {
    std::vector<expectation> expected;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double product = static_cast<double>(scale) * x[i], sum = product + base[i];
      const double size = std::fabs(product) + std::fabs(sum);
      expected.push_back({sum, 1.01 * test::unit_roundoff * size + 1e-44});
    }
    test.compare("add_scaled", "", agreement::by_fusing, expected,
                 [&](const nibble::cpu::kernel_table& table) {
                   auto out = base;
                   table.add_scaled(x.data(), scale, static_cast<std::int64_t>(x.size()),
                                    out.data());
                   return out;
                 });
  }
  // every binary16 number, and what lies in the middle of two
  for (unsigned bits = 0; bits < 0x7c00; ++bits) {
    const auto at = [](unsigned b) {
      return nibble::to_float(nibble::half{static_cast<std::uint16_t>(b)});
    };
    const float low = at(bits), high = bits == 0x7bff ? 65536.0f : at(bits + 1);
    x.push_back(low);
    x.push_back(-(low + high) / 2);
    x.push_back(std::nextafter((low + high) / 2, HUGE_VALF));
  }
  x.insert(x.end(), std::begin(odd_values), std::end(odd_values));
  std::vector<expectation> expected;
  for (const float v : x) expected.push_back({nibble::to_float(nibble::to_half(v)), 0});
  test.compare("to_f16", "", agreement::exact, expected,
               [&](const nibble::cpu::kernel_table& table) {
                 std::vector<nibble::half> halves(x.size());
                 table.to_f16(x.data(), static_cast<std::int64_t>(x.size()), halves.data());
                 std::vector<float> out;
                 for (const nibble::half h : halves) out.push_back(nibble::to_float(h));
                 return out;
               });
}

}  // namespace test
