// Comparing the kernels over single rows: quantising, norms, rotations, gates, sums, keys and
// values.
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

inline void compare_sums(differential& test, random_source& random) {
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
}

// Rows of every size that is stored by a type, and what is read of them.
inline void compare_storing(differential& test, const std::vector<float>& x,
                            std::int64_t row_length) {
  for (const nibble::kv_type_info& info : nibble::all_kv_types) {
    if (!fits(info.type, row_length)) continue;
    const stored_rows rows = store(info.type, x, row_length);
    const auto n_rows = static_cast<std::int64_t>(x.size()) / row_length;
    const auto type = static_cast<std::size_t>(info.type);
    const std::string number = "[" + std::to_string(type) + "]";
    std::vector<expectation> stored, loaded;
    for (const std::uint8_t byte : rows.codes) stored.push_back({double(byte), 0});
    for (const nibble::half scale : rows.scales) stored.push_back({double(scale.bits), 0});
    for (const float v : rows.values) loaded.push_back({v, 0});
    test.compare("store_row" + number, "", agreement::exact, stored,
                 [&](const nibble::cpu::kernel_table& table) {
                   std::vector<std::uint8_t> codes(rows.codes.size() + 1, 0xee);
                   std::vector<nibble::half> scales(rows.scales.size() + 1, nibble::half{0xeeee});
                   const std::size_t code_bytes = nibble::code_bytes(info.type, row_length);
                   const std::size_t n = nibble::scale_bytes(info.type, row_length) / 2;
                   for (std::size_t r = 0; r < static_cast<std::size_t>(n_rows); ++r) {
                     table.store_row[type](x.data() + static_cast<std::int64_t>(r) * row_length,
                                           row_length, codes.data() + r * code_bytes,
                                           scales.data() + r * n);
                   }
                   REQUIRE(codes.back() == 0xee);
                   REQUIRE(scales.back().bits == 0xeeee);
                   std::vector<float> out(codes.begin(), codes.end() - 1);
                   for (std::size_t i = 0; i + 1 < scales.size(); ++i) {
                     out.push_back(static_cast<float>(scales[i].bits));
                   }
                   return out;
                 });
    test.compare("load_row" + number, "", agreement::exact, loaded,
                 [&](const nibble::cpu::kernel_table& table) {
                   std::vector<float> out(x.size() + 1, -7.0f);
                   for (std::int64_t r = 0; r < n_rows; ++r) {
                     const nibble::cpu::kv_rows from = rows.from(r);
                     table.load_row[type](from.codes, from.scales, row_length,
                                          out.data() + r * row_length);
                   }
                   REQUIRE(out.back() == -7.0f);
                   out.pop_back();
                   return out;
                 });
  }
}

inline void compare_storing(differential& test, random_source& random) {
  const std::vector<float> sizes = values_of_all_sizes(random);
  for (const std::int64_t length : {1, 5, 8, 16, 24, 40, 64, 72, 80, 128, 256, 512, 1048}) {
    std::vector<float> x;
    for (const float size : {1.0f, 0.0f, 1e-3f, 1e-7f, 1e-30f, 3e4f, 1e9f, 1e37f}) {
      for (std::int64_t i = 0; i < 3 * length; ++i) x.push_back(size * random.normal());
    }
    for (std::int64_t i = 0; i < length; ++i) x.push_back(3);
    for (std::int64_t i = 0; i < length; ++i) x.push_back(i % 2 ? -2.0f : 2.0f);
    for (std::int64_t i = 0; i < length; ++i) x.push_back(sizes[static_cast<std::size_t>(i)]);
    for (const float odd : odd_values) {
      for (std::int64_t i = 0; i < length; ++i) x.push_back(i == length / 2 ? odd : 1.0f);
    }
    compare_storing(test, x, length);
  }
  // every binary16 number, and what lies in the middle of two; no row of codes, which would take
  // long
  std::vector<float> x = sizes;
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
  if (x.size() % 8 == 0) x.push_back(0);
  compare_storing(test, x, static_cast<std::int64_t>(x.size()));
}

inline void compare_transforms(differential& test, random_source& random) {
  for (const std::int64_t n : {1, 2, 3, 4, 12, 8, 16, 24, 40, 64, 72, 80, 96, 128, 192, 512}) {
    const std::int64_t block = n & -n;
    for (const float size : {1.0f, 0.0f, 1e-42f, 1e30f}) {
      const auto x = random.normals(static_cast<std::size_t>(n), size);
      std::vector<expectation> expected;
      for (std::int64_t i = 0; i < n; ++i) {
        double sum = 0, magnitude = 0;
        for (std::int64_t j = 0; j < block; ++j) {
          const double v = x[static_cast<std::size_t>(i / block * block + j)];
          sum += __builtin_popcountll(static_cast<unsigned long long>(i & j & (block - 1))) % 2 ? -v
                                                                                                : v;
          magnitude += std::fabs(v);
        }
        const double factor = 1 / std::sqrt(static_cast<double>(block));
        // an addition for each power of two, the factor and the product
        const double roundings = std::log2(static_cast<double>(block)) + 3;
        expected.push_back(
            {sum * factor,
             block == 1 ? 0.0 : unit_roundoff * roundings * magnitude * factor + 1e-44});
      }
      const auto transformed = [&](const nibble::cpu::kernel_table& table) {
        std::vector<float> out = x;
        out.push_back(-7.0f);
        table.hadamard(out.data(), n);
        REQUIRE(out.back() == -7.0f);
        out.pop_back();
        return out;
      };
      test.compare("hadamard", "", agreement::exact, expected, transformed);
      // twice: nothing
      for (std::size_t i = 0; i < x.size(); ++i) {
        double magnitude = 0;
        for (const float v : x) magnitude += std::fabs(v);
        expected[i] = {x[i], unit_roundoff * 30 * magnitude + 1e-43};
      }
      test.compare("hadamard", "", agreement::exact, expected,
                   [&](const nibble::cpu::kernel_table& table) {
                     std::vector<float> out = transformed(table);
                     table.hadamard(out.data(), n);
                     return out;
                   });
    }
  }
}

}  // namespace test
