// Each stage of the sampler: its draws against closed forms, its candidates against the definition
// in double precision, alone and in any order with the others.

#include <numeric>

#include "sampler_reference.hpp"

namespace {

using nibble::sampler;
using nibble::sampling_options;
using nibble::sampling_stage;
using nibble::token;
using test::check_draws;
using test::compare;
using test::keep_all;
using test::logits_of;
using test::random_logits;

using ids = std::vector<token>;

ids kept(const std::vector<float>& logits, const sampling_options& o) {
  compare(logits, o);
  ids out;
  sampler s(o);
  for (const auto& c : s.candidates(logits)) out.push_back(c.id);
  return out;
}

// 32nds; the entropy is 1.9375 bits.
const std::vector<float> halves = logits_of({16, 8, 4, 2, 1, 1});

// p^power of these shares, summing to 1.
std::map<token, double> powers(const std::vector<double>& shares, double power) {
  double sum = 0;
  std::map<token, double> out;
  for (const double p : shares) sum += std::pow(p, power);
  for (std::size_t i = 0; i < shares.size(); ++i) {
    out[static_cast<token>(i)] = std::pow(shares[i], power) / sum;
  }
  return out;
}

// Options in which a random half of the stages does something.
sampling_options random_options(std::mt19937& random) {
  auto o = keep_all();
  const auto choose = [&](auto& option, auto... values) {
    if (random() % 2 == 0) return;
    const std::common_type_t<decltype(values)...> all[] = {values...};
    option = static_cast<std::remove_reference_t<decltype(option)>>(all[random() % std::size(all)]);
  };
  choose(o.temperature, 0.3f, 0.8f, 2.0f);
  choose(o.top_k, 1, 5, 40, 3000);
  choose(o.top_p, 0.1f, 0.6f, 0.95f, 0.9999f);
  choose(o.min_p, 0.01f, 0.05f, 0.5f);
  choose(o.typical, 0.2f, 0.7f, 0.95f);
  choose(o.top_n_sigma, 0.5f, 1.0f, 3.0f);
  choose(o.repeat_penalty, 0.7f, 1.1f, 2.0f);
  choose(o.presence_penalty, -0.5f, 0.5f, 2.0f);
  choose(o.frequency_penalty, -0.2f, 0.3f);
  choose(o.repeat_last_n, 0, 3, -1);
  choose(o.dry_multiplier, 0.8f, 2.0f);
  choose(o.dry_allowed_length, 1, 4);
  choose(o.dry_penalty_last_n, 0, 20);
  choose(o.xtc_probability, 1.0f);
  choose(o.xtc_threshold, 0.02f, 0.3f, 0.6f);
  choose(o.dynatemp_range, 0.2f, 1.0f);
  choose(o.dynatemp_exponent, 0.5f, 2.0f);
  o.dry_sequence_breakers.clear();
  return o;
}

std::string order_text(const sampling_options& o) {
  std::string text;
  for (const auto stage : o.order) text += std::string(to_text(stage)) + ' ';
  return text;
}

}  // namespace

TEST_CASE("sampler: typical keeps what is nearly as surprising as the entropy says") {
  // |surprise - 1.9375 bits|: 0.9375, 0.0625, 1.0625, 2.0625, 3.0625, 3.0625
  auto o = keep_all();
  o.typical = 0.2f;
  CHECK(kept(halves, o) == ids{1});
  o.typical = 0.7f;
  CHECK(kept(halves, o) == ids{0, 1});
  check_draws(halves, o, {{0, 16.0 / 24}, {1, 8.0 / 24}});
  o.typical = 0.8f;
  check_draws(halves, o, {{0, 16.0 / 28}, {1, 8.0 / 28}, {2, 4.0 / 28}});
  o.typical = 0.95f;
  CHECK(kept(halves, o) == ids{0, 1, 2, 3, 4});  // of the equal two, the first
  o.typical = 0.9999f;
  CHECK(kept(halves, o) == ids{0, 1, 2, 3, 4, 5});
}

