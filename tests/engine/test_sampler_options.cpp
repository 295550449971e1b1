// Options that cannot be: each is refused by name, value and what is right. And what a request may
// change without a new session.

#include <cfloat>

#include "sampler_reference.hpp"

namespace {

using nibble::errc;
using nibble::sampler;
using nibble::sampling_options;
using nibble::sampling_stage;
using nibble::session;
using nibble::token;
using test::infinity;
using test::keep_all;
using test::not_a_number;

using parts = std::initializer_list<std::string_view>;

template <typename Change>
void refused(const Change& change, parts sentence) {
  auto o = keep_all();
  change(o);
  const auto e = test::thrown([&] { sampler s(o); });
  test::check_error(e, errc::invalid_argument, sentence);
  test::check_error(test::thrown([&] { validate(o); }), errc::invalid_argument, sentence);
}

template <typename T>
void refused(T sampling_options::*option, const char* name, std::initializer_list<T> values,
             std::string_view right) {
  for (const T value : values) {
    refused([&](auto& o) { o.*option = value; }, {name, "it must be", right});
  }
}

const nibble::model& tales() {
  static const nibble::model model = [] {
    nibble::model_options options;
    options.cpu.threads = 1;
    return nibble::model(nibble::gguf::file(test::tales), options);
  }();
  return model;
}

}  // namespace

TEST_CASE("sampler: options out of range") {
  using o = sampling_options;
  const std::initializer_list<float> no_numbers{not_a_number, infinity, -infinity, -0.5f};
  refused(&o::typical, "typical", {0.0f, -1.0f, 1.5f, not_a_number}, "greater than 0, at most 1");
  refused(&o::top_n_sigma, "top_n_sigma", no_numbers, "0 or greater");
  refused(&o::repeat_last_n, "repeat_last_n", {-2, -2147483647}, "-1 (all tokens)");
  refused(&o::repeat_penalty, "repeat_penalty", {0.0f, -1.0f, infinity, not_a_number},
          "greater than 0");
  refused(&o::presence_penalty, "presence_penalty", {infinity, -infinity, not_a_number}, "finite");
  refused(&o::frequency_penalty, "frequency_penalty", {infinity, not_a_number}, "finite");
  refused(&o::dry_multiplier, "dry_multiplier", no_numbers, "0 or greater");
  refused(&o::dry_base, "dry_base", {0.99f, 0.0f, infinity, not_a_number}, "1 or greater");
  refused(&o::dry_allowed_length, "dry_allowed_length", {0, -3}, "1 or greater");
  refused(&o::dry_penalty_last_n, "dry_penalty_last_n", {-2}, "-1 (all tokens)");
  refused(&o::xtc_probability, "xtc_probability", {-0.1f, 1.1f, not_a_number}, "between 0 and 1");
  refused(&o::xtc_threshold, "xtc_threshold", {-0.1f, 1.1f, not_a_number}, "between 0 and 1");
  refused(&o::dynatemp_range, "dynatemp_range", no_numbers, "0 or greater");
  refused(&o::dynatemp_exponent, "dynatemp_exponent", no_numbers, "0 or greater");
  refused(&o::mirostat, "mirostat", {1, 3, -1}, "2 (Mirostat 2.0)");
  refused(&o::mirostat_tau, "mirostat_tau", no_numbers, "0 or greater");
  refused(&o::mirostat_eta, "mirostat_eta", no_numbers, "0 or greater");
}

TEST_CASE("sampler: biases, breakers and orders that cannot be") {
  refused([](auto& o) { o.logit_bias = {{-3, 1}}; }, {"token -3", "begin with 0"});
  refused([](auto& o) { o.logit_bias = {{3, not_a_number}}; }, {"token 3", "nan", "finite"});
  refused([](auto& o) { o.logit_bias = {{3, infinity}}; }, {"token 3", "inf", "finite"});
  refused([](auto& o) { o.logit_bias = {{3, 1}, {4, 1}, {3, 2}}; }, {"token 3", "two"});
  refused([](auto& o) { o.dry_sequence_breakers = {"a", ""}; }, {"breakers", "empty"});
  refused(
      [](auto& o) {
        o.order = {sampling_stage::xtc, sampling_stage::dry, sampling_stage::xtc};
      },
      {"order", "xtc", "twice"});
  refused([](auto& o) { o.order = {static_cast<sampling_stage>(77)}; },
          {"order", "77", "penalties, dry", "temperature"});
  // DRY with its usual breakers needs texts; without breakers, or without DRY, it does not
  auto o = keep_all();
  sampler no_dry(o);
  o.dry_multiplier = 1;
  const auto e = test::thrown([&] { sampler s(o); });
  test::check_error(e, errc::invalid_argument, {"breakers", "tokenizer"});
  validate(o);  // nothing is wrong with the options
  o.dry_sequence_breakers.clear();
  sampler no_breakers(o);
}

