// What a session does, on the model that comes with the project.

#include <algorithm>
#include <future>
#include <memory>
#include <thread>

#include "engine_test.hpp"

namespace {

using nibble::errc;
using nibble::finish_reason;
using nibble::sampling_options;
using nibble::session;
using nibble::token;

// The file is gone once this returns.
nibble::model load_tales(std::int32_t threads = 2, std::int32_t context = 0,
                         std::int32_t batch = 512) {
  nibble::model_options options;
  options.cpu.threads = threads;
  options.plan.context = context;
  options.plan.batch = batch;
  return nibble::model(nibble::gguf::file(test::tales), options);
}

// One for all tests that need no other: a model cannot be changed.
const nibble::model& loaded() {
  static const nibble::model model = load_tales();
  return model;
}

constexpr const char* beginning = "Once upon a time";
const sampling_options greedy{.temperature = 0};

std::string text_of(session& s, std::int32_t max_tokens = 40) {
  return s.generate(beginning, {.max_tokens = max_tokens}).text();
}

std::string greedy_text(std::int32_t max_tokens = 40) {
  session s(loaded(), greedy);
  return text_of(s, max_tokens);
}

std::vector<token> held(const session& s) {
  return {s.tokens().begin(), s.tokens().end()};
}

// Ids of ordinary tokens.
std::vector<token> some_tokens(std::size_t count) {
  const auto text = loaded().tokenizer().encode("The old cat slept on the wall and dreamed.");
  std::vector<token> out;
  while (out.size() < count) out.push_back(text[out.size() % text.size()]);
  return out;
}

}  // namespace

TEST_CASE("generate is a range of pieces") {
  session s(loaded(), greedy);
  auto text = s.generate(beginning, {.max_tokens = 40});
  CHECK(text.finished() == finish_reason::none);
  CHECK(s.tokens().empty());  // nothing is computed before begin()
  std::string all;
  std::size_t pieces = 0;
  for (const std::string_view piece : text) {
    CHECK_FALSE(piece.empty());
    all += piece;
    ++pieces;
  }
  CHECK(pieces > 10);
  CHECK(all == greedy_text());
  CHECK(all.find("there") != std::string::npos);
  CHECK(text.finished() == finish_reason::max_tokens);
  CHECK(text.text().empty());  // all was given out
}

TEST_CASE("text() gives the rest of what was begun") {
  session s(loaded(), greedy);
  auto text = s.generate(beginning, {.max_tokens = 40});
  auto it = text.begin();
  std::string all(*it);
  ++it;
  all += text.text();
  CHECK(all == greedy_text());
}

TEST_CASE("generation ends after max_tokens") {
  for (const int n : {1, 2, 17}) {
    session s(loaded(), greedy);
    auto text = s.generate(beginning, {.max_tokens = n});
    const auto ids = loaded().tokenizer().encode(text.text());
    CHECK(text.finished() == finish_reason::max_tokens);
    const auto prompt = loaded().tokenizer().encode(beginning);
    // the last token was given out; the next turn appends it
    CHECK(s.tokens().size() == prompt.size() + static_cast<std::size_t>(n) - 1);
    session again(loaded(), greedy);
    again.append(prompt);
    for (std::size_t i = prompt.size(); i < s.tokens().size(); ++i) {
      const token id = again.sample();
      CHECK(id == s.tokens()[i]);
      again.append({&id, 1});
    }
  }
}

TEST_CASE("generation ends before a stop string") {
  const std::string whole = greedy_text(60);
  // inside one piece, over several pieces, at the very beginning
  for (const auto& [from, length] :
       {std::pair<std::size_t, std::size_t>{30, 2}, {21, 25}, {0, 9}, {50, 1}}) {
    const std::string stop = whole.substr(from, length);
    INFO("stop string '" << stop << "'");
    session s(loaded(), greedy);
    auto text = s.generate(beginning, {.max_tokens = 60, .stop = {"never in the text", stop}});
    CHECK(text.text() == whole.substr(0, whole.find(stop)));
    CHECK(text.finished() == finish_reason::stop_string);
  }
}

TEST_CASE("what might have become a stop string is given out at the end") {
  const std::string whole = greedy_text(20);
  const std::string stop = whole.substr(whole.size() - 3) + "\x01";
  session s(loaded(), greedy);
  auto text = s.generate(beginning, {.max_tokens = 20, .stop = {stop}});
  CHECK(text.text() == whole);
  CHECK(text.finished() == finish_reason::max_tokens);
}

