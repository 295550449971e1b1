// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/engine/sampling_options.hpp>
#include <span>

namespace nibble::inline NIBBLE_ABI {

// Options, randomness and Mirostat's memory. A copy goes on independently, from the same state: it
// draws what the original would have drawn. Nothing is allocated for a token once the sampler has
// seen logits of this size and a history of this length.
class NIBBLE_API sampler {
 public:
  // `texts` gives the texts of tokens, which DRY's sequence breakers need.
  // Throws error: invalid_argument (names the option, its value and what would be right; DRY has
  // breakers and there are no texts), out_of_memory.
  explicit sampler(const sampling_options& options = {}, const tokenizer* texts = nullptr);
  sampler(const sampler& other);
  sampler& operator=(const sampler& other);
  sampler(sampler&&) noexcept;
  sampler& operator=(sampler&&) noexcept;
  ~sampler();

  // logits: [n_vocab]; infinite ones and NaN are never drawn. history: the tokens so far, the last
  // one last, for penalties and DRY. Throws error: device if no logits are numbers;
  // invalid_argument if the biases forbid all tokens, or a bias or the history names a token that
  // has no logit.
  token sample(std::span<const float> logits, std::span<const token> history = {});

  // The tokens that the next sample() chooses from and their probabilities, most probable first.
  // No draw is made and nothing is remembered. Valid until the sampler's next call.
  struct candidate {
    token id;
    float probability;
  };
  std::span<const candidate> candidates(std::span<const float> logits,
                                        std::span<const token> history = {});

  std::uint64_t seed() const noexcept;
  const sampling_options& options() const noexcept;
  // Throws error (invalid_argument) if a bias names a token that this vocabulary does not have.
  void check_vocabulary(std::int32_t n_vocab) const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI
