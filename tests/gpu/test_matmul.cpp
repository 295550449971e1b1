// Products of many tokens with eight-bit activations, on tiles of matrix instructions.
#include "product_test.hpp"

namespace gpu = nibble::gpu;

namespace {

using test::device_array;
using test::device_matrices;
using test::device_q8;

constexpr float untouched = -7.0f;

// [tokens, rows] of one product, from a kernel that must not write beyond that.
std::vector<float> run_matmul(test::gpu_device& device, const gpu::packed_matrix& matrix,
                              const device_q8& x, std::int64_t tokens) {
  const auto n = static_cast<std::size_t>(tokens * matrix.rows);
  const device_array<float> out(device, std::vector<float>(n + 5, untouched));
  gpu::matmul_args args{x.rows(), tokens, matrix.columns, 1, {}, false};
  args.products[0] = {matrix, nullptr, nullptr, out.data()};
  test::run(device, &gpu::kernel_table::matmul, args);
  auto all = out.read();
  for (std::size_t i = n; i < all.size(); ++i) REQUIRE(all[i] == untouched);
  all.resize(n);
  return all;
}

// Columns that fill stages of all shapes of tiles, and such as leave some of the last stage empty.
template <typename F>
std::vector<std::int64_t> column_counts() {
  if (F::block_size == 32) return {32, 352};
  return {256, 768};
}

// A matrix's products with up to 100 tokens, by definition.
template <typename F>
struct problem {
  static constexpr std::int64_t all_rows = 200, all_tokens = 100;
  test::host_matrices<F> matrix;
  test::tokens_q8 x;
  std::vector<test::expectation> expected;  // [all_tokens, all_rows]