TEST_CASE("sampler: stages have names") {
  for (const sampling_stage stage : nibble::default_sampling_order()) {
    CHECK(nibble::to_sampling_stage(to_text(stage)) == stage);
  }
  CHECK(nibble::to_sampling_stage("typ_p") == sampling_stage::typical);
  CHECK(nibble::to_sampling_stage("top-n-sigma") == sampling_stage::top_n_sigma);
  for (const char* bad : {"", "nucleus", "Top_k", "top_k ", "top_k\n"}) {
    const auto e = test::thrown([&] { nibble::to_sampling_stage(bad); });
    test::check_error(e, errc::invalid_argument, {"no sampling stage", "penalties, dry", "top_k"});
  }
}

TEST_CASE("sampler: tokens without logits, and biases that leave none") {
  const std::vector<float> logits{1, 2, not_a_number, -infinity};
  auto o = keep_all();
  o.repeat_penalty = 2;
  o.repeat_last_n = 2;
  sampler s(o);
  for (const token bad : {4, -1, 1 << 30}) {
    const auto e = test::thrown([&] { s.sample(logits, std::vector<token>{0, bad, 1}); });
    test::check_error(e, errc::invalid_argument, {"history", std::to_string(bad), "4"});
  }
  CHECK(s.sample(logits, std::vector<token>{9, 0, 1}) < 2);  // beyond the window
  o = keep_all();
  o.logit_bias = {{4, 1}};
  sampler unknown(o);
  test::check_error(test::thrown([&] { unknown.sample(logits); }), errc::invalid_argument,
                    {"bias", "token 4", "4 tokens"});
  o.logit_bias = {{0, -infinity}, {1, -infinity}};
  sampler nothing_left(o);
  for (const bool greedy : {false, true}) {
    o.temperature = greedy ? 0.0f : 1.0f;
    sampler forbidding(o);
    test::check_error(test::thrown([&] { forbidding.sample(logits); }), errc::invalid_argument,
                      {"biases", "forbid"});
    const std::vector<float> odd{not_a_number, infinity};
    CHECK(test::thrown([&] { forbidding.sample(odd); }).code() == errc::device);
  }
  // extreme, but finite
  o.temperature = 1;
  o.logit_bias = {{0, -FLT_MAX}, {1, FLT_MAX}};
  CHECK(sampler(o).sample(std::vector<float>{-FLT_MAX, FLT_MAX}) == 1);
  o.logit_bias = {{0, -FLT_MAX}};
  CHECK(sampler(o).sample(std::vector<float>{-FLT_MAX}) == 0);
}

TEST_CASE("sampler: logits of every kind under every stage at once") {
  std::mt19937 random(4);
  auto o = keep_all();
  o.repeat_penalty = 1.3f;
  o.dry_multiplier = 1;
  o.dry_sequence_breakers.clear();
  o.top_n_sigma = 2;
  o.top_k = 900;
  o.typical = 0.9f;
  o.top_p = 0.95f;
  o.min_p = 0.01f;
  o.xtc_probability = 0.5f;
  o.dynatemp_range = 0.5f;
  const float odd[] = {not_a_number, infinity, -infinity, FLT_MAX, -FLT_MAX, FLT_MIN,
                       1e-45f,       0,        -0.0f,     1,       -1e30f};
  for (int round = 0; round < 300; ++round) {
    o.mirostat = round % 5 == 4 ? 2 : 0;
    std::shuffle(o.order.begin(), o.order.end(), random);
    std::vector<float> logits(std::array{1u, 2u, 64u, 65u, 3000u}[random() % 5]);
    for (float& x : logits) x = odd[random() % std::size(odd)];
    logits[random() % logits.size()] = 3;
    std::vector<token> history(random() % 20);
    for (token& id : history) id = static_cast<token>(random() % logits.size());
    sampler s(o);
    const token id = s.sample(logits, history);
    REQUIRE(std::isfinite(logits[static_cast<std::size_t>(id)]));
    double sum = 0;
    for (const auto& c : s.candidates(logits, history)) {
      REQUIRE(std::isfinite(logits[static_cast<std::size_t>(c.id)]));
      sum += static_cast<double>(c.probability);
    }
    REQUIRE(std::abs(sum - 1) < 1e-4);
  }
}

