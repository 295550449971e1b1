#include <bit>
#include <nibble/formats/dot.hpp>

#include "kernel_test.hpp"

using nibble::cpu::kernel_table;

namespace {

// int8 activations of some tokens.
struct tokens_q8 {
  std::int64_t columns;
  std::vector<std::int8_t> q;
  std::vector<float> scale;
  std::vector<std::int16_t> sum;

  nibble::cpu::q8_matrix from(std::int64_t token) const {
    const std::int64_t at = token * columns;
    return {q.data() + at, scale.data() + at / 32, sum.data() + at / 16, columns};
  }
};

template <typename Code>
tokens_q8 make_tokens(std::int64_t tokens, std::int64_t columns, Code code, float scale) {
  tokens_q8 x{columns, {}, {}, {}};
  for (std::int64_t i = 0; i < tokens * columns; ++i) {
    x.q.push_back(static_cast<std::int8_t>(code(i)));
    if (i % 32 == 0) x.scale.push_back(scale * static_cast<float>(1 + i / 32 % 7));
    if (i % 16 == 0) x.sum.push_back(0);
    x.sum.back() = static_cast<std::int16_t>(x.sum.back() + x.q.back());
  }
  return x;
}

struct expectation {
  double value;
  double tolerance;
};

// The dot product by definition, in double, with a bound of the rounding errors of a kernel: each
// float operation is off by half a unit in the last place of something no greater than the sum of
// all magnitudes. A term meets two roundings of its own (scales multiplied, term added), then at
// most as many additions as there are units and groups of offsets in a lane, and those of lanes
// and stretches.
template <typename F>
expectation expect(const typename F::block* row, const tokens_q8& x, std::int64_t token) {
  double value = 0, magnitude = 0;
  for (std::int64_t at = 0; at < x.columns; at += F::group_size) {
    const auto& b = row[at / F::block_size];
    const int group = static_cast<int>(at % F::block_size) / F::group_size;
    std::int8_t codes[F::group_size];
    F::codes(b, group, codes);
    const nibble::affine map = F::scale(b, group);
    const double scale = x.scale[static_cast<std::size_t>((token * x.columns + at) / 32)];
    double sum = 0;
    for (int i = 0; i < F::group_size; ++i) {
      const double q = x.q[static_cast<std::size_t>(token * x.columns + at + i)];
      value += (static_cast<double>(map.scale) * codes[i] + map.offset) * scale * q;
      magnitude += std::fabs(static_cast<double>(map.scale) * codes[i] * scale * q);
      sum += q;
    }
    magnitude += std::fabs(static_cast<double>(map.offset) * scale * sum);
  }
  const double stretch = std::min<double>(2048, static_cast<double>(x.columns));
  const double additions =
      stretch / 32 + stretch / F::group_size / 8 + 3 + double(x.columns) / 2048;
  return {value, test::unit_roundoff * (additions + 4) * magnitude + 1e-36};
}

template <typename F>
std::vector<float> run(const kernel_table& table, const std::vector<typename F::block>& rows,
                       std::int64_t first, std::int64_t count, const tokens_q8& x,
                       std::int64_t token, std::int64_t tokens) {
  const std::int64_t blocks = x.columns / F::block_size;
  const nibble::cpu::weight_rows w{rows.data() + first * blocks,
                                   static_cast<std::size_t>(blocks) * sizeof(typename F::block),
                                   count, x.columns};
  const std::int64_t stride = count + 3;
  std::vector<float> out(static_cast<std::size_t>(tokens * stride), -7.0f);
  table.matmul_q8[nibble::index_of<F>](w, x.from(token), tokens, out.data(), stride);
  std::vector<float> packed;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t r = 0; r < stride; ++r) {
      const float value = out[static_cast<std::size_t>(t * stride + r)];
      if (r < count) packed.push_back(value);
      if (r >= count) REQUIRE(value == -7.0f);  // nothing is written beyond the rows
    }
  }
  return packed;
}

bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

int combinations = 0;

// All results against the reference, and bit-equal when tokens and rows are worked on apart.
template <typename F>
void check(const kernel_table& table, const std::vector<typename F::block>& rows,
           std::int64_t n_rows, const tokens_q8& x, std::int64_t tokens) {
  INFO("columns " << x.columns << ", tokens " << tokens << ", rows " << n_rows);
  const std::int64_t blocks = x.columns / F::block_size;
  const auto all = run<F>(table, rows, 0, n_rows, x, 0, tokens);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto alone = run<F>(table, rows, 0, n_rows, x, t, 1);
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const float got = all[static_cast<std::size_t>(t * n_rows + r)];
      const auto expected = expect<F>(rows.data() + r * blocks, x, t);
      INFO("token " << t << ", row " << r << ": " << got << ", not " << expected.value);
      REQUIRE(std::fabs(got - expected.value) <= expected.tolerance);
      REQUIRE(same_bits(alone[static_cast<std::size_t>(r)], got));
    }
  }
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const auto alone = run<F>(table, rows, r, 1, x, 0, tokens);
    for (std::int64_t t = 0; t < tokens; ++t) {
      REQUIRE(same_bits(alone[static_cast<std::size_t>(t)],
                        all[static_cast<std::size_t>(t * n_rows + r)]));
    }
  }
  ++combinations;
}

// A block with every byte `byte` and scales of moderate size.
template <typename F>
typename F::block filled_block(std::uint8_t byte, float scale) {
  typename F::block b;
  std::memset(&b, byte, sizeof b);
  if constexpr (requires { b.d; }) b.d = nibble::to_half(scale);
  if constexpr (requires { b.m; }) b.m = nibble::to_half(-scale);
  if constexpr (requires { b.dmin; }) b.dmin = nibble::to_half(scale);
  if constexpr (requires { b.e; }) b.e = 127;
  return b;
}

}  // namespace

