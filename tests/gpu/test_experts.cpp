// Products with the matrices of chosen experts.
#include <algorithm>
#include "product_test.hpp"

namespace gpu = nibble::gpu;

namespace {

using test::device_array;
using test::device_matrices;
using test::device_q8;

struct expert_case {
  std::int64_t tokens;
  std::int32_t n_expert, n_used;
  bool per_slot, grouped, floats;
  std::vector<std::int32_t> selection;  // [tokens, n_used]
};

// Rows of activations, as both kinds of products take them: the floats are the values of the codes.
struct both_activations {
  test::tokens_q8 q8;
  std::vector<float> f32;
};
both_activations make_activations(std::int64_t rows, std::int64_t columns,
                                  test::random_source& random) {
  both_activations x{test::random_tokens(rows, columns, random), {}};
  for (std::size_t i = 0; i < x.q8.q.size(); ++i) x.f32.push_back(x.q8.scale[i / 32] * x.q8.q[i]);
  return x;
}

// What the product of a row of an expert's matrix with a row of activations is.
template <typename F>
test::expectation expected_product(const test::host_matrices<F>& matrix, std::int32_t expert,
                                   std::int64_t row, const both_activations& x, std::int64_t input,
                                   bool floats) {
  const auto* const weights = matrix.row(expert, row);
  if constexpr (nibble::block_format<F>) {
    if (!floats) return test::dot_q8<F>(weights, x.q8, input);
  }
  return test::product_f32(test::decoded<F>(weights, matrix.columns),
                           x.f32.data() + input * matrix.columns);
}

template <typename F>
void check_product(const expert_case& what, const test::host_matrices<F>& matrix,
                   const both_activations& x, const std::vector<float>& bias,
                   const std::vector<float>& got) {
  for (std::int64_t pair = 0; pair < what.tokens * what.n_used; ++pair) {
    const std::int32_t expert = what.selection[static_cast<std::size_t>(pair)];
    const std::int64_t input = what.per_slot ? pair : pair / what.n_used;
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      const auto e = expected_product(matrix, expert, r, x, input, what.floats);
      const double added =
          bias.empty() ? 0 : bias[static_cast<std::size_t>(expert * matrix.rows + r)];
      test::require_close(got[static_cast<std::size_t>(pair * matrix.rows + r)],
                          test::finished(e, 1, added), pair, r);
    }
  }
}

// The order of pairs that group_pairs makes.
struct grouped_pairs {
  device_array<std::int32_t> order, start;

  grouped_pairs(test::gpu_device& device, const expert_case& what,
                const device_array<std::int32_t>& selection)
      : order(device, what.selection.size()),
        start(device, static_cast<std::size_t>(what.n_expert) + 1) {
    test::run(
        device, &gpu::kernel_table::group_pairs,
        {selection.data(), what.tokens * what.n_used, what.n_expert, order.data(), start.data()});
  }
};

// Two products of two formats, of which the second has a bias.
template <typename F, typename G>
void check_experts(test::gpu_device& device, const expert_case& what, std::int64_t columns,
                   std::int64_t rows, test::random_source& random) {
  INFO(device.name << ", " << F::name << " and " << G::name << ", " << what.tokens << " tokens, "
                   << what.n_used << " of " << what.n_expert << " experts, " << columns
                   << " columns, " << rows << " rows" << (what.per_slot ? ", per slot" : "")
                   << (what.grouped ? ", grouped" : "") << (what.floats ? ", floats" : ""));
  const auto a = test::make_matrices<F>(columns, rows, what.n_expert, random);
  const auto b = test::make_matrices<G>(columns, rows + 3, what.n_expert, random);
  const auto bias = random.normals(static_cast<std::size_t>(what.n_expert * b.rows));
  const std::int64_t pairs = what.tokens * what.n_used;
  const auto x = make_activations(what.per_slot ? pairs : what.tokens, columns, random);

  const device_matrices a_there(device, a), b_there(device, b);
  // biases of experts need not lie side by side
  const std::int64_t stride = b.rows + 3;
  std::vector<float> spread(static_cast<std::size_t>(what.n_expert * stride));
  for (std::int64_t i = 0; i < what.n_expert; ++i) {
    std::copy_n(bias.begin() + i * b.rows, b.rows, spread.begin() + i * stride);
  }
  const device_array<float> bias_there(device, spread), floats(device, x.f32);
  const device_q8 q8(device, x.q8);
  const device_array<std::int32_t> selection(device, what.selection);
  const grouped_pairs grouped(device, what, selection);
  const device_array<float> a_out(device, static_cast<std::size_t>(pairs * a.rows));
  const device_array<float> b_out(device, static_cast<std::size_t>(pairs * b.rows));
  gpu::expert_args args{};
  if (what.floats) args.in_f32 = floats.data();
  if (!what.floats) args.in = q8.rows();
  args.per_slot = what.per_slot;
  args.tokens = what.tokens;
  args.n_used = what.n_used;
  args.n_expert = what.n_expert;
  args.columns = columns;
  args.selection = selection.data();
  args.n_products = 2;
  args.products[0] = {a_there.packed(), nullptr, nullptr, a_out.data()};
  args.products[1] = {b_there.packed(), bias_there.data(), nullptr, b_out.data(), stride};
  args.pair_order = what.grouped ? grouped.order.data() : nullptr;
  args.pair_start = what.grouped ? grouped.start.data() : nullptr;
  test::run(device, &gpu::kernel_table::expert_matmul, args);
  check_product(what, a, x, {}, a_out.read());
  check_product(what, b, x, bias, b_out.read());
}

