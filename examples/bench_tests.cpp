#include "bench_tests.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <nibble/base/concat.hpp>
#include <optional>
#include <utility>

#include "common.hpp"
#include "peaks/peaks.hpp"

namespace bench {

using nibble::concat;

namespace {

[[noreturn]] void refuse(const std::string& sentence) {
  throw nibble::error(nibble::errc::invalid_argument, sentence);
}

std::int32_t most_of(const std::vector<std::int32_t>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

void add_tests(std::vector<test>& tests, test_kind kind, const std::vector<std::int32_t>& lengths,
               std::int32_t usual, const test& like, std::int32_t context) {
  if (!lengths.empty()) {
    for (const std::int32_t n : lengths) {
      if (n > 0) tests.push_back({kind, n, like.depth, like.sessions});  // 0: no such test
    }
  } else if (like.depth < context) {
    tests.push_back({kind, std::min(usual, context - like.depth), like.depth, like.sessions});
  }
}

void check(const test& t, std::int32_t context) {
  if (t.tokens <= context - t.depth) return;
  refuse(concat(t.name(), " needs ", std::int64_t{t.tokens} + t.depth,
                " tokens of context, but it holds ", context,
                "; choose shorter tests, or a longer --context."));
}

// Weights are read once for each batch: of a prompt, or of a token of each session. Keys and values
// of earlier tokens are read once for each batch and session.
void count_costs(result& r, const nibble::placement& plan) {
  const bool prompt = r.what.kind == test_kind::prompt;
  const std::int32_t batch = prompt ? plan.limits.max_tokens : 1, n = r.what.sessions;
  double bytes = 0, heads = 0;
  for (std::int32_t done = 0; done < r.what.tokens; done += batch) {
    const std::int32_t count = std::min(batch, r.what.tokens - done);
    bytes += static_cast<double>(plan.cost.weight_bytes(std::int64_t{count} * n)) +
             static_cast<double>(plan.cost.kv_bytes(r.what.depth + done + count)) * n;
    heads += n;  // logits are computed after the last token of a batch, for each session
  }
  const double tokens = static_cast<double>(r.what.tokens) * n;
  r.bytes_per_token = bytes / tokens;
  r.macs_per_token = static_cast<double>(plan.cost.macs) +
                     static_cast<double>(plan.cost.head_macs) * heads / tokens;
}

}  // namespace

std::string test::name() const {
  return concat(kind == test_kind::prompt ? "pp" : "tg", tokens,
                sessions > 1 ? concat('x', sessions) : "", depth > 0 ? concat("@d", depth) : "");
}

std::string first_token::name() const {
  return concat("ttft", shared);
}

std::vector<test> choose_tests(const test_choice& choice, std::int32_t context) {
  std::vector<test> tests;
  for (const std::int32_t depth : choice.depths) {
    // the depth alone may fill the context only if nothing was asked for at it
    if (depth >= context) {
      refuse(concat("a depth of ", depth, " tokens leaves no room in a context of ", context,
                    "; choose a smaller one, or a longer --context."));
    }
    const test one{test_kind::prompt, 0, depth};
    add_tests(tests, test_kind::prompt, choice.prompts, 512, one, context);
    for (const std::int32_t sessions : choice.sessions) {
      const test like{test_kind::generation, 0, depth, sessions};
      add_tests(tests, test_kind::generation, choice.generations, 128, like, context);
    }
  }
  for (const test& t : tests) check(t, context);
  const std::int32_t prefix = most_of(choice.shared_prefixes);
  if (prefix > context - own_tokens) {
    refuse(concat("a shared prefix of ", prefix, " tokens needs ",
                  std::int64_t{prefix} + own_tokens, " tokens of context, but it holds ", context,
                  "; choose a shorter one, or a longer --context."));
  }
  if (tests.empty() && choice.shared_prefixes.empty()) {
    throw common::usage_error("no test is left: give -p or -n a length above 0.");
  }
  return tests;
}

void fit(nibble::plan_options& plan, const std::vector<test>& tests, const test_choice& choice) {
  plan.context = 0;
  for (const test& t : tests) {
    plan.sessions = std::max(plan.sessions, t.sessions);
    // a batch is not longer than the context, and takes a token of each session
    plan.context = std::max({plan.context, t.depth + t.tokens, t.sessions});
  }
  if (plan.sessions > plan.batch) {
    refuse(concat(plan.sessions, " sessions need batches of as many tokens, not of ", plan.batch,
                  "; choose a greater --batch, or fewer --sessions."));
  }
  if (choice.shared_prefixes.empty()) return;
  plan.sessions = std::max(plan.sessions, 2);
  plan.context = std::max(plan.context, most_of(choice.shared_prefixes) + own_tokens);
}

runner::runner(const nibble::model& model)
    : model_(model), random_(1), vocabulary_(0, model.hparams().n_vocab - 1) {
  for (std::int32_t i = 0; i < model.plan().sessions; ++i) sessions_.emplace_back(model);
  greedy_.temperature = 0;
  if (!model.has_tokenizer()) return;
  // texts that end would leave the others alone
  const nibble::tokenizer& tokenizer = model.tokenizer();
  for (nibble::token id = 0; id < tokenizer.size(); ++id) {
    if (!tokenizer.is_end_of_generation(id)) continue;
    greedy_.logit_bias.push_back({id, -std::numeric_limits<float>::infinity()});
  }
}

result runner::run(const test& t, std::int32_t repetitions) {
  // only those that take part hold pages
  for (nibble::session& s : sessions_) s.truncate(0);
  for (std::int32_t i = 0; i < t.sessions; ++i) {
    reach(sessions_[static_cast<std::size_t>(i)], t.depth);
  }
  const auto measure = [&](const test& what) {
    return what.sessions > 1 ? together(what) : once(what);
  };
  // wakes threads and touches memory
  measure({t.kind, std::min(t.tokens, t.kind == test_kind::prompt ? 64 : 4), t.depth, t.sessions});
  std::vector<double> speeds;
  for (std::int32_t i = 0; i < repetitions; ++i) {
    speeds.push_back(static_cast<double>(t.tokens) * t.sessions / measure(t));
  }
  result r{.what = t, .tokens_per_second = median(speeds)};
  const auto [least, most] = std::minmax_element(speeds.begin(), speeds.end());
  r.spread = (*most - *least) / r.tokens_per_second;
  count_costs(r, model_.plan());
  return r;
}

std::vector<nibble::token> runner::draw(std::int32_t count) {
  std::vector<nibble::token> tokens(static_cast<std::size_t>(count));
  for (nibble::token& id : tokens) id = vocabulary_(random_);
  return tokens;
}

// Fills the cache up to `depth`, or cuts it back to that.
void runner::reach(nibble::session& session, std::int32_t depth) {
  const auto held = static_cast<std::int32_t>(session.tokens().size());
  if (held < depth) session.append(draw(depth - held));
  session.truncate(depth);
}

// Seconds; the cache is as it was before.
double runner::once(const test& t) {
  const std::vector<nibble::token> tokens = draw(t.tokens);
  nibble::session& session = sessions_.front();
  const auto start = std::chrono::steady_clock::now();
  if (t.kind == test_kind::prompt) {
    session.append(tokens);
  } else {
    for (const nibble::token& id : tokens) session.append({&id, 1});
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  session.truncate(t.depth);
  return seconds.count();
}

// The same with a task of the scheduler for each session: a random token is the prompt, and what
// was generated is computed but for the last token, so that each session computes t.tokens ones.
double runner::together(const test& t) {
  nibble::scheduler scheduler(model_, {.max_running = t.sessions});
  std::exception_ptr failure;
  std::int64_t computed = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(t.sessions); ++i) {
    nibble::session& own = sessions_[i];
    const auto before = static_cast<std::int64_t>(own.tokens().size());
    scheduler.submit({.session = std::move(own),
                      .prompt = draw(1),
                      .options = {.max_tokens = t.tokens, .sampling = greedy_},
                      .on_end = [&, before](nibble::session ended, nibble::finish_reason,
                                            std::exception_ptr why) {
                        if (why) failure = why;
                        computed += static_cast<std::int64_t>(ended.tokens().size()) - before;
                        own = std::move(ended);
                      }});
  }
  const auto start = std::chrono::steady_clock::now();
  scheduler.run();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (failure) std::rethrow_exception(failure);
  if (computed != std::int64_t{t.tokens} * t.sessions) {
    throw std::logic_error(concat(t.name(), ": ", computed, " tokens were computed"));
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(t.sessions); ++i) {
    sessions_[i].truncate(t.depth);
  }
  return seconds.count();
}

// Seconds to the first token.
double runner::read(nibble::session& session, const std::vector<nibble::token>& prompt) {
  session.set_sampling(greedy_);
  const auto start = std::chrono::steady_clock::now();
  session.append(prompt);
  session.sample();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return seconds.count();
}

first_token runner::run_shared(std::int32_t shared, std::int32_t repetitions) {
  for (nibble::session& s : sessions_) s.truncate(0);
  read(sessions_[0],
       draw(std::min(64, model_.plan().context)));  // wakes threads and touches memory
  first_token r{.shared = shared, .prompt = shared + own_tokens};
  std::vector<double> alone, with_other;
  for (std::int32_t i = 0; i < repetitions; ++i) {
    for (nibble::session& s : sessions_) s.truncate(0);
    std::vector<nibble::token> prompt = draw(r.prompt);  // not what lies in pages from before
    alone.push_back(read(sessions_[0], prompt));
    prompt.resize(static_cast<std::size_t>(shared));
    for (const nibble::token id : draw(own_tokens)) prompt.push_back(id);
    const std::int64_t before = sessions_[1].timings().shared_tokens;
    with_other.push_back(read(sessions_[1], prompt));
    r.found = sessions_[1].timings().shared_tokens - before;
  }
  r.seconds = median(alone);
  r.seconds_shared = median(with_other);
  return r;
}

}  // namespace bench