TEST_CASE("generation can be cancelled before it starts") {
  session s(loaded(), greedy);
  std::stop_source source;
  source.request_stop();
  auto text = s.generate(beginning, {.cancel = source.get_token()});
  CHECK(text.text().empty());
  CHECK(text.finished() == finish_reason::cancelled);
  CHECK(s.tokens().empty());
  CHECK(text_of(s) == greedy_text());  // the session is good for more
}

TEST_CASE("generation can be cancelled from another thread") {
  const nibble::model model = load_tales(1);
  session s(model, greedy);
  std::stop_source source;
  std::promise<void> running;
  std::jthread canceller([&] {
    running.get_future().wait();
    source.request_stop();
  });
  // the tokens of a text that would fill the context; the third piece lets the other thread act
  std::string all;
  auto text = s.generate(beginning, {.cancel = source.get_token()});
  int pieces = 0;
  for (const std::string_view piece : text) {
    all += piece;
    if (++pieces == 3) {
      running.set_value();
      canceller.join();
    }
  }
  CHECK(text.finished() == finish_reason::cancelled);
  CHECK(pieces == 3);
  CHECK(greedy_text().starts_with(all));
}

TEST_CASE("cancellation between parts of a prompt leaves what was done") {
  const nibble::model model = load_tales(2, 512, 16);
  session s(model, greedy);
  std::stop_source source;
  source.request_stop();
  const auto prompt = some_tokens(64);
  test::check_error(test::thrown([&] { s.append(prompt, source.get_token()); }), errc::cancelled,
                    {"cancelled"});
  CHECK(s.tokens().size() % 16 == 0);
  CHECK(s.tokens().size() < prompt.size());
}

TEST_CASE("generation ends when the context is full") {
  const nibble::model model = load_tales(2, 16);
  session s(model, greedy);
  CHECK(s.context() == 16);
  auto text = s.generate(beginning);
  const std::string all = text.text();
  CHECK(text.finished() == finish_reason::context_full);
  CHECK(s.tokens().size() == 16);
  CHECK(all.size() < greedy_text().size());
  CHECK(greedy_text().starts_with(all));
}

TEST_CASE("a truncated session continues as a new one would") {
  session s(loaded(), greedy);
  const auto prompt = loaded().tokenizer().encode(beginning);
  const std::string first = text_of(s);
  const auto all = held(s);
  s.truncate(static_cast<std::int32_t>(prompt.size() - 1));
  CHECK(s.tokens().size() == prompt.size() - 1);
  CHECK(s.generate({prompt.back()}, {.max_tokens = 40}).text() == first);
  CHECK(held(s) == all);

  s.truncate(0);
  CHECK(s.tokens().empty());
  CHECK(text_of(s) == first);  // the beginning's tokens are added again
  CHECK(held(s) == all);
}

TEST_CASE("bad truncation and sampling from nothing are errors") {
  session s(loaded(), greedy);
  test::check_error(test::thrown([&] { s.sample(); }), errc::invalid_argument, {"append"});
  s.append(some_tokens(5));
  test::check_error(test::thrown([&] { s.truncate(6); }), errc::invalid_argument, {"6", "holds 5"});
  test::check_error(test::thrown([&] { s.truncate(-1); }), errc::invalid_argument, {"-1"});
  CHECK(s.tokens().size() == 5);
  s.truncate(3);
  test::check_error(test::thrown([&] { s.sample(); }), errc::invalid_argument, {"append"});
}

TEST_CASE("the same seed writes the same text, whatever the number of threads") {
  const nibble::model alone = load_tales(1), two = load_tales(2);
  const sampling_options options{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 7};
  session first(alone, options), second(two, options);
  const std::string text = text_of(first);
  CHECK(text == text_of(second));
  CHECK(first.seed() == 7);
  bool differs = false;
  for (std::uint64_t seed = 8; seed < 12; ++seed) {
    auto other_options = options;
    other_options.seed = seed;
    session other(two, other_options);
    differs = differs || text_of(other) != text;
  }
  CHECK(differs);
}

TEST_CASE("a session without a seed tells the one it took") {
  session first(loaded(), {.temperature = 1});
  const std::string text = text_of(first);
  session second(loaded(), {.temperature = 1, .seed = first.seed()});
  CHECK(text_of(second) == text);
}

