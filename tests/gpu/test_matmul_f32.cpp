// Products with float activations.
#include "product_test.hpp"

namespace gpu = nibble::gpu;

namespace {

using test::device_array;
using test::device_matrices;

constexpr float untouched = -7.0f;

// Columns of more than one stage, and for formats that allow it such as end within a unit.
template <typename F>
std::vector<std::int64_t> column_counts() {
  if (F::block_size == 1) return {1, 100, 2100};
  if (F::block_size == 32) return {32, 352};
  return {256, 1280};
}

// Products of the first rows of a matrix with the first tokens, against decoded weights.
template <typename F>
void check_f32(test::gpu_device& device, const test::host_matrices<F>& matrix,
               const std::vector<test::expectation>& expected, const device_array<float>& x,
               std::int64_t all_rows, std::int64_t tokens) {
  INFO(device.name << ", " << tokens << " tokens, " << matrix.rows << " rows, " << matrix.columns
                   << " columns");
  const device_matrices packed(device, matrix);
  const auto n = static_cast<std::size_t>(tokens * matrix.rows);
  const device_array<float> out(device, std::vector<float>(n + 5, untouched));
  gpu::matmul_f32_args args{x.data(), tokens, matrix.columns, 1, {}, false};
  args.products[0] = {packed.packed(), nullptr, nullptr, out.data()};
  test::run(device, &gpu::kernel_table::matmul_f32, args);
  const auto got = out.read();
  for (std::size_t i = n; i < got.size(); ++i) REQUIRE(got[i] == untouched);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      test::require_close(got[static_cast<std::size_t>(t * matrix.rows + r)],
                          expected[static_cast<std::size_t>(t * all_rows + r)], t, r);
    }
  }
}

}  // namespace

TEST_CASE("products with float activations agree with the definition for every format") {
  nibble::for_each_format([&]<typename F>(F) {
    INFO(F::name);
    constexpr std::int64_t all_rows = 70, all_tokens = 70;
    test::random_source random(21);
    for (const std::int64_t columns : column_counts<F>()) {
      const auto matrix = test::make_matrices<F>(columns, all_rows, 1, random);
      const auto x = random.normals(static_cast<std::size_t>(all_tokens * columns));
      std::vector<test::expectation> expected(all_tokens * all_rows);
      for (std::int64_t r = 0; r < all_rows; ++r) {
        const auto weights = test::decoded<F>(matrix.row(0, r), columns);
        for (std::int64_t t = 0; t < all_tokens; ++t) {
          expected[static_cast<std::size_t>(t * all_rows + r)] =
              test::product_f32(weights, x.data() + t * columns);
        }
      }
      for (auto& device : test::gpu_devices()) {
        const device_array<float> x_there(device, x);
        for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{30}, all_rows}) {
          for (const std::int64_t tokens : {1, 5, 8, 9, 70}) {
            check_f32(device, matrix.first(rows), expected, x_there, all_rows, tokens);
          }
        }
      }
    }
  });
}

TEST_CASE("several products with float activations, with scales and biases, in one call") {
  using nibble::formats::f16;
  using nibble::formats::f32;
  constexpr std::int64_t columns = 96;
  test::random_source random(22);
  const auto a = test::make_matrices<f16>(columns, 70, 1, random);
  const auto b = test::make_matrices<f32>(columns, 9, 1, random);
  const auto c = test::make_matrices<f16>(columns, 5, 1, random);
  for (const std::int64_t tokens : {2, 20}) {
    const auto x = random.normals(static_cast<std::size_t>(tokens * columns));
    for (auto& device : test::gpu_devices()) {
      INFO(device.name << ", " << tokens << " tokens");
      const device_matrices matrices[] = {{device, a}, {device, b}, {device, c}};
      const device_array<float> x_there(device, x), scale(device, std::vector<float>{-1.5f});
      std::vector<std::vector<float>> bias, before;
      std::vector<device_array<float>> bias_there, out;
      gpu::matmul_f32_args args{x_there.data(), tokens, columns, 3, {}, true};
      for (int i = 0; i < 3; ++i) {
        const gpu::packed_matrix& m = matrices[i].packed();
        bias.push_back(random.normals(static_cast<std::size_t>(m.rows)));
        before.push_back(random.normals(static_cast<std::size_t>(m.rows * tokens)));
        bias_there.emplace_back(device, bias.back());
        out.emplace_back(device, before.back());
        args.products[i] = {m, i > 0 ? bias_there.back().data() : nullptr,
                            i < 2 ? scale.data() : nullptr, out.back().data()};
      }
      test::run(device, &gpu::kernel_table::matmul_f32, args);
      const auto check = [&]<typename F>(std::size_t i, const test::host_matrices<F>& m) {
        INFO("product " << i);
        const auto got = out[i].read();
        for (std::int64_t r = 0; r < m.rows; ++r) {
          const auto weights = test::decoded<F>(m.row(0, r), columns);
          for (std::int64_t t = 0; t < tokens; ++t) {
            const auto at = static_cast<std::size_t>(t * m.rows + r);
            const double added = i > 0 ? bias[i][static_cast<std::size_t>(r)] : 0;
            const auto e = test::finished(test::product_f32(weights, x.data() + t * columns),
                                          i < 2 ? -1.5 : 1, added);
            test::require_close(got[at], test::finished(e, 1, before[i][at]), t, r);
          }
        }
      };
      check(0, a);
      check(1, b);
      check(2, c);
    }
  }
}
