// Products of matrices with a few vectors.
#include <functional>
#include <memory>

#include "product_test.hpp"

namespace {

namespace gpu = nibble::gpu;
using test::gpu_device;

// A matrix on the host and on a device, whatever its format.
struct any_matrix {
  gpu::packed_matrix packed;
  std::shared_ptr<test::device_matrices> memory;
  std::function<test::expectation(std::int64_t row, const test::tokens_q8& x, std::int64_t token)>
      by_definition;
};

template <typename F>
any_matrix place(gpu_device& device, test::host_matrices<F> from) {
  auto memory = std::make_shared<test::device_matrices>(device, from);
  const gpu::packed_matrix packed = memory->packed();
  return {packed, std::move(memory),
          [from = std::move(from)](std::int64_t row, const auto& x, std::int64_t token) {
            return test::dot_q8<F>(from.row(0, row), x, token);
          }};
}

template <typename F>
any_matrix random_matrix(gpu_device& device, std::int64_t columns, std::int64_t rows,
                         test::random_source& random) {
  return place(device, test::make_matrices<F>(columns, rows, 1, random));
}

// Results of one launch, a matrix after the other; behind each there is a guard.
using results = std::vector<std::vector<float>>;

struct launch_options {
  std::vector<float> before = {};  // what `out` holds; empty: no accumulation
  const float* scale = nullptr;
  const float* bias = nullptr;  // of all matrices
};

results multiply(gpu_device& device, const std::vector<any_matrix>& matrices,
                 const gpu::matvec_args& input, const launch_options& options = {}) {
  constexpr std::size_t guard = 5;
  constexpr float sentinel = -7;
  gpu::matvec_args args = input;
  args.accumulate = !options.before.empty();
  std::vector<test::device_array<float>> out;
  for (const any_matrix& m : matrices) {
    const auto n = static_cast<std::size_t>(args.tokens * m.packed.rows);
    std::vector<float> values(n + guard, sentinel);
    if (args.accumulate) std::copy_n(options.before.begin(), n, values.begin());
    out.emplace_back(device, values);
    args.products[args.n_products++] = {m.packed, options.bias, options.scale, out.back().data()};
  }
  test::run(device, &gpu::kernel_table::matvec, args);
  results got;
  for (const auto& o : out) {
    got.push_back(o.read());
    for (std::size_t i = 0; i < guard; ++i) {
      REQUIRE(got.back().back() == sentinel);
      got.back().pop_back();
    }
  }
  return got;
}

gpu::matvec_args ready_input(const test::device_q8& x, std::int32_t tokens, std::int64_t columns) {
  gpu::matvec_args args{};
  args.ready = x.rows();
  args.tokens = tokens;
  args.columns = columns;
  return args;
}

gpu::q8_rows from_token(gpu::q8_rows rows, std::int64_t token, std::int64_t columns) {
  return {rows.codes + token * columns, rows.scales + token * (columns / 32),
          rows.sums + token * (columns / 16)};
}

void require_close(float got, const test::expectation& expected) {
  INFO(got << ", not " << expected.value << " to " << expected.tolerance);
  REQUIRE(std::fabs(got - expected.value) <= expected.tolerance);
}

void check_products(const std::vector<any_matrix>& matrices, const results& got,
                    const test::tokens_q8& x, std::int64_t tokens) {
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    const std::int64_t rows = matrices[m].packed.rows;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < rows; ++r) {
        INFO("matrix " << m << ", token " << t << ", row " << r);
        require_close(got[m][static_cast<std::size_t>(t * rows + r)],
                      matrices[m].by_definition(r, x, t));
      }
    }
  }
}

// A block with every byte `byte` and scales of about that size.
template <typename F>
typename F::block filled_block(std::uint8_t byte, float scale) {
  typename F::block b;
  std::memset(&b, byte, sizeof b);
  if constexpr (requires { b.d; }) b.d = nibble::to_half(scale);
  if constexpr (requires { b.m; }) b.m = nibble::to_half(-scale);
  if constexpr (requires { b.dmin; }) b.dmin = nibble::to_half(scale);
  if constexpr (requires { b.e; }) b.e = static_cast<std::uint8_t>(128 + std::ilogb(scale));
  return b;
}

constexpr std::int32_t all_tokens[] = {1, 2, 3, 4, 5, 6, 7, 8};

}  // namespace

