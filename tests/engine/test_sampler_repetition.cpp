// Penalties and DRY: what they subtract, how far they look back, what breaks a repetition, and that
// hostile texts cost no more than others.

#include <chrono>

#include "sampler_reference.hpp"

namespace {

using nibble::sampler;
using nibble::sampling_options;
using nibble::token;
using test::check_draws;
using test::compare;
using test::keep_all;
using test::logits_of;

using ids = std::vector<token>;

// What these options subtract from each of `count` equal logits of 0, as the probabilities tell.
std::vector<double> penalties(const sampling_options& o, const ids& history, std::size_t count,
                              const nibble::tokenizer* texts = nullptr) {
  sampler s(o, texts);
  const std::vector<float> logits(count, 0.0f);
  std::vector<double> out(count, 0.0);
  double most = 0;
  const auto found = s.candidates(logits, history);
  for (const auto& c : found) most = std::max(most, static_cast<double>(c.probability));
  for (const auto& c : found) {
    out[static_cast<std::size_t>(c.id)] = std::log(most / c.probability);
  }
  return out;
}

bool near(double a, double b) {
  return std::abs(a - b) <= 1e-5 * (1 + std::abs(b));
}

sampling_options dry_only() {
  auto o = keep_all();
  o.dry_multiplier = 0.5f;
  o.dry_base = 2;
  o.dry_sequence_breakers.clear();
  return o;
}

ids encode(const nibble::tokenizer& texts, std::string_view text) {
  return texts.encode(text, {.add_special = false});
}

}  // namespace

TEST_CASE("sampler: penalties as they are defined") {
  const auto logits = logits_of({8, 4, 2, 0.5, 0.25});
  const ids history{3, 0, 0, 1, 0, 3};
  auto o = keep_all();
  SECTION("the repeat penalty divides positive logits and multiplies others") {
    o.repeat_penalty = 2;
    const double a = std::sqrt(8), b = 2, c = 2, d = 0.25, e = 0.25, sum = a + b + c + d + e;
    check_draws(logits, o, {{0, a / sum}, {1, b / sum}, {2, c / sum}, {3, d / sum}, {4, e / sum}},
                history);
  }
  SECTION("presence counts once, frequency each time") {
    o.presence_penalty = static_cast<float>(std::log(2));
    check_draws(logits, o,
                {{0, 4 / 8.5}, {1, 2 / 8.5}, {2, 2 / 8.5}, {3, 0.25 / 8.5}, {4, 0.25 / 8.5}},
                history);
    o.presence_penalty = 0;
    o.frequency_penalty = static_cast<float>(std::log(2));
    check_draws(
        logits, o,
        {{0, 1 / 5.375}, {1, 2 / 5.375}, {2, 2 / 5.375}, {3, 0.125 / 5.375}, {4, 0.25 / 5.375}},
        history);
  }
  SECTION("only the last ones count") {
    o.frequency_penalty = 1;
    o.repeat_last_n = 3;
    CHECK(penalties(o, history, 4)[2] == 0);
    const auto found = penalties(o, history, 4);
    CHECK(near(found[0], 1));
    CHECK(near(found[1], 1));
    CHECK(near(found[3], 1));
    o.repeat_last_n = -1;
    CHECK(near(penalties(o, history, 4)[0], 3));
    o.repeat_last_n = 0;
    CHECK(penalties(o, history, 4) == std::vector<double>(4, 0.0));
    o.repeat_last_n = 1 << 30;
    CHECK(near(penalties(o, history, 4)[0], 3));
  }
  SECTION("below none they encourage") {
    o.presence_penalty = -1;
    CHECK(near(penalties(o, {2}, 4)[0], 1));
    CHECK(penalties(o, {2}, 4)[2] == 0);
  }
  SECTION("huge ones leave what they do not meet, or all as before") {
    for (const float huge : {1e30f, std::numeric_limits<float>::max()}) {
      o = keep_all();
      o.repeat_penalty = huge;
      o.presence_penalty = o.frequency_penalty = huge;
      sampler s(o);
      CHECK(s.candidates(logits, history).size() == 2);
      const ids all{0, 1, 2, 3, 4};
      CHECK(s.candidates(logits, all).size() >= 1);
      CHECK(s.sample(std::vector<float>{-5}, ids{0, 0}) == 0);
      o.repeat_penalty = 1 / huge;
      o.presence_penalty = o.frequency_penalty = -huge;
      sampler encouraging(o);
      CHECK(encouraging.sample(logits, history) < 4);
    }
  }
}

TEST_CASE("sampler: DRY's penalty grows with the length of what is repeated") {
  auto o = dry_only();
  // 4 would repeat "1 2 3 4", 5 "3 5"
  const ids history{1, 2, 3, 4, 3, 5, 1, 2, 3};
  auto found = penalties(o, history, 8);
  for (const token id : {0, 1, 2, 3, 5, 6, 7}) CHECK(found[static_cast<std::size_t>(id)] == 0);
  CHECK(near(found[4], 0.5 * 2));  // three tokens, two are allowed
  o.dry_allowed_length = 1;
  found = penalties(o, history, 8);
  CHECK(near(found[4], 0.5 * 4));
  CHECK(near(found[5], 0.5));
  o.dry_allowed_length = 4;
  CHECK(penalties(o, history, 8) == std::vector<double>(8, 0.0));
  SECTION("the window") {
    o.dry_allowed_length = 2;
    o.dry_penalty_last_n = 8;  // 1 is out of it: "2 3 4" is left
    CHECK(near(penalties(o, history, 8)[4], 0.5));
    o.dry_penalty_last_n = 6;
    CHECK(penalties(o, history, 8) == std::vector<double>(8, 0.0));
    o.dry_penalty_last_n = 0;
    CHECK(penalties(o, history, 8) == std::vector<double>(8, 0.0));
  }
  SECTION("draws") {
    o.dry_allowed_length = 2;
    const double e = std::exp(-1), sum = 7 + e;
    std::map<token, double> wanted;
    for (token id = 0; id < 8; ++id) wanted[id] = (id == 4 ? e : 1) / sum;
    check_draws(std::vector<float>(8, 1.5f), o, wanted, history);
  }
  SECTION("no history, or too little of it") {
    o.dry_allowed_length = 1;
    for (const ids& few : {ids{}, ids{3}, ids{3, 4}}) {
      CHECK(penalties(o, few, 8) == std::vector<double>(8, 0.0));
    }
    CHECK(near(penalties(o, {3, 3}, 8)[3], 0.5));
  }
}

