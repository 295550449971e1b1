// Sessions of one model that are appended to, forked, cut, saved and loaded as random numbers want
// it, each beside a twin that only ever does what its tokens went through.
#pragma once

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "../model/tiny_model.hpp"
#include "engine_test.hpp"
#include "temporary_folder.hpp"

namespace test {

inline std::vector<nibble::token> held(const nibble::session& s) {
  return {s.tokens().begin(), s.tokens().end()};
}

// The logits of the last of these tokens, of a session that is given them at once and takes nothing
// that others have computed.
inline std::vector<float> last_logits(const nibble::model& model,
                                      std::span<const nibble::token> tokens) {
  const std::vector<float> all = all_logits(model, tokens);
  return {all.end() - model.hparams().n_vocab, all.end()};
}

// What is done to a session's tokens.
struct token_step {
  enum { append, truncate, shift } kind;
  std::vector<nibble::token> tokens = {};
  std::int32_t a = 0, b = 0;
};

class session_walk {
 public:
  using token = nibble::token;

  // How often what happened.
  struct counts {
    int appended = 0, full = 0, cancelled = 0, shifted = 0, loaded = 0, forked = 0, generated = 0;
    std::int64_t shared = 0;
  };

  session_walk(const nibble::model& model, const nibble::model& witness, unsigned seed, counts& n)
      : model_(model), witness_(witness), random_(seed), seen_(n) {}

  void step() {
    if (all_.empty()) add();
    const std::size_t i = below(all_.size());
    const std::size_t what = below(100);
    if (what < 45) {
      append(all_[i], below(3) == 0 ? 1 + below(120) : 1 + below(3), what < 4);
    } else if (what < 55) {
      truncate(all_[i]);
    } else if (what < 64) {
      shift(all_[i]);
    } else if (what < 72) {
      fork(i);
    } else if (what < 80) {
      save_and_load(all_[i]);
    } else if (what < 86) {
      generate(all_[i]);
    } else if (what < 93 && all_.size() > 4) {
      all_.erase(all_.begin() + static_cast<std::ptrdiff_t>(i));
    } else if (all_.size() < most_sessions) {
      add();
    }
  }

  static constexpr std::size_t most_sessions = 8;

 private:
  struct entry {
    nibble::session one, twin;
    nibble::session_options options;
    std::size_t text;  // that it follows, mostly
    std::vector<token_step> past = {};
    bool shifted = false;          // tokens were dropped before others
    bool maybe_waiting = false;    // pages may be gone, so that tokens are computed again
    bool pending = false;          // a token of a generation
    std::vector<float> last = {};  // logits, if they are known
  };

  std::size_t below(std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_);
  }

  nibble::session make(const nibble::model& of, const nibble::session_options& options) const {
    return nibble::session(of, {.temperature = 0}, options);
  }

  void add() {
    using nibble::context_policy;
    const nibble::session_options choices[] = {
        {},
        {},
        {.when_full = context_policy::shift, .keep = 5},
        {.when_full = context_policy::slide, .keep = 70},
        {.when_full = context_policy::shift, .keep = 0, .drop = 40}};
    const auto options = choices[below(std::size(choices))];
    all_.push_back({make(model_, options), make(witness_, options), options, below(3)});
  }

  std::vector<token> next_tokens(const entry& e, std::size_t count) {
    std::minstd_rand text(static_cast<unsigned>(e.text) + 1);
    std::vector<token> tokens;
    const std::size_t at = e.one.tokens().size();
    for (std::size_t i = 0; i < at + count; ++i) {
      const auto id = static_cast<token>(text() / 7 % 48);
      if (i >= at) tokens.push_back(id);
    }
    if (below(30) == 0) tokens[below(count)] = static_cast<token>(below(48));
    return tokens;
  }