  problem(std::int64_t columns, test::random_source& random)
      : matrix(test::make_matrices<F>(columns, all_rows, 1, random)),
        x(test::random_tokens(all_tokens, columns, random)) {
    for (std::int64_t t = 0; t < all_tokens; ++t) {
      for (std::int64_t r = 0; r < all_rows; ++r) {
        expected.push_back(test::dot_q8<F>(matrix.row(0, r), x, t));
      }
    }
  }
};

// All results against the definition, and the same bits whatever else is computed beside them.
template <typename F>
void check_matmul(test::gpu_device& device, const problem<F>& what) {
  const device_q8 x(device, what.x);
  const device_matrices all(device, what.matrix);
  const auto alike = run_matmul(device, all.packed(), x, what.all_tokens);
  for (const std::int64_t rows : {1, 30, 128, 200}) {
    const device_matrices matrix(device, what.matrix.first(rows));
    for (const std::int64_t tokens : {1, 5, 16, 17, 64, 100}) {
      INFO(tokens << " tokens, " << rows << " rows, " << what.matrix.columns << " columns");
      const auto out = run_matmul(device, matrix.packed(), x, tokens);
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t r = 0; r < rows; ++r) {
          const float got = out[static_cast<std::size_t>(t * rows + r)];
          const auto at = static_cast<std::size_t>(t * what.all_rows + r);
          const auto& e = what.expected[at];
          if (std::fabs(got - e.value) <= e.tolerance && test::same_bits(got, alike[at])) continue;
          INFO("token " << t << ", row " << r << ": " << got << " and " << alike[at] << ", not "
                        << e.value);
          REQUIRE(false);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("products of many tokens agree with the definition for every block format") {
  int formats = 0;
  test::for_each_block_format([&]<typename F>(F) {
    test::random_source random(11);
    for (const std::int64_t columns : column_counts<F>()) {
      const problem<F> what(columns, random);
      for (auto& device : test::gpu_devices()) {
        INFO(device.name);
        check_matmul(device, what);
      }
    }
    ++formats;
  });
  int floats = 0;
  nibble::for_each_format([&]<typename F>(F) { floats += nibble::element_format<F>; });
  REQUIRE(formats + floats == nibble::format_count);
}

TEST_CASE("the greatest codes overflow nothing in products of many tokens") {
  test::for_each_block_format([&]<typename F>(F) {
    constexpr std::int64_t columns = F::block_size == 32 ? 128 : 512, rows = 33, tokens = 18;
    test::random_source random(12);
    // all bits of the codes set, or none: the greatest code or the least one, in most formats
    auto matrix = test::make_matrices<F>(columns, rows, 1, random);
    for (std::size_t i = 0; i < matrix.blocks.size(); ++i) {
      auto& b = matrix.blocks[i];
      std::memset(&b, i % 2 ? 0xff : 0x00, sizeof b);
      if constexpr (std::is_same_v<F, nibble::formats::q8_0>) {
        std::memset(&b, i % 2 ? 0x7f : 0x80, sizeof b);
      }
      if constexpr (requires { b.d; }) b.d = nibble::to_half(i % 3 ? 0.5f : -1.0f);
      if constexpr (requires { b.m; }) b.m = nibble::to_half(-2.0f);
      if constexpr (requires { b.dmin; }) b.dmin = nibble::to_half(0.25f);
      if constexpr (requires { b.e; }) b.e = 127;
    }
    for (const int code : {127, -127, -128}) {
      const auto x = test::make_tokens(
          tokens, columns, [&](auto i) { return i / 32 % 3 ? code : -code / 2; }, 1.0f);
      for (auto& device : test::gpu_devices()) {
        INFO(device.name << ", code " << code);
        const device_matrices packed(device, matrix);
        const auto out = run_matmul(device, packed.packed(), device_q8(device, x), tokens);
        for (std::int64_t i = 0; i < tokens * rows; ++i) {
          test::require_close(out[static_cast<std::size_t>(i)],
                              test::dot_q8<F>(matrix.row(0, i % rows), x, i / rows), i / rows,
                              i % rows);
        }
      }
    }
  });
}

TEST_CASE("a scale that is no number stays in its own row and token") {
  using F = nibble::formats::q4_k;
  constexpr std::int64_t columns = 512, rows = 40, tokens = 20;
  test::random_source random(13);
  auto matrix = test::make_matrices<F>(columns, rows, 1, random);
  matrix.blocks[2 * 7 + 1].d = nibble::half{0x7e00};  // of row 7
  auto x = test::random_tokens(tokens, columns, random);
  x.scale[3 * columns / 32 + 5] = std::nanf("");  // of token 3
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    const device_matrices packed(device, matrix);
    const auto out = run_matmul(device, packed.packed(), device_q8(device, x), tokens);
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < rows; ++r) {
        REQUIRE(std::isnan(out[static_cast<std::size_t>(t * rows + r)]) == (t == 3 || r == 7));
      }
    }
  }
}

TEST_CASE("several products of many tokens, with scales and biases, in one call") {
  using nibble::formats::q4_k;
  using nibble::formats::q6_k;
  constexpr std::int64_t columns = 512;
  test::random_source random(14);
  const auto a = test::make_matrices<q4_k>(columns, 130, 1, random);
  const auto b = test::make_matrices<q6_k>(columns, 33, 1, random);
  const auto c = test::make_matrices<q4_k>(columns, 64, 1, random);
  const auto d = test::make_matrices<q4_k>(columns, 1, 1, random);
  for (const std::int64_t tokens : {3, 40, 70}) {
    const auto x = test::random_tokens(tokens, columns, random);
    for (auto& device : test::gpu_devices()) {
      INFO(device.name << ", " << tokens << " tokens");
      const device_matrices matrices[] = {{device, a}, {device, b}, {device, c}, {device, d}};
      const std::vector<float> scale{0.75f};
      const device_array<float> scale_there(device, scale);
      std::vector<std::vector<float>> bias, before;
      std::vector<device_array<float>> bias_there, out;
      const device_q8 x_there(device, x);
      gpu::matmul_args args{x_there.rows(), tokens, columns, 4, {}, true};
      for (int i = 0; i < 4; ++i) {
        const gpu::packed_matrix& m = matrices[i].packed();
        bias.push_back(random.normals(static_cast<std::size_t>(m.rows)));
        before.push_back(random.normals(static_cast<std::size_t>(m.rows * tokens)));
        bias_there.emplace_back(device, bias.back());
        out.emplace_back(device, before.back());
        args.products[i] = {m, i % 2 ? bias_there.back().data() : nullptr,
                            i < 2 ? scale_there.data() : nullptr, out.back().data()};
      }
      test::run(device, &gpu::kernel_table::matmul, args);
      const auto check = [&]<typename F>(std::size_t i, const test::host_matrices<F>& m) {
        INFO("product " << i);
        const auto got = out[i].read();
        for (std::int64_t t = 0; t < tokens; ++t) {
          for (std::int64_t r = 0; r < m.rows; ++r) {
            const auto at = static_cast<std::size_t>(t * m.rows + r);
            const double added = i % 2 ? bias[i][static_cast<std::size_t>(r)] : 0;
            auto e = test::finished(test::dot_q8<F>(m.row(0, r), x, t), i < 2 ? 0.75 : 1, added);
            test::require_close(got[at], test::finished(e, 1, before[i][at]), t, r);
          }
        }
      };
      check(0, a);
      check(1, b);
      check(2, c);
      check(3, d);
    }
  }
}