TEST_CASE("sampler: DRY finds what a comparison of all places finds") {
  std::mt19937 random(3);
  for (int round = 0; round < 400; ++round) {
    auto o = dry_only();
    o.dry_base = 1.2f;
    o.dry_allowed_length = 1 + static_cast<std::int32_t>(random() % 3);
    if (round % 4 == 0) o.dry_penalty_last_n = static_cast<std::int32_t>(random() % 50);
    const std::size_t letters = 1 + random() % 4;
    ids history(random() % 80);
    for (token& id : history) id = static_cast<token>(random() % letters);
    // some with a long period
    if (round % 3 == 0 && history.size() > 20) {
      for (std::size_t i = 13; i < history.size(); ++i) history[i] = history[i - 13];
    }
    INFO("round " << round);
    compare(std::vector<float>{0.5f, 1, 0.25f, 0, 0.75f}, o, history, 2000);
  }
}

TEST_CASE("sampler: nothing that DRY penalises reaches across a breaker") {
  const nibble::gguf::file file(test::tales);
  const nibble::tokenizer texts(file);
  const auto count = static_cast<std::size_t>(texts.size());
  auto o = keep_all();
  o.dry_multiplier = 1;
  o.dry_base = 2;
  const auto penalty = [&](std::string_view text, std::string_view next, const auto& breakers) {
    o.dry_sequence_breakers = breakers;
    const auto found = penalties(o, encode(texts, text), count, &texts);
    return found[static_cast<std::size_t>(encode(texts, next).front())];
  };
  using texts_list = std::vector<std::string>;
  const texts_list none, usual = sampling_options{}.dry_sequence_breakers;
  const std::string said = "the cat sat on the mat\nthe dog ran and the cat sat on the mat";
  const std::size_t length = encode(texts, " the cat sat on the mat").size();
  const double free = penalty(said, "\n", none);
  CHECK(free > std::pow(2, static_cast<double>(length) - 4));
  CHECK(penalty(said, "\n", usual) == 0);  // a breaker itself is never penalised
  // " sat" ends in the way: less is repeated
  const double less = penalty(said, "\n", texts_list{" sat"});
  CHECK(less > 0);
  CHECK(less < free);
  CHECK(near(penalty(said, "\n", texts_list{"never there"}), free));
  // one that lies across several tokens, wherever its parts end
  CHECK(near(penalty(said, "\n", texts_list{"cat sat"}), less));
  CHECK(near(penalty(said, "\n", texts_list{"dog ran and the cat sat"}), less));
  CHECK(near(penalty(said, "\n", texts_list{"dog ran", "cat sat", "the cat"}), less));
  CHECK(penalty(said, "\n", texts_list{"on the mat"}) == 0);
  // a newline between: the window before it is not looked at
  CHECK(penalty(said + "\n", "the", usual) == 0);
  CHECK(penalty(said + "\n", "the", none) > 0);
}

TEST_CASE("sampler: DRY with a repetition of any length has a finite penalty") {
  auto o = dry_only();
  const ids same(5000, 1);
  for (const float base : {1.0f, 1.0001f, 1.75f, 1e30f}) {
    for (const float multiplier : {1e-30f, 0.8f, 1e30f}) {
      o.dry_base = base;
      o.dry_multiplier = multiplier;
      sampler s(o);
      INFO("base " << base << ", multiplier " << multiplier);
      CHECK(s.sample(std::vector<float>{-3e38f, 3e38f}, same) < 2);
      CHECK(s.sample(std::vector<float>{-test::infinity, 0}, same) == 1);
    }
  }
  o.dry_base = 1;
  o.dry_multiplier = 2;
  CHECK(near(penalties(o, same, 3)[1], 2));
}

TEST_CASE("sampler: DRY's time grows linearly with a hostile history") {
  const auto texts = std::optional<nibble::tokenizer>(nibble::gguf::file(test::tales));
  const std::vector<float> logits(2048, 0.0f);
  const auto seconds = [&](std::size_t size, std::size_t period, bool breakers) {
    auto o = dry_only();
    if (breakers) o.dry_sequence_breakers = {"never there", "a b c d e f"};
    ids history(size);
    for (std::size_t i = 0; i < size; ++i) {
      history[i] = static_cast<token>(300 + i % period);
    }
    sampler s(o, &*texts);
    double least = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto start = std::chrono::steady_clock::now();
      s.sample(logits, history);
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      least = std::min(least, taken.count());
    }
    return least;
  };
  for (const std::size_t period : {1u, 2u, 1000u}) {
    for (const bool breakers : {false, true}) {
      INFO("period " << period << ", breakers " << breakers);
      // quadratic, it would be 10^10 steps
      CHECK(seconds(100'000, period, breakers) < 0.5);
    }
  }
}