  // The twin's logits after the step, if it is an append. It takes no pages of others: the logits
  // of all new tokens are asked for.
  static std::vector<float> go(nibble::session& twin, const token_step& step) {
    std::vector<float> last;
    if (step.kind == token_step::append) {
      twin.append(step.tokens, [&](std::size_t, std::span<const float> logits) {
        last.assign(logits.end() - 48, logits.end());
      });
    } else if (step.kind == token_step::truncate) {
      twin.truncate(step.a);
    } else {
      twin.shift(step.a, step.b);
    }
    return last;
  }
  std::vector<float> go(entry& e, token_step step) {
    e.past.push_back(std::move(step));
    return go(e.twin, e.past.back());
  }
  nibble::session twin_of(const entry& e) const {
    nibble::session twin = make(witness_, e.options);
    for (const token_step& step : e.past) go(twin, step);
    return twin;
  }

  void reset(entry& e) {
    e.one.truncate(0);
    e.twin = make(witness_, e.options);
    e.past.clear();
    e.last.clear();
    e.shifted = e.maybe_waiting = e.pending = false;
  }

  // Of these tokens alone, in one piece.
  std::vector<float> fresh_logits(const std::vector<token>& tokens) const {
    nibble::session fresh = make(witness_, {});
    return go(fresh, {token_step::append, tokens});
  }

  static bool begins_with(const std::vector<token>& all, const std::vector<token>& part) {
    return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
  }

  // What was computed after `before`, on the twin; then everything is compared.
  void compare(entry& e, const std::vector<token>& before, const std::vector<token>& more,
               std::span<const float> logits) {
    const std::vector<token> after = held(e.one);
    std::vector<token> computed = more;
    if (begins_with(after, before) && after.size() >= before.size() + more.size()) {
      computed.assign(after.begin() + static_cast<std::ptrdiff_t>(before.size()), after.end());
      REQUIRE(computed.size() == more.size() + (e.pending ? 1 : 0));
    } else {
      REQUIRE(e.options.when_full != nibble::context_policy::stop);
      e.shifted = true;
      ++seen_.shifted;
    }
    REQUIRE(std::equal(more.rbegin(), more.rend(), after.rbegin()));
    e.pending = e.maybe_waiting = false;
    e.last.assign(logits.begin(), logits.end());
    REQUIRE(go(e, {token_step::append, computed}) == e.last);
    REQUIRE(held(e.twin) == after);
    if (!e.shifted) REQUIRE(fresh_logits(after) == e.last);
  }

  void append(entry& e, std::size_t count, bool cancel) {
    const std::int64_t shared = e.one.timings().shared_tokens;
    const std::vector<token> before = held(e.one), more = next_tokens(e, count);
    std::stop_source source;
    if (cancel) source.request_stop();
    std::vector<float> logits;
    try {
      const auto found = e.one.append(more, source.get_token());
      logits.assign(found.begin(), found.end());
    } catch (const nibble::error& failure) {
      return failed(e, before, more, failure.code());
    }
    REQUIRE_FALSE(cancel);
    ++seen_.appended;
    seen_.shared += e.one.timings().shared_tokens - shared;
    compare(e, before, more, logits);
  }

  void failed(entry& e, const std::vector<token>& before, const std::vector<token>& more,
              nibble::errc code) {
    const std::vector<token> after = held(e.one);
    seen_.full += code == nibble::errc::out_of_memory;
    seen_.cancelled += code == nibble::errc::cancelled;
    if (code == nibble::errc::invalid_argument) {
      REQUIRE(before.size() + more.size() + (e.pending ? 1 : 0) > 300 - 140);
      REQUIRE(after == before);
      return;
    }
    REQUIRE((code == nibble::errc::out_of_memory || code == nibble::errc::cancelled));
    if (!begins_with(after, before)) {
      // room was made first
      REQUIRE(e.options.when_full != nibble::context_policy::stop);
      return reset(e);
    }
    // parts of the prompt may be done
    std::vector<token> done(after.begin() + static_cast<std::ptrdiff_t>(before.size()),
                            after.end());
    const std::size_t own = e.pending && !done.empty() ? 1 : 0;
    REQUIRE(begins_with(more, {done.begin() + static_cast<std::ptrdiff_t>(own), done.end()}));
    if (done.empty() && !e.last.empty()) {
      const auto best = std::max_element(e.last.begin(), e.last.end()) - e.last.begin();
      REQUIRE(e.one.sample() == best);
    }
    if (e.maybe_waiting) return reset(e);  // how far it came is not to be seen
    if (done.empty()) return;
    e.pending = false;
    e.last.clear();
    go(e, {token_step::append, done});
  }