TEST_CASE("int8 products of every format agree with the definition on every instruction set") {
  combinations = 0;
  test::for_each_isa([](const kernel_table& table) {
    test::for_each_block_format([&]<typename F>(F) {
      test::random_source random(17);
      for (const std::int64_t columns : {32, 256, 288, 1024, 2048, 2304, 4352}) {
        if (columns % F::block_size != 0) continue;
        const auto x = make_tokens(
            9, columns, [&](auto) { return random.in(-127, 127); }, 0.01f);
        for (const std::int64_t n_rows : {1, 4, 7}) {
          const auto rows = test::random_blocks<F>(
              static_cast<std::size_t>(n_rows * columns / F::block_size), random);
          for (std::int64_t tokens = 1; tokens <= 9; tokens += columns < 2048 ? 1 : 4) {
            check<F>(table, rows, n_rows, x, tokens);
          }
        }
      }
    });
  });
  std::cout << "matmul_q8: " << combinations << " combinations\n";
}

TEST_CASE("int8 products are exact at the extremes of codes and activations") {
  combinations = 0;
  test::for_each_isa([](const kernel_table& table) {
    test::for_each_block_format([&]<typename F>(F) {
      for (const int byte : {0x00, 0x7f, 0x80, 0x81, 0xff, 0x77, 0x88, 0xf0, 0x0f}) {
        const auto b = filled_block<F>(static_cast<std::uint8_t>(byte), 1.0f);
        const std::vector<typename F::block> rows(static_cast<std::size_t>(3 * 512 / F::block_size),
                                                  b);
        for (const int q : {127, -127, 0}) {
          check<F>(table, rows, 3,
                   make_tokens(
                       2, 512, [&](auto) { return q; }, 1.0f),
                   2);
        }
        const auto alternating = [](auto i) { return i % 2 ? 127 : -127; };
        check<F>(table, rows, 3, make_tokens(2, 512, alternating, 1e20f), 2);
        check<F>(table, rows, 3, make_tokens(2, 512, alternating, 0.0f), 2);
      }
    });
  });
  std::cout << "matmul_q8 extremes: " << combinations << " combinations\n";
}

TEST_CASE("a scale that is no number shows in the result and harms nothing else") {
  test::for_each_isa([](const kernel_table& table) {
    test::for_each_block_format([&]<typename F>(F) {
      test::random_source random(3);
      const auto x = make_tokens(
          3, 512, [&](auto) { return random.in(1, 127); }, 0.5f);
      const std::int64_t blocks = 512 / F::block_size;
      if constexpr (requires(typename F::block b) { b.d; }) {
        for (const nibble::half odd : {nibble::half{0x7e00}, {0x7c00}, {0xfc00}}) {
          std::vector<typename F::block> rows(static_cast<std::size_t>(3 * blocks),
                                              filled_block<F>(0x35, 1.0f));
          rows[static_cast<std::size_t>(blocks)].d = odd;  // in the second row
          const auto out = run<F>(table, rows, 0, 3, x, 0, 3);
          for (std::size_t i = 0; i < out.size(); ++i) {
            REQUIRE(std::isfinite(out[i]) == (i % 3 != 1));
          }
        }
      }
      auto broken = x;
      broken.scale[512 / 32 + 3] = std::nanf("");  // of the second token
      const std::vector<typename F::block> rows(static_cast<std::size_t>(3 * blocks),
                                                filled_block<F>(0x35, 1.0f));
      const auto out = run<F>(table, rows, 0, 3, broken, 0, 3);
      for (std::size_t i = 0; i < out.size(); ++i) REQUIRE(std::isnan(out[i]) == (i / 3 == 1));
    });
  });
}

TEST_CASE("activations are quantised like the reference, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(5);
    std::vector<float> x;
    for (const float size : {0.0f, 1.0f, 1e-36f, 0x1p-119f, 0x1p-120f, 1e-44f, 3e38f, 1e10f}) {
      for (int i = 0; i < 32; ++i) x.push_back(size * random.normal(0.25f));
    }
    for (int i = 0; i < 32; ++i) x.push_back(static_cast<float>(i) + 0.5f);  // ties, with 127 next
    x.back() = 127.0f;
    for (const float odd : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
      for (int i = 0; i < 32; ++i) x.push_back(i == 21 ? odd : 1.0f);
    }
    const std::size_t n = x.size();
    std::vector<std::int8_t> q(n);
    std::vector<float> scale(n / 32);
    std::vector<std::int16_t> sum(n / 16);
    table.quantise_q8(x.data(), static_cast<std::int64_t>(n), q.data(), scale.data(), sum.data());
    std::vector<nibble::activation_block> expected(n / 32);
    nibble::quantise_activations(x.data(), n, expected.data());
    for (std::size_t i = 0; i < n; ++i) {
      INFO("value " << i << ": " << x[i]);
      REQUIRE(int{q[i]} == int{expected[i / 32].codes[i % 32]});
      if (i % 32 == 0) {
        const float s = expected[i / 32].scale;
        REQUIRE((std::isnan(s) ? std::isnan(scale[i / 32]) : scale[i / 32] == s));
      }
      if (i % 16 == 0) {
        int total = 0;
        for (std::size_t j = i; j < i + 16; ++j) total += q[j];
        REQUIRE(sum[i / 16] == total);
      }
    }
  });
}
