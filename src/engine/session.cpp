#include <nibble/engine/session.hpp>

#include <utility>

#include "base/memory_for.hpp"
#include "engine/state.hpp"

namespace nibble::inline NIBBLE_ABI {

sampler model::state::make_sampler(const sampling_options& options) const {
  nibble::sampler made(options, tokenizer ? &*tokenizer : nullptr);
  made.check_vocabulary(hp.n_vocab);
  return made;
}

session::session(const model& of, const sampling_options& sampling,
                 const session_options& options) {
  with_memory_for("the session", [&] {
    state_ = std::make_unique<state>(of.state_, of.state_->make_sampler(sampling), options);
  });
}

session::session(std::unique_ptr<state> s) : state_(std::move(s)) {}

session session::fork() const {
  return with_memory_for("the session", [&] { return session(std::make_unique<state>(*state_)); });
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
  return with_memory_for("a token", [&] { return state_->sample(state_->sampler); });
}

void session::set_sampling(const sampling_options& sampling) {
  with_memory_for("the sampling",
                  [&] { state_->sampler = state_->loaded->make_sampler(sampling); });
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
void session::shift(std::int32_t keep, std::int32_t drop) {
  with_memory_for("the session", [&] { state_->shift(keep, drop); });
}

std::uint64_t session::seed() const noexcept {
  return state_->sampler.seed();
}
const session_timings& session::timings() const noexcept {
  return state_->timings;
}

}  // namespace nibble::inline NIBBLE_ABI
