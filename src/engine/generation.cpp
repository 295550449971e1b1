#include <nibble/engine/generation.hpp>

#include <nibble/base/error.hpp>
#include <nibble/text/text_stream.hpp>
#include <utility>

#include "engine/state.hpp"
#include "engine/stop_filter.hpp"

namespace nibble::inline NIBBLE_ABI {

struct generation::state {
  session* of;
  std::vector<token> prompt;
  generate_options options;
  text_stream stream;
  stop_filter filter;
  std::string piece = {};
  std::int32_t generated = 0;
  bool begun = false, over = false;  // over: nothing more will be given out
  finish_reason reason = finish_reason::none;

  void begin();
  void advance();

 private:
  void finish(finish_reason why);
  // Appends to the session; false if that was cancelled.
  bool append(std::span<const token> tokens);
  void take(token id);
};

bool generation::state::append(std::span<const token> tokens) {
  try {
    of->append(tokens, options.cancel);
    return true;
  } catch (const error& e) {
    if (e.code() != errc::cancelled) throw;
    finish(finish_reason::cancelled);
    return false;
  }
}

void generation::state::begin() {
  if (std::exchange(begun, true)) return;
  if (append(prompt)) advance();
}

// Text that was held back, in case it might become a character or a stop string, ends the output.
void generation::state::finish(finish_reason why) {
  reason = why;
  if (why == finish_reason::stop_string) return;
  piece += filter.push(stream.flush());
  piece += filter.flush();
}

void generation::state::take(token id) {
  of->state_->pending = id;
  if (of->state_->loaded->tokenizer->is_end_of_generation(id))
    return finish(finish_reason::end_of_text);
  ++generated;
  piece += filter.push(stream.push(id));
  if (filter.stopped()) finish(finish_reason::stop_string);
}

// Generates until there is a piece to give out, or the end.
void generation::state::advance() {
  piece.clear();
  while (piece.empty() && reason == finish_reason::none) {
    if (options.cancel.stop_requested()) {
      finish(finish_reason::cancelled);
    } else if (options.max_tokens > 0 && generated >= options.max_tokens) {
      finish(finish_reason::max_tokens);
    } else if (of->state_->pending && of->state_->room() < 1) {
      finish(finish_reason::context_full);
    } else if (!of->state_->pending || append({})) {
      take(of->sample());
    }
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
  // what is generated continues a text: its first space is one between words
  text_stream stream(state_->loaded->need_tokenizer(), {.keep_prefix = true});
  stop_filter filter(options.stop);
  return generation(
      std::unique_ptr<generation::state>(new generation::state{.of = this,
                                                               .prompt = std::move(prompt),
                                                               .options = std::move(options),
                                                               .stream = std::move(stream),
                                                               .filter = std::move(filter)}));
}

}  // namespace nibble::inline NIBBLE_ABI
