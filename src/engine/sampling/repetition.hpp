// The stages that look at the tokens so far: repeat, presence and frequency penalty, and DRY.
#pragma once

#include <cstdint>
#include <nibble/engine/sampling_options.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/sampling/pool.hpp"

namespace nibble::inline NIBBLE_ABI::sampling {

// A number for each token, 0 for most.
class token_marks {
 public:
  // Nothing is marked; tokens from 0 to vocabulary - 1 may be.
  void reset(std::size_t vocabulary);
  std::int32_t of(token id) const { return values_[static_cast<std::size_t>(id)]; }
  // value > 0
  void set(token id, std::int32_t value);
  std::span<const token> marked() const { return marked_; }

 private:
  std::vector<std::int32_t> values_;
  std::vector<token> marked_;
};

// The last n tokens, all if n is -1. Throws error (invalid_argument) if one of them has no logit.
std::span<const token> last_of(std::span<const token> history, std::int32_t n,
                               std::size_t vocabulary);

// Repeat penalty: Keskar et al., "CTRL", 2019, arXiv:1909.05858, section 4.1; the other two as in
// OpenAI's interface.
void apply_penalties(pool& tokens, const sampling_options& options, std::span<const token> history,
                     token_marks& marks);

// "Don't repeat yourself", designed by P. E. Weidmann: pull request 5677 of
// oobabooga/text-generation-webui, 2024. Its lists of matches are found in linear time here.
class dry_stage {
 public:
  // `texts` may be null if there are no breakers.
  void apply(pool& tokens, const sampling_options& options, const tokenizer* texts,
             std::span<const token> history, token_marks& marks);

 private:
  std::int32_t find_repetitions(std::span<const token> window);
  std::int32_t tokens_after_breaker(std::span<const std::string> breakers, const tokenizer& texts,
                                    std::span<const token> history, std::int32_t most);

  std::vector<std::int32_t> lengths_;  // see find_repetitions
  std::string text_;
  std::vector<std::size_t> ends_;
};

}  // namespace nibble::inline NIBBLE_ABI::sampling