TEST_CASE("products of every format with one to eight vectors agree with their definition") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    int formats = 0;
    test::for_each_block_format([&]<typename F>(F) {
      ++formats;
      test::random_source random(21);
      for (const std::int64_t columns : {32, 256, 1056, 2304}) {
        if (columns % F::block_size != 0) continue;
        const auto x = test::random_tokens(8, columns, random);
        const test::device_q8 on_device(device, x);
        const std::vector<any_matrix> matrices{random_matrix<F>(device, columns, 37, random),
                                               random_matrix<F>(device, columns, 1, random)};
        results alone[8];
        for (std::int32_t t = 0; t < 8; ++t) {
          auto args = ready_input(on_device, 1, columns);
          args.ready = from_token(args.ready, t, columns);
          alone[t] = multiply(device, matrices, args);
        }
        for (const std::int32_t tokens : all_tokens) {
          INFO("columns " << columns << ", tokens " << tokens);
          const auto got = multiply(device, matrices, ready_input(on_device, tokens, columns));
          if (tokens == 8) check_products(matrices, got, x, tokens);
          // the same bits with any number of vectors
          for (std::size_t m = 0; m < matrices.size(); ++m) {
            const auto rows = static_cast<std::size_t>(matrices[m].packed.rows);
            for (std::size_t i = 0; i < got[m].size(); ++i) {
              REQUIRE(test::same_bits(got[m][i], alone[i / rows][m][i % rows]));
            }
          }
        }
      }
    });
    int expected = 0;
    nibble::for_each_format([&]<typename F>(F) { expected += nibble::block_format<F>; });
    CHECK(formats == expected);
  }
}

TEST_CASE("one launch makes products of several matrices of several formats") {
  namespace f = nibble::formats;
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(22);
    constexpr std::int64_t columns = 1280;
    const auto x = test::random_tokens(3, columns, random);
    const test::device_q8 on_device(device, x);
    const std::vector<any_matrix> matrices{random_matrix<f::q4_k>(device, columns, 301, random),
                                           random_matrix<f::q6_k>(device, columns, 2, random),
                                           random_matrix<f::q4_k>(device, columns, 33, random),
                                           random_matrix<f::q4_k>(device, columns, 4, random)};
    check_products(matrices, multiply(device, matrices, ready_input(on_device, 3, columns)), x, 3);
  }
}

TEST_CASE("scale, bias and what was there before join a product") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(23);
    constexpr std::int64_t columns = 512, rows = 19;
    const auto x = test::random_tokens(8, columns, random);
    const test::device_q8 on_device(device, x);
    const auto matrix = random_matrix<nibble::formats::q5_k>(device, columns, rows, random);
    const auto bias = random.normals(rows), before = random.normals(8 * rows);
    const test::device_array<float> d_bias(device, bias), d_scale(device, std::vector{0.37f});
    for (int options = 0; options < 8; ++options) {
      const bool scaled = (options & 1) != 0, biased = (options & 2) != 0,
                 adds = (options & 4) != 0;
      for (const std::int32_t tokens : {1, 2, 3, 8}) {
        INFO("options " << options << ", tokens " << tokens);
        const auto got =
            multiply(device, {matrix}, ready_input(on_device, tokens, columns),
                     {adds ? before : std::vector<float>{}, scaled ? d_scale.data() : nullptr,
                      biased ? d_bias.data() : nullptr});
        for (std::int64_t i = 0; i < tokens * rows; ++i) {
          const auto at = static_cast<std::size_t>(i);
          auto e = test::finished(matrix.by_definition(i % rows, x, i / rows),
                                  scaled ? double{0.37f} : 1, biased ? double{bias[at % rows]} : 0);
          if (adds) {
            e.value += before[at];
            e.tolerance += test::unit_roundoff * (std::fabs(e.value) + std::fabs(before[at]));
          }
          require_close(got[0][at], e);
        }
      }
    }
  }
}