TEST_CASE("sampler: top_n_sigma measures from the best, by the deviation of all") {
  // mean 2, variance (4 + 1 + 1 + 0 + 4) / 5 = 2
  const std::vector<float> logits{4, 3, 1, 2, 0};
  auto o = keep_all();
  const auto with = [&](float n) {
    o.top_n_sigma = n;
    return kept(logits, o);
  };
  CHECK(with(0.5f) == ids{0});
  CHECK(with(0.75f) == ids{0, 1});
  CHECK(with(1.5f) == ids{0, 1, 3});
  CHECK(with(3) == ids{0, 1, 3, 2, 4});
  CHECK(with(1e30f).size() == 5);
  o.top_n_sigma = 1.5f;
  const double a = std::exp(-1), b = std::exp(-2), sum = 1 + a + b;
  check_draws(logits, o, {{0, 1 / sum}, {1, a / sum}, {3, b / sum}});
  // what cannot be drawn does not count
  CHECK(kept({4, 3, -test::infinity, 1, test::not_a_number, 2, 0}, o) == ids{0, 1, 5});
  CHECK(kept({7, 7, 7}, o) == ids{0, 1, 2});
}

TEST_CASE("sampler: XTC drops the most probable but for the last that is probable enough") {
  auto o = keep_all();
  o.xtc_probability = 1;
  o.xtc_threshold = 0.1f;  // 16, 8 and 4 of 32 reach it
  CHECK(kept(halves, o) == ids{2, 3, 4, 5});
  check_draws(halves, o, {{2, 4.0 / 8}, {3, 2.0 / 8}, {4, 1.0 / 8}, {5, 1.0 / 8}});
  SECTION("it acts by chance") {
    o.xtc_probability = 0.25f;
    const double on = 0.25 / 8, off = 0.75 / 32;
    check_draws(halves, o,
                {{0, 16 * off},
                 {1, 8 * off},
                 {2, 4 * (on + off)},
                 {3, 2 * (on + off)},
                 {4, on + off},
                 {5, on + off}});
  }
  SECTION("one or none that reaches the threshold: nothing happens") {
    o.xtc_threshold = 0.4f;
    CHECK(kept(halves, o).size() == 6);
    o.xtc_threshold = 0.500001f;  // off
    CHECK(kept(halves, o).size() == 6);
  }
  SECTION("of equal ones the last id stays") {
    CHECK(kept({1, 1, 1, 1}, o) == ids{3});
    o.xtc_threshold = 0;
    CHECK(kept({3, 1, 2, 1}, o) == ids{3});
  }
  SECTION("candidates() foretells what sample() draws from") {
    o.xtc_probability = 0.5f;
    sampler s(o);
    int excluded = 0;
    for (int i = 0; i < 200; ++i) {
      ids allowed;
      for (const auto& c : s.candidates(halves)) allowed.push_back(c.id);
      excluded += allowed.size() == 4;
      const token drawn = s.sample(halves);
      REQUIRE(std::count(allowed.begin(), allowed.end(), drawn) == 1);
    }
    CHECK(excluded > 60);
    CHECK(excluded < 140);
  }
}

TEST_CASE("sampler: dynamic temperature follows the entropy") {
  // entropy 1.75 bits of 2
  const std::vector<double> shares{4, 2, 1, 1};
  const auto logits = logits_of({4, 2, 1, 1});
  auto o = keep_all();
  o.temperature = 1.5f;
  o.dynatemp_range = 1;
  check_draws(logits, o, powers(shares, 1 / (0.5 + 2 * 0.875)));
  o.dynatemp_exponent = 3;
  check_draws(logits, o, powers(shares, 1 / (0.5 + 2 * std::pow(0.875, 3))));
  // the range ends at 0: here from 0 to 2.5
  o.temperature = 1;
  o.dynatemp_range = 1.5f;
  check_draws(logits, o, powers(shares, 1 / (2.5 * std::pow(0.875, 3))));
  // without any entropy the temperature is 0; a single token needs none
  CHECK(kept({100, 0, 0}, o) == ids{0});
  CHECK(kept({5}, o) == ids{0});
  // temperature 0 is no greedy choice if it is the middle of a range
  o.temperature = 0;
  CHECK(kept(logits, o).size() == 4);
}

