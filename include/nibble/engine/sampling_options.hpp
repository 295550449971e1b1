// What can be asked of a sampler. Each stage with its formula and source: docs/sampling.md.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

enum class sampling_stage : std::uint8_t {
  penalties,  // repeat, presence and frequency penalty
  dry,
  top_n_sigma,
  top_k,
  typical,
  top_p,
  min_p,
  xtc,
  temperature,  // fixed or dynamic
};

// All stages in the order of the enumeration, which is llama.cpp's.
NIBBLE_API std::span<const sampling_stage> default_sampling_order() noexcept;
NIBBLE_API std::string_view to_text(sampling_stage stage) noexcept;
// The stage of a name as to_text gives it; llama.cpp's `typ_p` and '-' in place of '_' will do.
// Throws error (invalid_argument) that lists the names.
NIBBLE_API sampling_stage to_sampling_stage(std::string_view name);

// Added to the logit of one token before any stage; minus infinity forbids the token.
struct logit_bias {
  token id = 0;
  float bias = 0;
};

// A stage does nothing at the value marked "off". The first four defaults are llama.cpp's; all
// other stages are off.
struct sampling_options {
  // Divides the logits. 0: the most probable token is taken, the lower id at a tie; biases,
  // penalties and DRY still act before, the other stages do not.
  float temperature = 0.8f;
  std::int32_t top_k = 40;  // keep this many; 0: off
  float top_p = 0.95f;      // keep the fewest best whose probabilities reach this sum; 1: off
  float min_p = 0.05f;      // drop those below this share of the best one's; 0: off
  std::optional<std::uint64_t> seed = {};  // none: a random one

  // Keep the fewest whose surprise lies nearest to the entropy and whose probabilities reach this
  // sum (locally typical sampling); 1: off.
  float typical = 1;
  // Drop logits more than this many standard deviations below the best; 0: off.
  float top_n_sigma = 0;

  // Of the last tokens, the prompt's included: how many count; 0: off, -1: all.
  std::int32_t repeat_last_n = 64;
  float repeat_penalty = 1;     // divides positive logits, multiplies others; 1: off
  float presence_penalty = 0;   // subtracted once; 0: off
  float frequency_penalty = 0;  // subtracted for each time; 0: off

  // Don't repeat yourself: a token that would continue a repetition of `length` tokens loses
  // multiplier * base^(length - allowed_length), if length >= allowed_length.
  float dry_multiplier = 0;  // 0: off
  float dry_base = 1.75f;
  std::int32_t dry_allowed_length = 2;
  std::int32_t dry_penalty_last_n = -1;  // how many of the last tokens are searched; -1: all
  // No repetition reaches across one of these texts; a sampler needs a tokenizer to see them.
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};

  // Exclude top choices: with this probability, of the tokens at or above the threshold only the
  // least probable stays. Off: probability 0, or a threshold above 0.5.
  float xtc_probability = 0;
  float xtc_threshold = 0.1f;

  // The temperature lies between temperature - range (at least 0) and temperature + range, by the
  // share of the greatest entropy to the power of the exponent; range 0: off.
  float dynatemp_range = 0;
  float dynatemp_exponent = 1;

  // 2: Mirostat 2.0 takes the place of every stage that drops tokens; 0: off.
  std::int32_t mirostat = 0;
  float mirostat_tau = 5;     // target of the surprise, bits
  float mirostat_eta = 0.1f;  // rate of learning

  std::vector<nibble::logit_bias> logit_bias = {};

  // The stages that act, in this order. One that is not in the list does not act.
  std::vector<sampling_stage> order{default_sampling_order().begin(),
                                    default_sampling_order().end()};
};

// Throws error (invalid_argument) that names the option, its value and what would be right.
NIBBLE_API void validate(const sampling_options& options);

}  // namespace nibble::inline NIBBLE_ABI