// Each token's experts, all different; only the even ones are used if there are enough.
std::vector<std::int32_t> select(std::int64_t tokens, std::int32_t n_expert, std::int32_t n_used,
                                 test::random_source& random) {
  std::vector<std::int32_t> usable, selection;
  const int step = n_expert >= 2 * n_used ? 2 : 1;
  for (std::int32_t e = 0; e < n_expert; e += step) usable.push_back(e);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int32_t i = 0; i < n_used; ++i) {
      const int other = random.in(i, static_cast<int>(usable.size()) - 1);
      std::swap(usable[static_cast<std::size_t>(i)], usable[static_cast<std::size_t>(other)]);
      selection.push_back(usable[static_cast<std::size_t>(i)]);
    }
  }
  return selection;
}

}  // namespace

TEST_CASE("experts' products agree with the definition for every format") {
  nibble::for_each_format([&]<typename F>(F) {
    test::random_source random(31);
    for (auto& device : test::gpu_devices()) {
      for (const bool floats : {false, true}) {
        if (nibble::element_format<F> && !floats) continue;
        for (const bool grouped : {false, true}) {
          const std::int64_t tokens = grouped ? 9 : 2;
          const expert_case what{
              tokens, 6, 2, grouped == floats, grouped, floats, select(tokens, 6, 2, random)};
          check_experts<F, F>(device, what, F::block_size == 256 ? 512 : 96, 19, random);
        }
      }
    }
  });
}

TEST_CASE("experts may get no token, all of them, or one only") {
  using nibble::formats::q4_0;
  using nibble::formats::q8_0;
  test::random_source random(32);
  for (auto& device : test::gpu_devices()) {
    for (const bool floats : {false, true}) {
      for (const bool grouped : {false, true}) {
        for (const bool per_slot : {false, true}) {
          for (const std::int32_t n_used : {1, 3}) {
            const auto check = [&](std::int64_t tokens, std::int32_t n_expert,
                                   std::vector<std::int32_t> selection) {
              check_experts<q4_0, q8_0>(
                  device, {tokens, n_expert, n_used, per_slot, grouped, floats, selection}, 64, 33,
                  random);
            };
            check(1, 4, select(1, 4, n_used, random));
            check(7, 16, select(7, 16, n_used, random));
            // all pairs with the last expert: many times what one gets on average
            const std::int64_t tokens = grouped ? 75 : 3;
            check(tokens, 40,
                  std::vector<std::int32_t>(static_cast<std::size_t>(tokens * n_used), 39));
          }
        }
      }
    }
  }
}

TEST_CASE("experts get many tokens each") {
  using nibble::formats::q5_1;
  using nibble::formats::q6_k;
  test::random_source random(33);
  for (auto& device : test::gpu_devices()) {
    for (const std::int64_t tokens : {40, 150}) {
      const expert_case what{tokens, 3, 2, false, true, false, select(tokens, 3, 2, random)};
      check_experts<q6_k, q5_1>(device, what, 256, 140, random);
    }
  }
}
