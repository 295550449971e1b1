#include "engine/sampling/repetition.hpp"

#include <algorithm>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI::sampling {

namespace {

// A repetition longer than this has the penalty of one of this length: no float is greater.
std::int32_t longest_that_matters(const sampling_options& o) {
  constexpr double never = 1 << 30;
  const double greatest = std::log(static_cast<double>(std::numeric_limits<float>::max()));
  const double growth = std::log(static_cast<double>(o.dry_base));
  const double start = std::log(static_cast<double>(o.dry_multiplier));
  const double more = growth > 0 ? std::ceil((greatest - start) / growth) : 0;
  return static_cast<std::int32_t>(std::min(never, o.dry_allowed_length + std::max(more, 0.0)));
}

// A model may have logits for more tokens than its vocabulary names.
std::string_view text_of(const tokenizer& texts, token id) {
  return id < texts.size() ? texts.bytes(id) : std::string_view{};
}

bool contains_any(std::string_view text, std::span<const std::string> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
    return text.find(part) != std::string_view::npos;
  });
}

}  // namespace

void token_marks::reset(std::size_t vocabulary) {
  for (const token id : marked_) values_[static_cast<std::size_t>(id)] = 0;
  marked_.clear();
  values_.resize(vocabulary);
}

void token_marks::set(token id, std::int32_t value) {
  std::int32_t& old = values_[static_cast<std::size_t>(id)];
  if (old == 0) marked_.push_back(id);
  old = value;
}

std::span<const token> last_of(std::span<const token> history, std::int32_t n,
                               std::size_t vocabulary) {
  if (n >= 0 && static_cast<std::size_t>(n) < history.size()) {
    history = history.last(static_cast<std::size_t>(n));
  }
  for (const token id : history) {
    if (id < 0 || static_cast<std::size_t>(id) >= vocabulary) {
      throw error(errc::invalid_argument,
                  concat("the history has token ", id, ", but there are logits for ", vocabulary,
                         " tokens."));
    }
  }
  return history;
}

void apply_penalties(pool& tokens, const sampling_options& o, std::span<const token> history,
                     token_marks& marks) {
  const auto window = last_of(history, o.repeat_last_n, tokens.vocabulary());
  marks.reset(tokens.vocabulary());
  for (const token id : window) marks.set(id, marks.of(id) + 1);
  if (marks.marked().empty()) return;
  tokens.settle_temperature();
  tokens.edit(marks.marked(), [&](token id, float logit) {
    const std::int32_t times = marks.of(id);
    if (times == 0) return logit;
    double x = logit;
    x = x > 0 ? x / o.repeat_penalty : x * o.repeat_penalty;
    x -= o.presence_penalty + static_cast<double>(o.frequency_penalty) * times;
    return clamp_to_finite(x);
  });
}

// lengths_[i], for i >= 1, becomes how many tokens before the last i ones equal the end of the
// window, so that the i-th token from its end would go on with a repetition of that length.
// Returns the greatest. This is the Z function (Gusfield, "Algorithms on Strings, Trees and
// Sequences", 1997, section 1.3) of the reversed window.
std::int32_t dry_stage::find_repetitions(std::span<const token> window) {
  const std::size_t n = window.size();
  const auto from_end = [&](std::size_t i) { return window[n - 1 - i]; };
  lengths_.resize(n);
  lengths_[0] = 0;
  std::int32_t longest = 0;
  std::size_t from = 0, to = 0;  // [from, to) equals a beginning, the one that reaches farthest
  for (std::size_t i = 1; i < n; ++i) {
    std::size_t length = 0;
    if (i < to) length = std::min(to - i, static_cast<std::size_t>(lengths_[i - from]));
    while (i + length < n && from_end(length) == from_end(i + length)) ++length;
    if (i + length > to) {
      from = i;
      to = i + length;
    }
    lengths_[i] = static_cast<std::int32_t>(length);
    longest = std::max(longest, lengths_[i]);
  }
  return longest;
}

// How many tokens come after the one in which the last breaker ends; `most` if there are as many
// without. A breaker may begin in an earlier token.
std::int32_t dry_stage::tokens_after_breaker(std::span<const std::string> breakers,
                                             const tokenizer& texts, std::span<const token> history,
                                             std::int32_t most) {
  std::size_t longest_breaker = 0;
  for (const std::string& b : breakers) longest_breaker = std::max(longest_breaker, b.size());
  // mostly there is one within the last few tokens
  for (std::size_t reach = 16;; reach *= 4) {
    const std::size_t wanted = std::min(reach, static_cast<std::size_t>(most));
    std::size_t taken = 0, bytes_before = 0;
    while (taken < history.size() && (taken < wanted || bytes_before + 1 < longest_breaker)) {
      const std::size_t size = text_of(texts, history[history.size() - 1 - taken]).size();
      if (taken++ >= wanted) bytes_before += size;
    }
    text_.clear();
    ends_.clear();  // [token] -> where its text ends
    for (const token id : history.last(taken)) {
      text_ += text_of(texts, id);
      ends_.push_back(text_.size());
    }
    std::size_t after = wanted;
    for (const std::string& b : breakers) {
      const std::size_t at = text_.rfind(b);
      if (at == std::string::npos) continue;
      const auto token_of_end = std::lower_bound(ends_.begin(), ends_.end(), at + b.size());
      after = std::min(after, static_cast<std::size_t>(ends_.end() - token_of_end) - 1);
    }
    if (after < wanted || wanted == static_cast<std::size_t>(most)) {
      return static_cast<std::int32_t>(after);
    }
  }
}

void dry_stage::apply(pool& tokens, const sampling_options& o, const tokenizer* texts,
                      std::span<const token> history, token_marks& marks) {
  const auto window = last_of(history, o.dry_penalty_last_n, tokens.vocabulary());
  if (window.empty()) return;
  const std::span<const std::string> breakers = o.dry_sequence_breakers;
  std::int32_t most = std::min(find_repetitions(window), longest_that_matters(o));
  if (most >= o.dry_allowed_length && !breakers.empty()) {
    most = tokens_after_breaker(breakers, *texts, window, most);
  }
  if (most < o.dry_allowed_length) return;

  marks.reset(tokens.vocabulary());
  for (std::size_t i = 1; i < window.size(); ++i) {
    const std::int32_t length = std::min(lengths_[i], most);
    if (length < o.dry_allowed_length) continue;
    const token next = window[window.size() - i];
    if (length > marks.of(next)) marks.set(next, length);
  }
  tokens.settle_temperature();
  tokens.edit(marks.marked(), [&](token id, float logit) {
    const std::int32_t length = marks.of(id);
    // a breaker is meant to come again
    if (length == 0 || (texts != nullptr && contains_any(text_of(*texts, id), breakers)))
      return logit;
    const double power = std::pow(static_cast<double>(o.dry_base), length - o.dry_allowed_length);
    return clamp_to_finite(logit - o.dry_multiplier * power);
  });
}

}  // namespace nibble::inline NIBBLE_ABI::sampling
