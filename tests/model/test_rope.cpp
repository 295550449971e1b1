// The rotation of queries and keys against the papers' formulas, in double precision.
#include <cmath>
#include <complex>
#include <nibble/device/cpu.hpp>
#include <numbers>

#include "../device/fixture.hpp"
#include "catch.hpp"
#include "model/rope.hpp"

namespace {

using nibble::rope_scaling_kind;
using nibble::rope_style;

// theta_i = b^(-2i/d), i = 0 .. d/2 - 1. Su et al. 2021, arXiv:2104.09864, section 3.2.2.
double theta(double base, int n_rot, int pair) {
  return std::exp(-2.0 * pair / n_rot * std::log(base));
}

// The ramp of Peng et al. 2023, arXiv:2309.00071, equations 18 to 20, over rotations r = L / lambda
// that a pair makes in the original context: below alpha it is interpolated wholly, above beta not
// at all. The paper ramps over r; the implementations that it links to ramp over the pair's index
// between the floor and the ceiling of the indices where r is beta and alpha. So do all models.
double yarn_theta(double base, int n_rot, int pair, const nibble::rope_scaling& s) {
  const auto index_of_turns = [&](double turns) {
    // r(i) = L theta_i / 2 pi, solved for i
    return n_rot / 2.0 * std::log(s.original_context / (2 * std::numbers::pi * turns)) /
           std::log(base);
  };
  const double first = std::max(std::floor(index_of_turns(s.beta_fast)), 0.0);
  const double last = std::min(std::ceil(index_of_turns(s.beta_slow)), n_rot - 1.0);
  const double gamma = 1 - std::clamp((pair - first) / std::max(last - first, 0.001), 0.0, 1.0);
  const double t = theta(base, n_rot, pair);
  return (1 - gamma) * t / s.factor + gamma * t;
}

nibble::hparams rotating(int n_rot) {
  nibble::hparams hp;
  hp.key_length = 128;
  hp.n_rot = n_rot;
  return hp;
}

constexpr nibble::layer_hparams layer_with_base(double base) {
  nibble::layer_hparams layer;
  layer.rope_base = base;
  return layer;
}

void check(const nibble::rope_spec& found, const std::vector<double>& expected) {
  REQUIRE(found.frequencies.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(found.frequencies[i] - expected[i]) <= 1e-14 * expected[i]);
  }
}

bool close(double found, double expected, double tolerance = 1e-6) {
  return std::abs(found - expected) <= tolerance * std::max(1e-2, std::abs(expected));
}

template <typename F>
std::vector<double> for_pairs(int n_rot, F&& f) {
  std::vector<double> out;
  for (int pair = 0; pair < n_rot / 2; ++pair) out.push_back(f(pair));
  return out;
}

constexpr double bases[] = {10000, 500000, 1e6, 150000};

}  // namespace

TEST_CASE("frequencies are those of the RoPE paper, for whole and partial rotations") {
  for (const double base : bases) {
    for (const int n_rot : {2, 32, 50, 64, 128}) {
      CAPTURE(base, n_rot);
      const auto hp = rotating(n_rot);
      const auto found = nibble::make_rope(rope_style::neox, hp, layer_with_base(base), {});
      check(found, for_pairs(n_rot, [&](int i) { return theta(base, n_rot, i); }));
      CHECK(found.magnitude == 1);
    }
  }
  CHECK(nibble::make_rope(rope_style::none, rotating(64), {}, {}).frequencies.empty());
}

TEST_CASE("linear interpolation divides positions by the factor") {
  // Chen et al. 2023, arXiv:2306.15595, equation 4: f'(x, m) = f(x, m L / L')
  auto hp = rotating(64);
  hp.rope.kind = rope_scaling_kind::linear;
  hp.rope.factor = 8;
  auto layer = layer_with_base(1e6);
  const auto expected = for_pairs(64, [](int i) { return theta(1e6, 64, i) / 8; });
  check(nibble::make_rope(rope_style::neox, hp, layer, {}), expected);
  layer.rope_scaled = false;  // as Gemma's local layers
  check(nibble::make_rope(rope_style::neox, hp, layer, {}),
        for_pairs(64, [](int i) { return theta(1e6, 64, i); }));
}

TEST_CASE("YaRN interpolates slow pairs and leaves fast ones") {
  for (const double base : bases) {
    for (const double factor : {1.0, 4.0, 16.0, 40.0}) {
      for (const double context : {64.0, 4096.0, 32768.0}) {
        CAPTURE(base, factor, context);
        auto hp = rotating(64);
        hp.rope.kind = rope_scaling_kind::yarn;
        hp.rope.factor = factor;
        hp.rope.original_context = context;
        const auto found = nibble::make_rope(rope_style::norm, hp, layer_with_base(base), {});
        check(found, for_pairs(64, [&](int i) { return yarn_theta(base, 64, i, hp.rope); }));
        // sqrt(1 / t) = 0.1 ln(s) + 1, equation 22
        CHECK(close(static_cast<double>(found.magnitude), 0.1 * std::log(factor) + 1));
      }
    }
  }
}

TEST_CASE("YaRN at its borders: no pair is fast, all are, the ramp has no length") {
  auto hp = rotating(64);
  hp.rope = {.kind = rope_scaling_kind::yarn, .factor = 4, .original_context = 4096};
  const auto with_betas = [&](double fast, double slow) {
    hp.rope.beta_fast = fast;
    hp.rope.beta_slow = slow;
    const auto found = nibble::make_rope(rope_style::neox, hp, layer_with_base(10000), {});
    check(found, for_pairs(64, [&](int i) { return yarn_theta(10000, 64, i, hp.rope); }));
    return found.frequencies;
  };
  // a ramp that ends at pair 0, or begins after the last one
  CHECK(close(with_betas(1e6, 1e5)[1], theta(10000, 64, 1) / 4));
  CHECK(close(with_betas(1e-3, 1e-3)[31], theta(10000, 64, 31)));
  for (const double f : with_betas(16, 16)) CHECK(std::isfinite(f));
  for (const double f : with_betas(1, 32)) CHECK(std::isfinite(f));  // exchanged
}

