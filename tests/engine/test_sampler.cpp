// The sampler against its definition in double precision, and its draws against closed forms.

#include "sampler_reference.hpp"

namespace {

using nibble::sampler;
using nibble::sampling_options;
using nibble::token;
using test::check_draws;
using test::compare;
using test::infinity;
using test::keep_all;
using test::not_a_number;
using test::random_logits;

// Ids alone, for cases whose answer can be seen.
std::vector<token> kept(std::vector<float> logits, const sampling_options& o) {
  compare(logits, o);
  std::vector<token> ids;
  sampler s(o);
  for (const auto& c : s.candidates(logits)) ids.push_back(c.id);
  return ids;
}

using ids = std::vector<token>;

}  // namespace

TEST_CASE("sampler: the tests' p-values are those of the tables") {
  // upper critical values, NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4
  struct row {
    double degrees, statistic, p;
  };
  const row table[] = {{1, 2.706, 0.1},   {1, 10.828, 0.001},    {2, 13.816, 0.001},
                       {3, 7.815, 0.05},  {3, 16.266, 0.001},    {7, 24.322, 0.001},
                       {10, 15.987, 0.1}, {100, 149.449, 0.001}, {100, 118.498, 0.1}};
  for (const auto& [degrees, statistic, p] : table) {
    INFO(degrees << " degrees of freedom, " << statistic);
    CHECK(std::abs(test::chi_squared_p(statistic, degrees) / p - 1) < 2e-3);
  }
  // with two degrees it is exp(-x / 2)
  for (const double x : {0.01, 1.0, 5.0, 60.0}) {
    CHECK(std::abs(test::chi_squared_p(x, 2) / std::exp(-x / 2) - 1) < 1e-12);
  }
  CHECK(test::chi_squared_p(0, 3) == 1);
}

TEST_CASE("sampler: draws follow the temperature") {
  // logits i * log 2, so at temperature T the probabilities are as 2^(i/T): 7 degrees of freedom
  std::vector<float> logits;
  for (int i = 0; i < 8; ++i) logits.push_back(static_cast<float>(i * std::log(2.0)));
  for (const double temperature : {0.5, 1.0, 2.0}) {
    auto o = keep_all();
    o.temperature = static_cast<float>(temperature);
    const double ratio = std::pow(2, 1 / temperature);
    const double sum = (std::pow(ratio, 8) - 1) / (ratio - 1);
    std::map<token, double> wanted;
    for (int i = 0; i < 8; ++i) wanted[i] = std::pow(ratio, i) / sum;
    for (const std::uint64_t seed : {1, 2, 3}) {
      INFO("temperature " << temperature << ", seed " << seed);
      o.seed = seed;
      check_draws(logits, o, wanted);
    }
  }
}

