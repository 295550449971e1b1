// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/batch.hpp>
#include <optional>
#include <random>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Applied in this order: top_k, top_p, min_p, temperature, then a draw. With temperature 0 the most
// probable token is taken, the lower id at a tie, and nothing else matters.
struct sampling_options {
  float temperature = 0.8f;
  std::int32_t top_k = 40;  // keep this many; 0: all
  float top_p = 0.95f;      // keep the fewest best whose probabilities reach this sum; 1: all
  float min_p = 0.05f;      // drop those below this share of the best one's; 0: none
  std::optional<std::uint64_t> seed = {};  // none: a random one
};

class NIBBLE_API sampler {
 public:
  // Throws error (invalid_argument) that names the option, its value and what would be right.
  explicit sampler(const sampling_options& options = {});

  // logits: [n_vocab]; infinite ones and NaN are never drawn. Throws error (device) if no others
  // are there.
  token sample(std::span<const float> logits);

  // The tokens that may be drawn and their probabilities, most probable first; no draw is made.
  struct candidate {
    token id;
    float probability;
  };
  std::span<const candidate> candidates(std::span<const float> logits);

  std::uint64_t seed() const noexcept { return seed_; }

 private:
  void keep_top_k(std::size_t k);
  void to_probabilities(float temperature);
  void keep_top_p();
  void keep_min_p();

  sampling_options options_;
  std::uint64_t seed_;
  std::mt19937_64 random_;
  std::vector<candidate> work_;
};

}  // namespace nibble::inline NIBBLE_ABI
