#include <nibble/engine/generation.hpp>

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

#include "base/memory_for.hpp"
#include "engine/generation_state.hpp"

namespace nibble::inline NIBBLE_ABI {

bool generation::state::append(std::span<const token> tokens) {
  try {
    with_memory_for("a batch of tokens", [&] { of->append(tokens, options.cancel); });
    return true;
  } catch (const error& e) {
    if (e.code() != errc::cancelled) throw;
    finish(finish_reason::cancelled);
    return false;
  }
}

// Of a text that does not fit as a whole, where that is wanted: what stays, and the end.
void generation::state::shorten() {
  const std::int64_t context = of->loaded->plan.context;
  if (of->can_take(prompt.size(), context) || of->options.when_full == context_policy::stop) return;
  const std::int64_t keep = of->options.keep, rest = (context - keep) / 2;
  prompt.erase(prompt.begin() + keep, prompt.end() - std::max<std::int64_t>(rest, 1));
}

std::span<const token> generation::state::start() {
  begun = true;
  if (anew) shorten();
  const std::size_t known = anew ? keep_shared() : 0;
  return std::span<const token>(prompt).subspan(known);
}

void generation::state::begin() {
  if (begun) return;
  over = true;  // if this throws
  const std::span<const token> rest = start();
  const bool nothing_new = rest.empty() && !of->pending && !of->logits.empty();
  if (nothing_new || append(rest)) return advance();
  over = piece.empty();
}

// Truncates the session to the beginning that it shares with the prompt; one token at least is left
// to compute, because its logits are needed.
std::size_t generation::state::keep_shared() {
  of->check(prompt, true);  // before anything is lost
  const std::vector<token>& held = of->tokens;
  const std::size_t limit = std::min(held.size(), prompt.size() - 1);
  const auto differs = std::mismatch(
      held.begin(), held.begin() + static_cast<std::ptrdiff_t>(limit), prompt.begin());
  const auto shared = static_cast<std::size_t>(differs.first - held.begin());
  of->truncate(static_cast<std::int32_t>(shared));
  return shared;
}

// Text that was held back, in case it might become a character or a stop string, ends the output.
void generation::state::finish(finish_reason why) {
  reason = why;
  if (why == finish_reason::stop_string) return;
  piece += filter.push(stream.flush());
  piece += filter.flush();
}

void generation::state::take_next() {
  const token id = of->sample(sampler());
  if (of->loaded->tokenizer->is_end_of_generation(id)) {
    finish(finish_reason::end_of_text);
  } else {
    piece += filter.push(stream.push(id));
    ++generated;
    if (filter.stopped()) finish(finish_reason::stop_string);
  }
  of->pending = id;  // once there is its text
}

void generation::state::look_for_end() {
  if (options.cancel.stop_requested()) {
    finish(finish_reason::cancelled);
  } else if (options.max_tokens > 0 && generated >= options.max_tokens) {
    finish(finish_reason::max_tokens);
  } else if (of->pending && !of->can_take(1, of->room())) {
    finish(finish_reason::context_full);
  }
}

// Generates until there is a piece to give out, or the end.
void generation::state::advance() {
  over = true;  // if this throws
  piece.clear();
  while (piece.empty() && reason == finish_reason::none) {
    look_for_end();
    if (reason == finish_reason::none && (!of->pending || append({}))) take_next();
  }
  over = piece.empty();
}

generation::generation(std::unique_ptr<state> s) : state_(std::move(s)) {}
generation::generation(generation&&) noexcept = default;
generation& generation::operator=(generation&&) noexcept = default;
generation::~generation() = default;

generation::iterator generation::begin() {
  state_->begin();
  return iterator(this);
}

finish_reason generation::finished() const noexcept {
  return state_->reason;
}

std::uint64_t generation::seed() const noexcept {
  return state_->sampler().seed();
}

std::string generation::text() {
  std::string all;
  for (const std::string_view piece : *this) all += piece;
  return all;
}

std::string_view generation::iterator::operator*() const {
  return from_->state_->piece;
}

generation::iterator& generation::iterator::operator++() {
  from_->state_->advance();
  return *this;
}

bool generation::iterator::done() const {
  return from_->state_->over;
}

generation session::generate(std::string_view prompt, generate_options options) {
  const nibble::tokenizer& tokenizer = state_->loaded->need_tokenizer();
  const bool first = state_->tokens.empty() && !state_->pending;
  return generate(
      tokenizer.encode(prompt, {.add_special = first, .parse_special = options.parse_special}),
      std::move(options));
}

generation session::generate(std::vector<token> prompt, generate_options options) {
  return make_generation(std::move(prompt), false, std::move(options));
}

generation session::regenerate(std::vector<token> text, generate_options options) {
  return make_generation(std::move(text), true, std::move(options));
}

generation session::reply(std::span<const chat_message> conversation, generate_options options) {
  const nibble::tokenizer& tokenizer = state_->loaded->need_tokenizer();
  const chat_template layout(tokenizer.chat_template());
  return regenerate(layout.encode(tokenizer, conversation), std::move(options));
}

generation session::make_generation(std::vector<token> prompt, bool anew,
                                    generate_options options) {
  if (options.max_tokens < 0) {
    throw error(errc::invalid_argument,
                concat("the generation option max_tokens is ", options.max_tokens,
                       "; it must be 0 (until the model or the context ends) or greater."));
  }
  // what is generated continues a text: its first space is one between words
  text_stream stream(state_->loaded->need_tokenizer(), {.keep_prefix = true});
  stop_filter filter(options.stop);
  std::optional<sampler> own;
  if (options.sampling) own = state_->loaded->make_sampler(*options.sampling);
  return generation(
      std::unique_ptr<generation::state>(new generation::state{.of = state_.get(),
                                                               .prompt = std::move(prompt),
                                                               .anew = anew,
                                                               .options = std::move(options),
                                                               .stream = std::move(stream),
                                                               .filter = std::move(filter),
                                                               .own = std::move(own)}));
}

}  // namespace nibble::inline NIBBLE_ABI
