#include <nibble/engine/session.hpp>

#include <algorithm>
#include <chrono>
#include <nibble/base/concat.hpp>
#include <numeric>

#include "base/memory_for.hpp"
#include "engine/state.hpp"

namespace nibble::inline NIBBLE_ABI {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void session::state::run(std::span<const token> batch_tokens, std::span<const std::int32_t> outputs,
                         std::vector<float>& out) {
  const batch_chunk chunk{.cache = cache.get(),
                          .first = 0,
                          .count = static_cast<std::int32_t>(batch_tokens.size()),
                          .n_past = static_cast<std::int32_t>(tokens.size())};
  tokens.reserve(tokens.size() + batch_tokens.size());  // so that nothing can fail after the run
  {
    const std::lock_guard lock(loaded->running);
    loaded->program->submit({.tokens = batch_tokens, .chunks = {&chunk, 1}, .outputs = outputs});
    loaded->program->wait();
    const auto found = loaded->program->output();
    const auto n = outputs.size() * static_cast<std::size_t>(loaded->hp.n_vocab);
    out.assign(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(n));
  }
  tokens.insert(tokens.end(), batch_tokens.begin(), batch_tokens.end());
  pending.reset();
}

std::span<const token> session::state::with_pending(std::span<const token> more) {
  next.clear();
  if (pending) next.push_back(*pending);
  next.insert(next.end(), more.begin(), more.end());
  return next;
}

void session::state::check(std::span<const token> more, std::size_t held) const {
  if (more.empty()) {
    throw error(errc::invalid_argument, "there are no tokens to append.");
  }
  if (more.size() + held > static_cast<std::size_t>(loaded->plan.context)) {
    throw error(errc::invalid_argument,
                concat(more.size(), more.size() == 1 ? " token does" : " tokens do",
                       " not fit: the context holds ", loaded->plan.context, " tokens and ", held,
                       " of them are taken. Plan a longer context, or truncate the session."));
  }
  for (const token id : more) {
    if (id < 0 || id >= loaded->hp.n_vocab) {
      throw error(errc::invalid_argument, concat("token ", id, " is not in the vocabulary of ",
                                                 loaded->hp.n_vocab, " tokens."));
    }
  }
}

void session::state::append(std::span<const token> more, std::stop_token cancel) {
  const auto start = std::chrono::steady_clock::now();
  const std::span<const token> all = with_pending(more);
  check(all, tokens.size());
  const auto batch_size = static_cast<std::size_t>(loaded->plan.limits.max_tokens);
  std::size_t done = 0;
  while (done < all.size()) {
    if (cancel.stop_requested()) throw error(errc::cancelled, "the work was cancelled.");
    const std::size_t count = std::min(batch_size, all.size() - done);
    const std::int32_t last = static_cast<std::int32_t>(count - 1);
    const bool wanted = done + count == all.size();
    run(all.subspan(done, count), {&last, wanted ? 1u : 0u}, logits);
    done += count;
  }
  const bool one = all.size() == 1;  // a step of generation
  (one ? timings.generated_seconds : timings.prompt_seconds) += seconds_since(start);
  (one ? timings.generated_tokens : timings.prompt_tokens) += static_cast<std::int64_t>(all.size());
}

void session::state::append(std::span<const token> more, const logits_visitor& visit) {
  const auto start = std::chrono::steady_clock::now();
  if (loaded->plan.limits.max_outputs < loaded->plan.limits.max_tokens) {
    throw error(errc::invalid_argument,
                "the logits of every token were asked for; load the model with the plan option "
                "all_logits.");
  }
  const std::span<const token> all = with_pending(more);
  check(all, tokens.size());
  const auto batch_size = static_cast<std::size_t>(loaded->plan.limits.max_tokens);
  const auto n_vocab = static_cast<std::ptrdiff_t>(loaded->hp.n_vocab);
  std::vector<float> found;
  std::vector<std::int32_t> outputs(std::min(batch_size, all.size()));
  std::iota(outputs.begin(), outputs.end(), 0);
  for (std::size_t done = 0; done < all.size(); done += batch_size) {
    const std::size_t count = std::min(batch_size, all.size() - done);
    run(all.subspan(done, count), std::span(outputs).first(count), found);
    logits.assign(found.end() - n_vocab, found.end());  // before the visitor, which may throw
    visit(done, found);
  }
  timings.prompt_seconds += seconds_since(start);
  timings.prompt_tokens += static_cast<std::int64_t>(all.size());
}

token session::state::sample(nibble::sampler& by) {
  if (logits.empty()) {
    throw error(errc::invalid_argument, "there is nothing to sample from: append tokens first.");
  }
  return by.sample(logits, tokens);
}

void session::state::truncate(std::int32_t count) {
  if (count < 0 || static_cast<std::size_t>(count) > tokens.size()) {
    throw error(errc::invalid_argument, concat("cannot truncate to ", count,
                                               " tokens: the session holds ", tokens.size(), "."));
  }
  tokens.resize(static_cast<std::size_t>(count));
  pending.reset();
  logits.clear();
}

sampler model::state::make_sampler(const sampling_options& options) const {
  nibble::sampler made(options, tokenizer ? &*tokenizer : nullptr);
  made.check_vocabulary(hp.n_vocab);
  return made;
}

session::session(const model& of, const sampling_options& sampling) {
  with_memory_for("the session", [&] {
    state_ = std::make_unique<state>(state{.loaded = of.state_,
                                           .cache = of.state_->device->make_cache(of.state_->kv),
                                           .sampler = of.state_->make_sampler(sampling),
                                           .tokens = {},
                                           .pending = {},
                                           .next = {},
                                           .logits = {},
                                           .timings = {}});
    state_->tokens.reserve(static_cast<std::size_t>(of.state_->plan.context));
    state_->logits.reserve(static_cast<std::size_t>(of.state_->hp.n_vocab));
  });
}

session::session(session&&) noexcept = default;
session& session::operator=(session&&) noexcept = default;
session::~session() = default;

std::span<const float> session::append(std::span<const token> tokens, std::stop_token cancel) {
  with_memory_for("a batch of tokens", [&] { state_->append(tokens, std::move(cancel)); });
  return state_->logits;
}
void session::append(std::span<const token> tokens, const logits_visitor& visit) {
  with_memory_for("a batch of tokens", [&] { state_->append(tokens, visit); });
}

token session::sample() {
  return state_->sample(state_->sampler);
}

void session::set_sampling(const sampling_options& sampling) {
  state_->sampler = state_->loaded->make_sampler(sampling);
}

std::span<const token> session::tokens() const noexcept {
  return state_->tokens;
}
std::int32_t session::context() const noexcept {
  return state_->loaded->plan.context;
}

void session::truncate(std::int32_t count) {
  state_->truncate(count);
}

std::uint64_t session::seed() const noexcept {
  return state_->sampler.seed();
}
const session_timings& session::timings() const noexcept {
  return state_->timings;
}

}  // namespace nibble::inline NIBBLE_ABI
