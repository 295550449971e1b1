#include <bit>
#include <nibble/formats/dot.hpp>

#include "references.hpp"

using nibble::cpu::kernel_table;
using test::make_tokens;
using test::tokens_q8;

namespace {

template <typename F>
std::vector<float> run(const kernel_table& table, const std::vector<typename F::block>& rows,
                       std::int64_t first, std::int64_t count, const tokens_q8& x,
                       std::int64_t token, std::int64_t tokens) {
  const std::int64_t blocks = x.columns / F::block_size;
  const nibble::cpu::weight_rows w{rows.data() + first * blocks,
                                   static_cast<std::size_t>(blocks) * sizeof(typename F::block),
                                   count, x.columns};
  return test::multiply_q8(table, nibble::index_of<F>, w, x.from(token), tokens);
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
      const auto expected = test::dot_q8<F>(rows.data() + r * blocks, x, t);
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
            23, columns, [&](auto) { return random.in(-127, 127); }, 0.01f);
        for (const std::int64_t n_rows : {1, 7, 20, 48}) {
          const auto rows = test::random_blocks<F>(
              static_cast<std::size_t>(n_rows * columns / F::block_size), random);
          for (const std::int64_t tokens : {1, 2, 3, 5, 8, 9, 14, 23}) {
            if (columns > 1024 && tokens % 9 != 5) continue;
            check<F>(table, rows, n_rows, x, tokens);
          }
        }
      }
    });
  });
  std::cout << "matmul_q8: " << combinations << " combinations\n";
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
