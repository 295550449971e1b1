// What tests of the scheduler share: models, prompts, and what becomes of tasks.
#pragma once

#include <nibble/engine/scheduler.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>

#include "engine_test.hpp"

namespace test::batches {

using nibble::admission;
using nibble::errc;
using nibble::finish_reason;
using nibble::generate_options;
using nibble::sampling_options;
using nibble::scheduler;
using nibble::session;
using nibble::token;
using tokens = std::vector<token>;

inline nibble::model load_tales(std::int32_t sessions, std::int32_t context = 0,
                                std::int32_t threads = 1) {
  nibble::model_options options;
  options.cpu.threads = threads;
  options.plan = {.context = context, .sessions = sessions};
  return nibble::model(nibble::gguf::file(test::tales), options);
}

// One for all tests that need no other.
inline const nibble::model& loaded() {
  static const nibble::model model = load_tales(8);
  return model;
}

// The model does not end its text.
inline sampling_options endless(const nibble::model& model, sampling_options options = {}) {
  for (token id = 0; id < model.tokenizer().size(); ++id) {
    if (model.tokenizer().is_end_of_generation(id)) options.logit_bias.push_back({id, -INFINITY});
  }
  return options;
}
inline const sampling_options& greedy() {
  static const sampling_options options = endless(loaded(), {.temperature = 0});
  return options;
}

// Ids of ordinary tokens; texts of different `which` differ from the first token on.
inline tokens some_tokens(std::size_t count, std::size_t which = 0) {
  static const tokens text = loaded().tokenizer().encode(
      "The old cat slept on the wall and dreamed of a small red boat, but a bird sang to the girl.",
      {.add_special = false});
  tokens out;
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(text[(which * 3 + i + i / text.size() * which) % text.size()]);
  }
  return out;
}

inline tokens held(const session& s) {
  return {s.tokens().begin(), s.tokens().end()};
}

struct outcome {
  std::string text;
  tokens held;
  finish_reason why = finish_reason::none;
  friend bool operator==(const outcome&, const outcome&) = default;
};

inline outcome alone(session& s, const tokens& prompt, const generate_options& options) {
  auto made = s.generate(prompt, options);
  const std::string text = made.text();
  return {text, held(s), made.finished()};
}

inline outcome alone(const nibble::model& model, const sampling_options& sampling,
                     const tokens& prompt, const generate_options& options) {
  session s(model, sampling);
  return alone(s, prompt, options);
}

// What became of a task.
struct watched {
  outcome found = {};
  std::optional<session> after = {};
  std::exception_ptr failure = {};
  bool keep = true;  // the session, with its pages
  int ends = 0, pieces = 0;
  std::function<void()> then = {};  // after each piece

  nibble::scheduler_task task(session from, tokens prompt, const generate_options& options = {}) {
    return {.session = std::move(from),
            .prompt = std::move(prompt),
            .options = options,
            .on_text =
                [this](std::string_view piece) {
                  found.text += piece;
                  ++pieces;
                  if (then) then();
                },
            .on_end =
                [this](session ended, finish_reason why, std::exception_ptr error) {
                  ++ends;
                  found.held = {ended.tokens().begin(), ended.tokens().end()};
                  found.why = why;
                  failure = std::move(error);
                  if (keep) after.emplace(std::move(ended));
                }};
  }
};

struct request {
  tokens prompt;
  sampling_options sampling;
  generate_options options;
};

inline std::vector<outcome> together(const nibble::model& model,
                                     const std::vector<request>& requests,
                                     const nibble::scheduler_options& options,
                                     const nibble::session_options& of_session = {}) {
  scheduler s(model, options);
  std::deque<watched> all(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const request& r = requests[i];
    all[i].keep = false;
    s.submit(all[i].task(session(model, r.sampling, of_session), r.prompt, r.options));
  }
  s.run();
  CHECK(s.running() == 0);
  CHECK(s.waiting() == 0);
  std::vector<outcome> found;
  for (const watched& w : all) {
    CHECK(w.ends == 1);
    CHECK(w.failure == nullptr);
    found.push_back(w.found);
  }
  return found;
}

inline std::vector<outcome> one_by_one(const nibble::model& model,
                                       const std::vector<request>& requests,
                                       const nibble::session_options& of_session = {}) {
  std::vector<outcome> found;
  for (const request& r : requests) {
    session s(model, r.sampling, of_session);
    found.push_back(alone(s, r.prompt, r.options));
  }
  return found;
}

inline void check_same(const std::vector<outcome>& found, const std::vector<outcome>& wanted) {
  REQUIRE(found.size() == wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    INFO("task " << i);
    CHECK(found[i].text == wanted[i].text);
    CHECK(found[i].held == wanted[i].held);
    CHECK(found[i].why == wanted[i].why);
  }
}

}  // namespace test::batches