TEST_CASE("sampler: Mirostat leaves out what is too surprising, and learns") {
  auto o = keep_all();
  o.mirostat = 2;
  // surprises 1, 2, 3, 4, 5, 5 bits
  SECTION("a limit that stays: twice tau") {
    o.mirostat_eta = 0;
    o.mirostat_tau = 1.75f;
    check_draws(halves, o, {{0, 16.0 / 28}, {1, 8.0 / 28}, {2, 4.0 / 28}});
    o.mirostat_tau = 0;  // not even the best is within: it stays alone
    sampler s(o);
    const auto left = s.candidates(std::vector<float>{0, 1, 1});
    REQUIRE(left.size() == 1);
    CHECK(left[0].id == 1);
  }
  SECTION("the limit moves by eta times the error of each surprise") {
    o.mirostat_tau = 1.2f;
    o.mirostat_eta = 0.3f;
    sampler s(o);
    double limit = 2 * static_cast<double>(o.mirostat_tau);
    const std::vector<double> shares{16, 8, 4, 2, 1, 1};
    double surprises = 0;
    constexpr int draws = 2000;
    for (int i = 0; i < draws; ++i) {
      double sum = 0;
      std::size_t n = 0;
      while (n < shares.size() && std::log2(32 / shares[n]) <= limit) sum += shares[n++];
      if (n == 0) sum = shares[n++];
      REQUIRE(s.candidates(halves).size() == n);
      const auto drawn = static_cast<std::size_t>(s.sample(halves));
      REQUIRE(drawn < n);
      const double surprise = std::log2(sum / shares[drawn]);
      surprises += surprise;
      limit -=
          static_cast<double>(o.mirostat_eta) * (surprise - static_cast<double>(o.mirostat_tau));
    }
    CHECK(std::abs(surprises / draws - 1.2) < 0.02);  // what Mirostat is for
  }
  SECTION("other stages that drop tokens do not act; temperature and penalties do") {
    o.mirostat_eta = 0;
    o.mirostat_tau = 10;
    o.top_k = 1;
    o.top_p = 0.1f;
    o.min_p = 1;
    o.typical = 0.1f;
    o.top_n_sigma = 0.1f;
    o.xtc_probability = 1;
    sampler s(o);
    CHECK(s.candidates(halves).size() == 6);
    o.temperature = 2;
    o.presence_penalty = static_cast<float>(std::log(4));
    check_draws(halves, o, powers({4, 8, 4, 2, 1, 1}, 0.5), ids{0});
    o.temperature = 0;
    sampler greedy(o);
    CHECK(greedy.sample(halves, ids{0}) == 1);
  }
}

TEST_CASE("sampler: a bias is added before all else, and minus infinity forbids") {
  auto o = keep_all();
  const float twice = static_cast<float>(std::log(2));
  o.logit_bias = {{1, twice}, {3, -test::infinity}, {5, -twice}};
  check_draws(halves, o,
              {{0, 16 / 37.5}, {1, 16 / 37.5}, {2, 4 / 37.5}, {4, 1 / 37.5}, {5, 0.5 / 37.5}});
  o.top_k = 1;
  CHECK(kept(halves, o) == ids{0});
  o.logit_bias = {{4, 100}};
  CHECK(kept(halves, o) == ids{4});
  o.temperature = 0;
  CHECK(kept(halves, o) == ids{4});
  // what the model forbids, no bias allows
  CHECK(kept({1, 2, 0, 0, -test::infinity}, o) == ids{1});
}