TEST_CASE("YaRN's magnitude takes the file's factors") {
  auto hp = rotating(64);
  hp.rope = {.kind = rope_scaling_kind::yarn, .factor = 40, .original_context = 4096};
  const auto magnitude = [&] {
    const auto found = nibble::make_rope(rope_style::neox, hp, layer_with_base(10000), {});
    return static_cast<double>(found.magnitude);
  };
  const double whole = 0.1 * std::log(40.0) + 1;
  hp.rope.attention_factor = 0.5;
  CHECK(close(magnitude(), 0.5 * whole));
  hp.rope.attention_factor = 1;
  hp.rope.log_multiplier = 1;  // mscale / mscale_all_dim of DeepSeek's variant
  CHECK(close(magnitude(), 1.0));
  hp.rope.log_multiplier = 0.5;
  CHECK(close(magnitude(), whole / (0.05 * std::log(40.0) + 1)));
}

TEST_CASE("factors of a file divide each frequency, before any scaling") {
  std::vector<float> factors;
  for (int i = 0; i < 32; ++i) factors.push_back(1 + 0.25f * static_cast<float>(i));
  auto hp = rotating(64);
  const auto divided = [&](int i) {
    return theta(500000, 64, i) / static_cast<double>(factors[static_cast<std::size_t>(i)]);
  };
  check(nibble::make_rope(rope_style::norm, hp, layer_with_base(500000), factors),
        for_pairs(64, divided));
  hp.rope = {.kind = rope_scaling_kind::linear, .factor = 2};
  check(nibble::make_rope(rope_style::norm, hp, layer_with_base(500000), factors),
        for_pairs(64, [&](int i) { return divided(i) / 2; }));
}

// A rotation is seen through attention: with one value per token, equal keys and a query, the
// shares of the tokens tell q_m . k_n. The paper's equation 11 makes it Re(sum q k* exp(i (m - n)
// theta)).
TEST_CASE("attention sees the paper's product of rotated queries and keys, in both pairings") {
  constexpr int length = 12, tokens = 5;
  for (const auto style : {rope_style::norm, rope_style::neox}) {
    for (const int n_rot : {12, 8}) {  // all of the head, a part of it
      CAPTURE(style == rope_style::norm, n_rot);
      nibble::hparams hp;
      hp.key_length = length;
      hp.n_rot = n_rot;
      nibble::recording r;
      r.input = r.make(length);
      const auto copy = [&](test::weight_store& w) {
        const auto* m = w.f32(test::shape_of(length, length));
        return nibble::linear{m, nullptr, r.make(length)};
      };
      test::weight_store weights;
      const auto q = copy(weights), k = copy(weights);
      // the value of a token is one number, the third input
      const nibble::linear v{weights.f32(test::shape_of(length, 1)), nullptr, r.make(1)};
      r.emit(nibble::matmul_step{r.input, {}, {q, k, v}, false});
      nibble::attend_step a{q.out, k.out, v.out, r.make(1), 0, {}};
      a.spec.n_head = a.spec.n_head_kv = 1;
      a.spec.key_length = length;
      a.spec.value_length = 1;
      a.spec.scale = 0.3f;
      a.spec.rope = nibble::make_rope(style, hp, layer_with_base(100), {});
      r.emit(a);
      r.output = a.out;

      nibble::cpu_options options;
      options.threads = 1;
      options.activations = nibble::activation_type::float32;
      test::cache_shape layout;
      layout.layout.layers = {{1, length, 1}};
      layout.layout.key = layout.layout.value = nibble::kv_type::f32;
      layout.n_ctx = tokens;
      test::runner cpu(r, weights, options, {tokens, tokens}, layout);
      const auto input = test::random_rows(tokens, length);
      const auto found = cpu.run(test::plain_batch(tokens), input);

      const auto times = [&](const nibble::linear& l, int token) {
        std::vector<double> out;
        for (std::size_t row = 0; row < l.matrix->shape.extent[1]; ++row) {
          out.push_back(test::dot(test::weight_row(*l.matrix, row),
                                  input[static_cast<std::size_t>(token)].data()));
        }
        return out;
      };
      const auto score = [&](int m, int n) {
        const auto x = times(q, m), y = times(k, n);
        double sum = 0;
        for (int i = 0; i < n_rot / 2; ++i) {
          const bool neighbours = style == rope_style::norm;
          const auto one = static_cast<std::size_t>(neighbours ? 2 * i : i);
          const auto two = static_cast<std::size_t>(neighbours ? 2 * i + 1 : i + n_rot / 2);
          const std::complex<double> cq(x[one], x[two]), ck(y[one], y[two]);
          sum += (cq * std::conj(ck) * std::polar(1.0, (m - n) * theta(100, n_rot, i))).real();
        }
        for (auto i = static_cast<std::size_t>(n_rot); i < length; ++i) sum += x[i] * y[i];
        return 0.3 * sum;
      };
      for (int m = 0; m < tokens; ++m) {
        double weighted = 0, total = 0;
        for (int n = 0; n <= m; ++n) {
          const double share = std::exp(score(m, n) - score(m, m));
          weighted += share * times(v, n)[0];
          total += share;
        }
        CHECK(
            close(static_cast<double>(found[static_cast<std::size_t>(m)]), weighted / total, 1e-4));
      }
    }
  }
}