TEST_CASE("an input that is made on the way gives what quantise and the product would") {
  namespace f = nibble::formats;
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    const gpu::device_facts& facts = device.context->facts();
    CHECK_FALSE(device.kernels().matvec_fits(facts, 1, 1 << 20));
    test::random_source random(24);
    for (const std::int64_t columns : {256, 1280, 4352}) {
      for (const std::int32_t tokens : all_tokens) {
        if (!device.kernels().matvec_fits(facts, tokens, columns)) {
          CHECK((tokens > 2 || tokens * columns > 8192));
          continue;
        }
        const auto n = static_cast<std::size_t>(tokens * columns);
        const test::device_array<float> x(device, random.normals(n, 2));
        const test::device_array<float> gain(device, random.normals(n)),
            up(device, random.normals(n));
        const std::vector<any_matrix> matrices{random_matrix<f::q4_0>(device, columns, 7, random),
                                               random_matrix<f::q2_k>(device, columns, 40, random)};
        const test::device_array<std::int8_t> codes(device, n);
        const test::device_array<float> scales(device, n / 32);
        const test::device_array<std::int16_t> sums(device, n / 16);
        for (int kind = 0; kind < 6; ++kind) {
          INFO("columns " << columns << ", tokens " << tokens << ", kind " << kind);
          const auto input_kind = kind == 0   ? gpu::input_kind::plain
                                  : kind == 1 ? gpu::input_kind::norm
                                              : gpu::input_kind::gate;
          gpu::matvec_args fused{};
          fused.in = {x.data(), columns, input_kind, gain.data(), 1e-6f, up.data(), kind - 2};
          fused.tokens = tokens;
          fused.columns = columns;
          gpu::matvec_args apart = fused;
          apart.in.x = nullptr;
          apart.ready = {codes.data(), scales.data(), sums.data()};
          test::run(device, &gpu::kernel_table::quantise, {fused.in, tokens, apart.ready});
          const auto got = multiply(device, matrices, fused);
          const auto expected = multiply(device, matrices, apart);
          for (std::size_t m = 0; m < matrices.size(); ++m) {
            for (std::size_t i = 0; i < got[m].size(); ++i) {
              REQUIRE(test::same_bits(got[m][i], expected[m][i]));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("extreme codes and scales are multiplied exactly enough") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::for_each_block_format([&]<typename F>(F) {
      constexpr std::int64_t columns = 1024;
      test::host_matrices<F> from{columns, 0, 1, {}};
      for (const int byte : {0x00, 0x7f, 0x80, 0xff, 0x55, 0xaa, 0x0f, 0xf0}) {
        for (const float scale : {1.0f, -65504.0f, 6e-8f, 1e-5f}) {
          ++from.rows;
          from.blocks.insert(from.blocks.end(), columns / F::block_size,
                             filled_block<F>(static_cast<std::uint8_t>(byte), scale));
        }
      }
      const any_matrix matrix = place(device, from);
      for (const int code : {127, -127}) {
        for (const float scale : {0.01f, 1e-38f, 1e20f}) {
          INFO("activations " << code << " * " << scale);
          const auto x = test::make_tokens(
              3, columns, [&](auto i) { return i % 3 == 2 ? -code : code; }, scale);
          const test::device_q8 on_device(device, x);
          check_products({matrix}, multiply(device, {matrix}, ready_input(on_device, 3, columns)),
                         x, 3);
        }
      }
    });
  }
}

TEST_CASE("a NaN among activations or scales shows where it belongs") {
  namespace f = nibble::formats;
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(25);
    constexpr std::int64_t columns = 2048, rows = 9;
    auto from = test::make_matrices<f::q4_k>(columns, rows, 1, random);
    from.blocks[4 * (columns / 256) + 3].d = nibble::half{0x7e00};
    from.blocks[7 * (columns / 256) + 1].dmin = nibble::half{0x7c00};
    auto x = test::random_tokens(4, columns, random);
    x.scale[columns / 32 + 40] = std::numeric_limits<float>::quiet_NaN();  // of token 1
    const test::device_q8 on_device(device, x);
    const auto got = multiply(device, {place(device, from)}, ready_input(on_device, 4, columns));
    for (std::size_t t = 0; t < 4; ++t) {
      for (std::size_t r = 0; r < rows; ++r) {
        INFO("token " << t << ", row " << r);
        if (t == 1 || r == 4) CHECK(std::isnan(got[0][t * rows + r]));
        if (t != 1 && r == 7) CHECK_FALSE(std::isfinite(got[0][t * rows + r]));
        if (t != 1 && r != 4 && r != 7) CHECK(std::isfinite(got[0][t * rows + r]));
      }
    }
  }
}