TEST_CASE("a generation may have sampling options of its own") {
  const sampling_options hot{.temperature = 1.5f, .min_p = 0, .seed = 5};
  const auto write = [&](session& s, std::optional<sampling_options> own) {
    s.truncate(0);
    return s.generate("Once upon a time", {.max_tokens = 12, .sampling = std::move(own)}).text();
  };
  session s(tales(), {.temperature = 1, .seed = 3}), other(tales(), hot);
  const std::string as_hot = write(other, {});
  session alone(tales(), {.temperature = 1, .seed = 3});
  const std::string as_own = write(alone, {});
  CHECK(write(s, hot) == as_hot);
  CHECK(write(s, hot) == as_hot);  // from the seed again
  CHECK(write(s, {}) == as_own);   // and the session's own randomness has not moved
  CHECK(as_hot != as_own);
  CHECK(s.seed() == 3);
  auto seeded = s.generate("a", {.max_tokens = 1, .sampling = hot});
  CHECK(seeded.seed() == 5);
  CHECK(s.generate("a", {.max_tokens = 1}).seed() == 3);
  // refused at once, by the same sentences
  sampling_options bad = hot;
  bad.top_p = 2;
  const auto e = test::thrown([&] { s.generate("a", {.sampling = bad}); });
  test::check_error(e, errc::invalid_argument, {"top_p", "2"});
  bad = hot;
  bad.logit_bias = {{1 << 20, 1}};
  const auto unknown = test::thrown([&] { s.generate("a", {.sampling = bad}); });
  test::check_error(unknown, errc::invalid_argument, {"bias", "1048576", "2048"});
  CHECK(test::thrown([&] { session t(tales(), bad); }).code() == errc::invalid_argument);
}

TEST_CASE("a session takes new sampling options") {
  const sampling_options first{.temperature = 1, .seed = 3}, second{.temperature = 1.3f, .seed = 4};
  const auto write = [](session& s) {
    s.truncate(0);
    return s.generate("The dog", {.max_tokens = 12}).text();
  };
  session s(tales(), first), other(tales(), second);
  const std::string as_first = write(s), as_second = write(other);
  s.set_sampling(second);
  CHECK(s.seed() == 4);
  CHECK(write(s) == as_second);
  s.set_sampling(first);
  CHECK(write(s) == as_first);
  sampling_options bad = first;
  bad.temperature = -1;
  CHECK(test::thrown([&] { s.set_sampling(bad); }).code() == errc::invalid_argument);
  CHECK(s.seed() == 3);  // as before
}

TEST_CASE("a session's tokens are the history, the prompt among them") {
  const auto& texts = tales().tokenizer();
  const auto prompt = texts.encode("the cat and the dog and the cat and the");
  auto o = keep_all();
  o.temperature = 0;
  session plain(tales(), o);
  const auto logits = plain.append(prompt);
  const token favourite = plain.sample();
  o.presence_penalty = 1e6f;
  o.repeat_last_n = -1;
  session penalised(tales(), o);
  penalised.append(prompt);
  const token other = penalised.sample();
  CHECK(std::count(prompt.begin(), prompt.end(), other) == 0);
  sampler s(o, &texts);
  CHECK(s.sample(logits, prompt) == other);
  CHECK(sampler(keep_all()).candidates(logits).front().id == favourite);
  // DRY through the session, with its usual breakers
  o = keep_all();
  o.temperature = 0;
  o.dry_multiplier = 1e6f;
  o.dry_allowed_length = 1;
  std::vector<token> again = prompt;
  again.push_back(favourite);
  again.insert(again.end(), prompt.begin() + 1, prompt.end());
  session dry(tales(), o);
  dry.append(again);
  session free(tales(), keep_all());
  CHECK(sampler(o, &texts).sample(free.append(again), again) == dry.sample());
}