TEST_CASE("sessions of one model in several threads write what they write alone") {
  const auto write = [](std::uint64_t seed) {
    session s(loaded(), {.temperature = 1, .seed = seed});
    return text_of(s, 60);
  };
  const std::string one = write(1), two = write(2);
  auto first = std::async(std::launch::async, write, 1);
  auto second = std::async(std::launch::async, write, 2);
  CHECK(first.get() == one);
  CHECK(second.get() == two);
}

TEST_CASE("sessions of one model do not see each other's context") {
  session a(loaded(), greedy), b(loaded(), greedy);
  a.append(loaded().tokenizer().encode(beginning));
  b.append(some_tokens(20));
  std::string text;
  for (int i = 0; i < 10; ++i) {
    const token id = a.sample(), other = b.sample();
    text += loaded().tokenizer().piece(id);
    a.append({&id, 1});
    b.append({&other, 1});
  }
  CHECK(text == greedy_text(10));
}

TEST_CASE("a moved session continues where it was") {
  session a(loaded(), greedy);
  a.append(loaded().tokenizer().encode(beginning));
  session b(std::move(a));
  const token next = b.sample();
  session c(loaded(), greedy);
  c = std::move(b);
  CHECK(c.sample() == next);
  a = session(loaded(), greedy);  // one that was moved from may be given a new value
  CHECK(text_of(a) == greedy_text());
}

TEST_CASE("a moved generation continues where it was") {
  session s(loaded(), greedy);
  auto text = s.generate(beginning, {.max_tokens = 40});
  std::string all(*text.begin());
  auto moved = std::move(text);
  auto it = moved.begin();
  for (++it; it != moved.end(); ++it) all += *it;
  CHECK(all == greedy_text());
}

TEST_CASE("a prompt longer than the context is an error that changes nothing") {
  const nibble::model model = load_tales(2, 32);
  session s(model, greedy);
  s.append(some_tokens(5));
  const token next = s.sample();
  const auto before = held(s);
  const auto check = [&](const nibble::error& e) {
    test::check_error(e, errc::invalid_argument, {"28 tokens", "32 tokens", " 5 "});
    CHECK(held(s) == before);
    CHECK(s.sample() == next);
  };
  check(test::thrown([&] { s.append(some_tokens(28)); }));
  check(test::thrown([&] { s.generate(some_tokens(28)).text(); }));
  s.append(some_tokens(27));  // what just fits
  CHECK(s.tokens().size() == 32);
}

TEST_CASE("an unknown token is an error that changes nothing") {
  session s(loaded(), greedy);
  s.append(some_tokens(5));
  const auto before = held(s);
  for (const token bad : {-1, 2048, 1 << 30}) {
    const std::vector<token> tokens{1, bad, 2};
    test::check_error(test::thrown([&] { s.append(tokens); }), errc::invalid_argument,
                      {std::to_string(bad).c_str(), "2048"});
    CHECK(held(s) == before);
  }
  test::check_error(test::thrown([&] { s.append(std::vector<token>{}); }), errc::invalid_argument,
                    {"no tokens"});
}

TEST_CASE("a model needs no file and a session no model object") {
  auto model = std::make_unique<nibble::model>(load_tales());
  const nibble::model copy = *model;
  CHECK(&copy.hparams() == &model->hparams());  // copies share everything
  session s(*model, greedy);
  auto text = s.generate(beginning, {.max_tokens = 40});
  std::string all(*text.begin());
  model.reset();
  auto it = text.begin();
  for (++it; it != text.end(); ++it) all += *it;
  CHECK(all == greedy_text());
}

TEST_CASE("a prompt in parts is the same prompt") {
  const auto tokens = some_tokens(70);
  const nibble::model whole = load_tales(2, 0, 512), parts = load_tales(2, 0, 16);
  session a(whole, greedy), b(parts, greedy), c(whole, greedy);
  const auto found = a.append(tokens);
  const std::vector<float> logits(found.begin(), found.end());
  CHECK(logits.size() == 2048);
  const auto in_parts = b.append(tokens);
  CHECK(std::equal(logits.begin(), logits.end(), in_parts.begin(), in_parts.end()));
  std::span<const float> one_by_one;
  for (const token& id : tokens) one_by_one = c.append({&id, 1});
  CHECK(std::equal(logits.begin(), logits.end(), one_by_one.begin(), one_by_one.end()));
}

