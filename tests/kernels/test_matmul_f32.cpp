#include <nibble/formats/decode.hpp>

#include "references.hpp"

using nibble::cpu::kernel_table;

namespace {

struct problem {
  std::int64_t columns, n_rows, tokens, x_stride;
  std::vector<float> weights;  // decoded, [n_rows, columns]
  std::vector<float> x;        // [tokens, x_stride]
};

void check(const problem& p, const std::vector<float>& out, std::int64_t stride) {
  for (std::int64_t t = 0; t < p.tokens; ++t) {
    for (std::int64_t r = 0; r < p.n_rows; ++r) {
      const auto expected =
          test::dot_f32(p.weights.data() + r * p.columns, p.x.data() + t * p.x_stride, p.columns);
      const float got = out[static_cast<std::size_t>(t * stride + r)];
      INFO("token " << t << ", row " << r << ": " << got << ", not " << expected.value);
      REQUIRE(std::fabs(got - expected.value) <= expected.tolerance);
    }
  }
}

}  // namespace

namespace {

struct product_shape {
  std::int64_t columns, n_rows, tokens;
};

template <typename F>
void check_product(const kernel_table& table, const product_shape& s, test::random_source& random) {
  INFO("columns " << s.columns << ", rows " << s.n_rows << ", tokens " << s.tokens);
  const std::int64_t blocks = s.columns / F::block_size;
  const auto rows = test::random_blocks<F>(static_cast<std::size_t>(s.n_rows * blocks), random);
  problem p{s.columns, s.n_rows, s.tokens, s.columns + 3, {}, {}};
  p.weights.resize(static_cast<std::size_t>(s.n_rows * s.columns));
  nibble::decode_row<F>(rows.data(), p.weights.size(), p.weights.data());
  p.x = random.normals(static_cast<std::size_t>(p.tokens * p.x_stride));
  const nibble::cpu::weight_rows w{rows.data(),
                                   static_cast<std::size_t>(blocks) * sizeof(typename F::block),
                                   s.n_rows, s.columns};
  const std::int64_t stride = s.n_rows + 1;
  std::vector<float> out(static_cast<std::size_t>(p.tokens * stride), -7.0f);
  const auto run = table.matmul_f32[nibble::index_of<F>];
  run(w, p.x.data(), p.x_stride, p.tokens, out.data(), stride);
  check(p, out, stride);
  for (std::int64_t t = 0; t < p.tokens; ++t) {
    // nothing is written beyond the rows
    REQUIRE(out[static_cast<std::size_t>(t * stride + s.n_rows)] == -7.0f);
    // tokens and rows by themselves give the same bits; of many, some
    const std::int64_t step = s.tokens > 8 ? 11 : 1;
    for (std::int64_t r = t % step; r < s.n_rows; r += step) {
      const nibble::cpu::weight_rows one{rows.data() + r * blocks, w.stride, 1, s.columns};
      float alone = 0;
      run(one, p.x.data() + t * p.x_stride, p.x_stride, 1, &alone, 1);
      REQUIRE(alone == out[static_cast<std::size_t>(t * stride + r)]);
    }
  }
}

}  // namespace

TEST_CASE("float products of every format agree with double on every instruction set") {
  std::vector<product_shape> shapes;
  for (const std::int64_t columns : {1, 33, 32, 100, 256, 1024, 1280, 4352}) {
    for (const std::int64_t n_rows : {1, 2, 5}) shapes.push_back({columns, n_rows, 5});
  }
  // more rows than a panel has, more tokens than a block, whole and odd tiles
  shapes.insert(shapes.end(), {{300, 21, 71}, {768, 21, 71}, {256, 9, 130}, {256, 16, 8}});
  int combinations = 0;
  test::for_each_isa([&](const kernel_table& table) {
    nibble::for_each_format([&]<typename F>(F) {
      INFO("format " << F::name);
      test::random_source random(23);
      for (const product_shape& s : shapes) {
        if (s.columns % F::block_size != 0) continue;
        check_product<F>(table, s, random);
        ++combinations;
      }
    });
  });
  std::cout << "matmul_f32: " << combinations << " combinations\n";
}