TEST_CASE("sampler: many equal tokens are drawn equally") {
  // 999 degrees of freedom
  const std::vector<float> logits(1000, 3.5f);
  std::map<token, double> wanted;
  for (token i = 0; i < 1000; ++i) wanted[i] = 1e-3;
  check_draws(logits, keep_all(), wanted, {}, 20'000);
}

TEST_CASE("sampler: draws after top_k, top_p and min_p") {
  // probabilities 16, 8, 4, 2, 1, 1 of 32
  std::vector<float> logits;
  for (const double p : {1.0, 16.0, 2.0, 8.0, 1.0, 4.0}) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  auto o = keep_all();
  SECTION("top_k: 3 degrees of freedom") {
    o.top_k = 4;
    check_draws(logits, o, {{1, 16.0 / 30}, {3, 8.0 / 30}, {5, 4.0 / 30}, {2, 2.0 / 30}});
  }
  SECTION("top_p: 24 of 32 are less than 0.8, 28 reach it: 2 degrees of freedom") {
    o.top_p = 0.8f;
    check_draws(logits, o, {{1, 16.0 / 28}, {3, 8.0 / 28}, {5, 4.0 / 28}});
  }
  SECTION("min_p: from a tenth of the best on: 3 degrees of freedom") {
    o.min_p = 0.1f;
    check_draws(logits, o, {{1, 16.0 / 30}, {3, 8.0 / 30}, {5, 4.0 / 30}, {2, 2.0 / 30}});
  }
  SECTION("the order: 3 of them (28), then up to 0.85 of those (24), then temperature 2") {
    o.top_k = 3;
    o.top_p = 0.85f;
    o.temperature = 2;
    const double a = 4, b = std::sqrt(8.0);
    check_draws(logits, o, {{1, a / (a + b)}, {3, b / (a + b)}});
  }
}

TEST_CASE("sampler: candidates against a double-precision reference") {
  for (const std::size_t n : {1u, 2u, 17u, 4096u}) {
    for (const float scale : {0.01f, 3.0f, 40.0f}) {
      const auto logits = random_logits(n, scale, static_cast<unsigned>(n));
      for (const float temperature : {0.0f, 1e-3f, 0.8f, 1.0f, 50.0f}) {
        for (const std::int32_t top_k : {0, 1, 5, 5000}) {
          for (const float top_p : {0.001f, 0.5f, 0.95f, 1.0f}) {
            for (const float min_p : {0.0f, 0.05f, 0.9f, 1.0f}) {
              INFO(n << " logits of scale " << scale << ", temperature " << temperature
                     << ", top_k " << top_k << ", top_p " << top_p << ", min_p " << min_p);
              compare(logits, {temperature, top_k, top_p, min_p, 1});
            }
          }
        }
      }
    }
  }
}

TEST_CASE("sampler: the order of top_p, min_p and temperature is seen in what is left") {
  // probabilities 0.5, 0.3, 0.15, 0.05
  std::vector<float> logits;
  for (const double p : {0.5, 0.3, 0.15, 0.05}) logits.push_back(static_cast<float>(std::log(p)));
  auto o = keep_all();
  // top_k first: of 0.5 and 0.3, the first has 0.625 and reaches 0.6; of all, it does not
  o.top_p = 0.6f;
  CHECK(kept(logits, o) == ids{0, 1});
  o.top_k = 2;
  CHECK(kept(logits, o) == ids{0});
  // temperature last: at temperature 100 all four would be nearly equal, and all be kept
  o = keep_all();
  o.temperature = 100;
  o.top_p = 0.7f;
  CHECK(kept(logits, o) == ids{0, 1});
  o.top_p = 1;
  o.min_p = 0.2f;
  CHECK(kept(logits, o) == ids{0, 1, 2});
}

TEST_CASE("sampler: ties, forbidden tokens, one token") {
  auto o = keep_all();
  SECTION("of equal ones the lower ids come first, and are kept first") {
    const std::vector<float> logits{1, 2, 2, 1, 2, 2};
    CHECK(kept(logits, o) == ids{1, 2, 4, 5, 0, 3});
    o.top_k = 3;
    CHECK(kept(logits, o) == ids{1, 2, 4});
    o.top_k = 5;
    CHECK(kept(logits, o) == ids{1, 2, 4, 5, 0});
    o.top_k = 4;
    o.top_p = 0.5f;
    CHECK(kept(logits, o) == ids{1, 2});
    o.top_p = 1;
    o.min_p = 1;
    CHECK(kept(logits, o) == ids{1, 2, 4, 5});
  }
  SECTION("temperature 0 takes the lower id, whatever else is asked for") {
    const std::vector<float> logits{1, 7, 7, 7};
    o.temperature = 0;
    for (const std::int32_t top_k : {0, 1, 3}) {
      o.top_k = top_k;
      o.top_p = 0.01f;
      CHECK(kept(logits, o) == ids{1});
      CHECK(sampler(o).sample(logits) == 1);
    }
  }
  SECTION("minus infinity, infinity and NaN are never drawn") {
    const std::vector<float> logits{-infinity, 1, not_a_number, 2, infinity, -infinity};
    CHECK(kept(logits, o) == ids{3, 1});
    o.temperature = 0;
    CHECK(kept(logits, o) == ids{3});
    o = keep_all();
    o.top_k = 100;
    CHECK(kept(logits, o) == ids{3, 1});
  }
  SECTION("one token") {
    for (const float x : {-3e38f, 0.0f, 3e38f}) CHECK(kept({x}, o) == ids{0});
    CHECK(kept({-infinity, 0, -infinity}, o) == ids{1});
  }
}

TEST_CASE("sampler: extreme temperatures and logits") {
  auto o = keep_all();
  SECTION("a very small temperature leaves the best, and those equal to it") {
    for (const float temperature : {1e-6f, 1e-30f, std::numeric_limits<float>::denorm_min()}) {
      o.temperature = temperature;
      CHECK(kept({1, 3, 2, 3}, o) == ids{1, 3});
    }
  }
  SECTION("a very large temperature makes all equal") {
    o.temperature = std::numeric_limits<float>::max();
    sampler s(o);
    const auto found = s.candidates(std::vector<float>{-50, 0, 50, 10});
    REQUIRE(found.size() == 4);
    for (const auto& c : found) CHECK(c.probability == 0.25f);
  }
  SECTION("huge logits") {
    constexpr float huge = std::numeric_limits<float>::max();
    CHECK(kept({huge, -huge, 0}, o) == ids{0});
    CHECK(kept({-huge, -huge}, o) == ids{0, 1});
    CHECK(kept({1e8f, 1e8f - 8, 1e8f - 16}, o) == ids{0, 1, 2});
  }
  SECTION("min_p is not rounded away beside large logits") {
    // floats are 2 apart there, and log(0.05) is -2.996: the second is within, the third is not
    o.min_p = 0.05f;
    CHECK(kept({30000000.0f, 29999998.0f, 29999996.0f}, o) == ids{0, 1});
    o.min_p = 0.3f;
    CHECK(kept({30000000.0f, 29999998.0f}, o) == ids{0});
  }
  SECTION("what has no probability is never drawn, even when rounding loses some of the sum") {
    std::vector<float> logits(3, 0.0f);
    logits.push_back(-1000);
    sampler s(o);
    const auto found = s.candidates(logits);
    CHECK(found.size() == 3);
  }
}

TEST_CASE("sampler: logits that are no numbers are an error") {
  const std::vector<float> cases[] = {{},
                                      {not_a_number},
                                      {not_a_number, not_a_number, not_a_number},
                                      {-infinity, -infinity},
                                      {not_a_number, -infinity, infinity}};
  for (const auto& logits : cases) {
    for (const float temperature : {0.0f, 1.0f}) {
      auto o = keep_all();
      o.temperature = temperature;
      sampler s(o);
      const auto e = test::thrown([&] { s.sample(logits); });
      test::check_error(e, nibble::errc::device, {"none of the logits is a number"});
      // the sampler goes on working
      CHECK(s.sample(std::vector<float>{-infinity, 0}) == 1);
    }
  }
}

TEST_CASE("sampler: invalid options are refused by name, value and what is right") {
  const auto refused = [](auto change, std::initializer_list<std::string_view> parts) {
    auto o = keep_all();
    change(o);
    const auto e = test::thrown([&] { sampler s(o); });
    test::check_error(e, nibble::errc::invalid_argument, parts);
  };
  refused([](auto& o) { o.temperature = -1; }, {"temperature", "-1", "0 or greater"});
  refused([](auto& o) { o.temperature = not_a_number; }, {"temperature", "nan", "finite"});
  refused([](auto& o) { o.temperature = infinity; }, {"temperature", "inf", "finite"});
  refused([](auto& o) { o.top_k = -7; }, {"top_k", "-7", "0 (all) or greater"});
  refused([](auto& o) { o.top_k = -123456789; }, {"top_k", "-123456789"});
  refused([](auto& o) { o.top_p = 0; }, {"top_p", " 0;", "greater than 0, at most 1"});
  refused([](auto& o) { o.top_p = 1.5f; }, {"top_p", "1.5"});
  refused([](auto& o) { o.top_p = not_a_number; }, {"top_p", "nan"});
  refused([](auto& o) { o.min_p = -0.5f; }, {"min_p", "-0.5", "between 0 and 1"});
  refused([](auto& o) { o.min_p = 1.25f; }, {"min_p", "1.25"});
  refused([](auto& o) { o.min_p = not_a_number; }, {"min_p", "nan"});
}

TEST_CASE("sampler: a seed fixes the draws") {
  const auto logits = random_logits(500, 1, 5);
  const auto draw = [&](std::optional<std::uint64_t> seed) {
    auto o = keep_all();
    o.seed = seed;
    sampler s(o);
    if (seed) CHECK(s.seed() == *seed);
    ids out;
    for (int i = 0; i < 50; ++i) out.push_back(s.sample(logits));
    return std::pair(s.seed(), out);
  };
  CHECK(draw(7).second == draw(7).second);
  CHECK(draw(7).second != draw(8).second);
  CHECK(draw(~std::uint64_t{0}).second == draw(~std::uint64_t{0}).second);
  // without a seed, the one that was chosen is told and gives the same draws
  const auto [seed, drawn] = draw({});
  CHECK(draw(seed).second == drawn);
  // candidates() makes no draw
  auto o = keep_all();
  o.seed = 7;
  sampler s(o);
  s.candidates(logits);
  CHECK(s.sample(logits) == draw(7).second.front());
}