TEST_CASE("the logits of every token must have been planned") {
  session s(loaded(), greedy);
  const auto tokens = some_tokens(3);
  test::check_error(
      test::thrown([&] { s.append(tokens, [](std::size_t, std::span<const float>) {}); }),
      errc::invalid_argument, {"all_logits"});
  CHECK(s.tokens().empty());
}

TEST_CASE("a session counts its work") {
  session s(loaded(), greedy);
  const auto prompt = loaded().tokenizer().encode(beginning);
  text_of(s, 10);
  CHECK(s.timings().prompt_tokens == static_cast<std::int64_t>(prompt.size()));
  CHECK(s.timings().generated_tokens == 9);  // the tenth was given out, not appended
  CHECK(s.timings().prompt_seconds > 0);
  CHECK(s.timings().generated_seconds > 0);
}

TEST_CASE("a text that is generated again shares its beginning with what is held") {
  const auto prompt = loaded().tokenizer().encode(beginning);
  session s(loaded(), greedy);
  const std::string first = s.regenerate(prompt, {.max_tokens = 40}).text();
  CHECK(first == greedy_text());
  auto longer = held(s);
  longer.resize(prompt.size() + 20);
  const auto before = s.timings().prompt_tokens + s.timings().generated_tokens;
  auto text = s.regenerate(longer, {.max_tokens = 1});
  CHECK(first.ends_with(text.text() + first.substr(greedy_text(21).size())));
  CHECK(s.timings().prompt_tokens + s.timings().generated_tokens == before + 1);
  CHECK(held(s) == longer);

  const std::vector<token> other = some_tokens(30);
  session alone(loaded(), greedy);
  CHECK(s.regenerate(other, {.max_tokens = 10}).text() ==
        alone.generate(other, {.max_tokens = 10}).text());
  CHECK(s.regenerate(prompt, {.max_tokens = 40}).text() == first);

  const auto kept = held(s);
  for (const auto& bad : {std::vector<token>{}, some_tokens(513), std::vector<token>{1, -1}}) {
    auto refused = s.regenerate(bad);
    CHECK(test::thrown([&] { refused.text(); }).code() == errc::invalid_argument);
    CHECK(held(s) == kept);
  }
}

TEST_CASE("an empty prompt continues what the session holds") {
  session s(loaded(), greedy);
  s.append(loaded().tokenizer().encode(beginning));
  CHECK(s.generate("", {.max_tokens = 40}).text() == greedy_text());
  session empty(loaded(), greedy);
  auto nothing = empty.generate(std::vector<token>{});
  CHECK(test::thrown([&] { nothing.text(); }).code() == errc::invalid_argument);
}

TEST_CASE("a session may be moved while it generates") {
  auto s = std::make_unique<session>(loaded(), greedy);
  auto text = s->generate(beginning, {.max_tokens = 40});
  std::string all(*text.begin());
  const session moved = std::move(*s);
  s.reset();
  all += std::string(*++text.begin());
  CHECK(greedy_text().starts_with(all));
  CHECK(moved.tokens().size() > 0);
}

TEST_CASE("what a visitor of logits throws leaves the session with its tokens' logits") {
  nibble::model_options options;
  options.plan.all_logits = true;
  const nibble::model model(nibble::gguf::file(test::tales), options);
  const auto tokens = some_tokens(9);
  session s(model, greedy), other(model, greedy);
  s.append(some_tokens(1));
  CHECK_THROWS_AS(s.append(tokens, [](auto, auto) { throw std::runtime_error("stop"); }),
                  std::runtime_error);
  other.append(some_tokens(1));
  other.append(tokens);
  CHECK(s.tokens().size() == 10);
  CHECK(s.sample() == other.sample());
}

TEST_CASE("loading reports its progress from 0 to 1, and can be stopped") {
  for (int i = 0; i < 20; ++i) {
    std::vector<double> shares;
    nibble::model_options options;
    options.progress = [&](double share) { shares.push_back(share); };
    const nibble::model model(nibble::gguf::file(test::tales), options);
    REQUIRE(shares.size() >= 2);
    CHECK(shares.front() == 0);
    CHECK(shares.back() == 1);
    CHECK(std::is_sorted(shares.begin(), shares.end()));
    CHECK(std::count(shares.begin(), shares.end(), 1.0) == 1);
  }
  nibble::model_options options;
  options.progress = [](double) { throw std::runtime_error("stop"); };
  CHECK_THROWS_AS(nibble::model(nibble::gguf::file(test::tales), options), std::runtime_error);
}