TEST_CASE("sampler: the order of stages is seen in what is left") {
  auto o = keep_all();
  o.top_k = 2;
  o.top_p = 0.6f;
  o.order = {sampling_stage::top_k, sampling_stage::top_p};
  CHECK(kept(halves, o) == ids{0});  // 16 of 24 reach 0.6
  o.order = {sampling_stage::top_p, sampling_stage::top_k};
  CHECK(kept(halves, o) == ids{0, 1});  // 16 of 32 do not
  o.top_k = 0;
  o.temperature = 4;
  o.order = {sampling_stage::temperature, sampling_stage::top_p};
  CHECK(kept(halves, o).size() == 3);
  o.order = {sampling_stage::top_p};  // and no temperature
  check_draws(halves, o, {{0, 16.0 / 24}, {1, 8.0 / 24}});
  o.order.clear();
  CHECK(kept(halves, o).size() == 6);
  // penalties of logits that were divided already
  o = keep_all();
  o.temperature = 0.5f;
  o.presence_penalty = 1;
  o.order = {sampling_stage::temperature, sampling_stage::penalties};
  const double least = std::exp(-1), sum = 1 + 4 * least;
  check_draws(std::vector<float>{0, static_cast<float>(std::log(2))}, o,
              {{0, 1 / sum}, {1, 4 * least / sum}}, ids{1});
}

TEST_CASE("sampler: any options in any order agree with the definition") {
  std::mt19937 random(11);
  for (int round = 0; round < 600; ++round) {
    auto o = random_options(random);
    if (round % 3 != 0) std::shuffle(o.order.begin(), o.order.end(), random);
    if (round % 6 == 5) o.order.resize(random() % (o.order.size() + 1));
    const std::size_t n = std::array{1u, 3u, 70u, 1500u, 5000u}[random() % 5];
    const auto logits =
        random_logits(n, round % 2 == 0 ? 1.0f : 4.0f, static_cast<unsigned>(random()));
    ids history(random() % 60);
    for (token& id : history) id = static_cast<token>(random() % std::min<std::size_t>(n, 4));
    INFO("round " << round << ": " << n << " logits, " << order_text(o));
    compare(logits, o, history, 60);
  }
}

TEST_CASE("sampler: large vocabularies are drawn from without sorting them, equally well") {
  // probabilities 1, 2, 3 by turns
  std::vector<float> logits;
  for (int i = 0; i < 1500; ++i) logits.push_back(static_cast<float>(std::log(1 + i % 3)));
  auto o = keep_all();
  std::map<int, double> wanted{{0, 1 / 6.0}, {1, 2 / 6.0}, {2, 3 / 6.0}};
  const auto check = [&](int classes, const auto& class_of) {
    sampler s(o);
    std::map<int, int> counts;
    for (int i = 0; i < 5000; ++i) ++counts[class_of(s.sample(logits))];
    INFO(classes << " classes");
    CHECK(test::p_of_counts(counts, wanted) > 1e-4);
  };
  SECTION("by probability") {
    check(3, [](token id) { return id % 3; });
  }
  SECTION("within one probability all ids are alike") {
    wanted.clear();
    for (int i = 0; i < 10; ++i) wanted[i] = 0.1;
    check(10, [](token id) { return id / 150; });
  }
  SECTION("after a stage has made a list of them") {
    o.min_p = 0.5f;  // 1 of 3 has too little
    wanted = {{1, 0.4}, {2, 0.6}};
    check(2, [](token id) { return id % 3; });
  }
  SECTION("with a temperature") {
    o.temperature = 0.5f;
    wanted = {{0, 1 / 14.0}, {1, 4 / 14.0}, {2, 9 / 14.0}};
    check(3, [](token id) { return id % 3; });
  }
  SECTION("if all others have no probability at all, no number is drawn") {
    logits[1234] = 500;
    sampler s(o), other(o);
    CHECK(s.sample(logits) == 1234);
    const std::vector<float> few{0, 0, 0, 0};
    for (int i = 0; i < 50; ++i) CHECK(s.sample(few) == other.sample(few));
  }
}

TEST_CASE("sampler: a copy draws what the original would have drawn") {
  auto o = keep_all();
  o.mirostat = 2;
  o.mirostat_tau = 2;
  const auto logits = random_logits(300, 3, 5);
  sampler s(o);
  for (int i = 0; i < 20; ++i) s.sample(logits);
  sampler copy(s), assigned(keep_all());
  assigned = s;
  sampler moved(std::move(copy));
  for (int i = 0; i < 50; ++i) {
    const token id = s.sample(logits);
    REQUIRE(moved.sample(logits) == id);
    REQUIRE(assigned.sample(logits) == id);
  }
  CHECK(moved.seed() == 1);
  CHECK(moved.options().mirostat == 2);
}
