// The sums behind nibble-perplexity: closed forms, and the plainest computation in long double.

#include "../../examples/perplexity_statistics.hpp"

#include <cmath>
#include <nibble/base/error.hpp>
#include <random>
#include <vector>

#include "errors.hpp"

namespace {

using perplexity::compare;
using perplexity::nats_of;
using floats = std::vector<float>;

// The probability of token i, from the definition.
long double probability(const floats& logits, std::size_t i) {
  long double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<long double>(x));
  return std::exp(static_cast<long double>(logits[i])) / sum;
}

floats random_logits(std::mt19937& random, std::size_t n, float spread) {
  std::normal_distribution<float> normal(0, spread);
  floats out(n);
  for (float& x : out) x = normal(random);
  return out;
}

bool near(double a, double b, double relative = 1e-12) {
  return std::abs(a - b) <= relative * std::max(std::abs(a), std::abs(b));
}

}  // namespace

TEST_CASE("perplexity: nats of known distributions") {
  CHECK(near(nats_of(floats(1000, 0.0f), 7), std::log(1000.0)));
  CHECK(near(nats_of(floats(1000, 30000.0f), 7), std::log(1000.0)));  // exp(30000) overflows
  // odds of 1 : 3
  const floats odds{0, std::log(3.0f)};
  CHECK(near(nats_of(odds, 0), std::log(4.0), 1e-7));
  CHECK(near(nats_of(odds, 1), std::log(4.0 / 3), 1e-6));
  // what is as good as sure costs exp(-50), what is as good as impossible 50
  const floats sure{25, -25};
  CHECK(near(nats_of(sure, 1), 50));
  CHECK(nats_of(sure, 0) < 1e-20);
}

TEST_CASE("perplexity: Kullback and Leibler's divergence of known distributions") {
  // p = (1/2, 1/2), q = (1/4, 3/4): ln 2 - ln(3) / 2
  const floats p{0, 0}, q{0, std::log(3.0f)};
  const auto at = compare(q, p, 1);
  CHECK(near(at.divergence, std::log(2.0) - std::log(3.0) / 2, 1e-6));
  CHECK(near(at.reference_nats, std::log(2.0)));
  CHECK(near(at.nats, std::log(4.0 / 3), 1e-6));
  CHECK(!at.same_top);  // at a tie the lower token is the top
  // the other way round it is another number
  CHECK(near(compare(p, q, 1).divergence, 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-6));
  // Gaussian-like tails: no term may vanish into 0 * infinity
  const floats far{0, -2000}, flat{0, 0};
  CHECK(compare(flat, far, 0).divergence > 0.69);
  CHECK(near(compare(far, flat, 0).divergence, 1000 - std::log(2.0)));
}

TEST_CASE("perplexity: equal distributions do not diverge, whatever their offset") {
  std::mt19937 random(1);
  floats a = random_logits(random, 5000, 4);
  CHECK(compare(a, a, 3).divergence == 0);
  CHECK(compare(a, a, 3).same_top);
  for (float& x : a) x = std::round(x * 64) / 64;  // so that the shift rounds nothing
  floats shifted = a;
  for (float& x : shifted) x += 1000;
  CHECK(compare(shifted, a, 3).divergence < 1e-11);
  CHECK(near(compare(shifted, a, 3).nats, compare(shifted, a, 3).reference_nats));
}

TEST_CASE("perplexity: random distributions, beside the definition") {
  std::mt19937 random(2);
  for (const std::size_t n : {2u, 3u, 50u, 400u}) {
    for (const float spread : {0.01f, 1.0f, 6.0f}) {
      const floats p = random_logits(random, n, spread);
      floats q = p;
      for (float& x : q) x += random_logits(random, 1, spread / 4)[0];
      long double expected = 0;
      for (std::size_t i = 0; i < n; ++i) {
        expected += probability(p, i) * std::log(probability(p, i) / probability(q, i));
      }
      const auto at = compare(q, p, 1);
      INFO(n << " tokens, spread " << spread << ", expected " << static_cast<double>(expected));
      CHECK(std::abs(at.divergence - static_cast<double>(expected)) < 1e-13);
      CHECK(near(at.nats, static_cast<double>(-std::log(probability(q, 1)))));
      CHECK(near(at.nats, nats_of(q, 1)));
      CHECK(near(at.reference_nats, nats_of(p, 1)));
    }
  }
}

TEST_CASE("perplexity: logits that are no numbers are refused") {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    const floats good{1, 2, 3}, one{1, bad, 3};
    const auto refused = [](const nibble::error& e) {
      test::check_error(e, nibble::errc::device, {"token 1", "no finite number"});
    };
    refused(test::thrown([&] { nats_of(one, 0); }));
    refused(test::thrown([&] { compare(one, good, 0); }));
    refused(test::thrown([&] { compare(good, one, 0); }));
  }
}

TEST_CASE("perplexity: a mean and its standard error") {
  perplexity::running_mean m;
  CHECK(m.count() == 0);
  m.add(1e9 + 1);
  CHECK(m.mean() == 1e9 + 1);
  CHECK(std::isnan(m.standard_error()));
  for (const double x : {2, 3, 4}) m.add(1e9 + x);
  CHECK(m.count() == 4);
  CHECK(near(m.mean(), 1e9 + 2.5, 1e-15));
  // variance of 1, 2, 3, 4: 5/3; the great common part takes nothing away
  CHECK(near(m.standard_error(), std::sqrt(5.0 / 3 / 4)));

  perplexity::prediction text;
  CHECK(std::isnan(text.bits_per_byte()));
  text.add(std::log(2.0), 1);
  text.add(std::log(8.0), 3);
  CHECK(text.tokens() == 2);
  CHECK(near(text.perplexity(), 4));
  CHECK(near(text.bits_per_byte(), 1));  // 4 bits, 4 bytes
  CHECK(near(text.nats_error(), std::log(2.0)));
  CHECK(near(text.perplexity_error(), 4 * std::log(2.0)));
}

TEST_CASE("perplexity: quantiles lie between the values") {
  const std::vector<double> values{0, 1, 2, 10};
  CHECK(perplexity::quantile(values, 0) == 0);
  CHECK(perplexity::quantile(values, 1) == 10);
  CHECK(near(perplexity::quantile(values, 0.5), 1.5));
  CHECK(near(perplexity::quantile(values, 0.9), 2 + 0.7 * 8));
  CHECK(perplexity::quantile(std::vector<double>{4}, 0.5) == 4);
  CHECK(std::isnan(perplexity::quantile({}, 0.5)));
}

TEST_CASE("perplexity: a comparison adds up") {
  perplexity::comparison sum;
  // probabilities 1/2 against 1/4, then 1/8 against 1/2
  sum.add({std::log(2.0), std::log(4.0), 0.5, true});
  sum.add({std::log(8.0), std::log(2.0), 0.25, false});
  CHECK(near(sum.divergence().mean(), 0.375));
  CHECK(near(sum.divergence().standard_error(), 0.125));
  const double shares[] = {1, 0, 0.5};
  CHECK(sum.divergence_quantiles(shares) == std::vector<double>{0.5, 0.25, 0.375});
  CHECK(sum.same_top().mean() == 0.5);
  CHECK(near(sum.difference().mean(), (0.25 - 0.375) / 2));
  CHECK(near(sum.difference_rms(), std::sqrt((0.0625 + 0.140625) / 2)));
  // nats: ln 2 less, then ln 4 more
  CHECK(near(sum.ratio(), std::sqrt(2.0)));
  CHECK(near(sum.ratio_error(), std::sqrt(2.0) * 1.5 * std::log(2.0)));
}