  void truncate(entry& e) {
    const std::size_t n = e.one.tokens().size();
    const std::size_t to = below(4) == 0 ? below(n + 1) : n - std::min(n, below(20));
    e.one.truncate(static_cast<std::int32_t>(to));
    go(e, {token_step::truncate, {}, static_cast<std::int32_t>(to)});
    e.maybe_waiting = true;
    e.pending = false;
    e.last.clear();
    if (to == 0) reset(e);
  }

  void shift(entry& e) {
    const auto n = static_cast<std::int32_t>(e.one.tokens().size());
    const std::int32_t keeps[] = {0, 3, 64, 70, e.options.keep};
    const std::int32_t keep = std::min(n, keeps[below(5)]);
    const auto drop = static_cast<std::int32_t>(
        below(5) == 0 ? below(static_cast<std::size_t>(n - keep) + 1)
                      : std::min<std::size_t>(below(40), static_cast<std::size_t>(n - keep)));
    if (drop == 0) return;
    const std::vector<token> before = held(e.one);
    e.one.shift(keep, drop);
    go(e, {token_step::shift, {}, keep, drop});
    REQUIRE(e.one.tokens().size() == before.size() - static_cast<std::size_t>(drop));
    e.shifted = e.maybe_waiting = true;
    ++seen_.shifted;
  }

  entry copy_of(const entry& e, nibble::session one) const {
    entry copy{std::move(one), twin_of(e), e.options, e.text};
    copy.past = e.past;
    copy.shifted = e.shifted;
    copy.maybe_waiting = e.maybe_waiting;
    copy.pending = e.pending;
    copy.last = e.last;
    return copy;
  }

  void fork(std::size_t i) {
    if (all_.size() >= most_sessions) return;
    all_.push_back(copy_of(all_[i], all_[i].one.fork()));
    ++seen_.forked;
    REQUIRE(held(all_.back().one) == held(all_[i].one));
    all_.back().text = below(3);
  }

  void save_and_load(entry& e) {
    const auto path = folder_ / "session";
    e.one.save(path);
    try {
      auto loaded = nibble::session::load(model_, path, {.temperature = 0}, e.options);
      REQUIRE(held(loaded) == held(e.one));
      e = copy_of(e, std::move(loaded));
      ++seen_.loaded;
    } catch (const nibble::error& full) {
      REQUIRE(full.code() == nibble::errc::out_of_memory);
      ++seen_.full;
    }
  }

  void generate(entry& e) {
    const std::vector<token> before = held(e.one);
    if (e.options.when_full != nibble::context_policy::stop || before.size() > 250) return;
    const std::vector<token> more = next_tokens(e, 2);
    try {
      auto text = e.one.generate(more, {.max_tokens = 5});
      (void)text.text();
    } catch (const nibble::error& failure) {
      REQUIRE(failure.code() == nibble::errc::out_of_memory);
      return reset(e);
    }
    ++seen_.generated;
    const std::vector<token> after = held(e.one);
    REQUIRE(begins_with(after, before));
    const std::vector<token> computed(after.begin() + static_cast<std::ptrdiff_t>(before.size()),
                                      after.end());
    e.pending = true;
    e.maybe_waiting = false;
    e.last = go(e, {token_step::append, computed});
  }

  const nibble::model& model_;
  const nibble::model& witness_;
  std::minstd_rand random_;
  counts& seen_;
  std::vector<entry> all_;
  temporary_folder folder_;
};

}  // namespace test
