#include <nibble/engine/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <optional>
#include <random>

#include "base/memory_for.hpp"
#include "engine/sampling/pool.hpp"
#include "engine/sampling/repetition.hpp"

namespace nibble::inline NIBBLE_ABI {

struct sampler::state {
  sampling_options options;
  std::optional<tokenizer> texts;
  std::uint64_t seed;
  std::mt19937_64 random;
  double surprise_limit;  // Mirostat's mu, bits

  sampling::pool pool = {};
  sampling::token_marks marks = {};
  sampling::dry_stage dry = {};

  // The most probable token is taken.
  bool is_greedy() const { return options.temperature == 0 && !(options.dynatemp_range > 0); }
  void prepare(std::span<const float> logits, std::span<const token> history,
               std::mt19937_64& numbers);
  void learn(float probability);

 private:
  void load(std::span<const float> logits);
  bool takes_part(sampling_stage stage) const;
  void apply(sampling_stage stage, std::span<const token> history, std::mt19937_64& numbers);
  void apply_top_n_sigma();
  void apply_temperature();
  void apply_mirostat();
};

namespace {

void check_bias_ids(std::span<const logit_bias> biases, std::size_t vocabulary) {
  for (const auto& [id, bias] : biases) {
    if (static_cast<std::size_t>(id) >= vocabulary) {
      throw error(errc::invalid_argument,
                  concat("there is a logit bias for token ", id, ", but the vocabulary has ",
                         vocabulary, " tokens."));
    }
  }
}

bool uses_dry(const sampling_options& o) {
  return o.dry_multiplier > 0 && o.dry_penalty_last_n != 0;
}

bool uses_penalties(const sampling_options& o) {
  return o.repeat_last_n != 0 &&
         (o.repeat_penalty != 1 || o.presence_penalty != 0 || o.frequency_penalty != 0);
}

}  // namespace

void sampler::state::load(std::span<const float> logits) {
  pool.load(logits);
  const auto& biases = options.logit_bias;
  check_bias_ids(biases, logits.size());
  for (const auto& b : biases) {
    pool.edit({&b.id, 1}, [&](token, float logit) {
      return std::isfinite(b.bias) ? sampling::clamp_to_finite(static_cast<double>(logit) + b.bias)
                                   : b.bias;
    });
  }
  if (!pool.empty()) return;
  const bool forbidden =
      std::any_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
  if (forbidden) {
    throw error(errc::invalid_argument,
                "the logit biases forbid every token that could be drawn; leave one.");
  }
  throw error(errc::device,
              "none of the logits is a number: the model's weights or the device are at fault.");
}

bool sampler::state::takes_part(sampling_stage stage) const {
  const bool only_changes_logits =
      stage == sampling_stage::penalties || stage == sampling_stage::dry;
  if (is_greedy()) return only_changes_logits;
  if (options.mirostat != 0) return only_changes_logits || stage == sampling_stage::temperature;
  return true;
}

void sampler::state::apply(sampling_stage stage, std::span<const token> history,
                           std::mt19937_64& numbers) {
  const sampling_options& o = options;
  switch (stage) {
    case sampling_stage::penalties:
      if (uses_penalties(o)) sampling::apply_penalties(pool, o, history, marks);
      break;
    case sampling_stage::dry:
      if (uses_dry(o)) dry.apply(pool, o, texts ? &*texts : nullptr, history, marks);
      break;
    case sampling_stage::top_n_sigma:
      if (o.top_n_sigma > 0) apply_top_n_sigma();
      break;
    case sampling_stage::top_k:
      // Fan et al., 2018, arXiv:1805.04833
      if (o.top_k > 0) pool.keep_best(static_cast<std::size_t>(o.top_k));
      break;
    case sampling_stage::typical:
      if (o.typical < 1) pool.keep_typical(o.typical);
      break;
    case sampling_stage::top_p:
      if (o.top_p < 1) pool.keep_probable(o.top_p);
      break;
    case sampling_stage::min_p:
      // Nguyen et al., 2024, arXiv:2407.01082
      if (o.min_p > 0) pool.keep_within(-std::log(o.min_p));
      break;
    case sampling_stage::xtc:
      // designed by P. E. Weidmann: pull request 6335 of oobabooga/text-generation-webui, 2024
      if (o.xtc_probability > 0 && o.xtc_threshold <= 0.5f &&
          sampling::uniform(numbers) < o.xtc_probability) {
        pool.drop_top_choices(o.xtc_threshold);
      }
      break;
    case sampling_stage::temperature:
      apply_temperature();
      break;
  }
}

// Tang et al., 2024, arXiv:2411.07641. Their sigma is that of the whole population.
void sampler::state::apply_top_n_sigma() {
  double count = 0, sum = 0, squares = 0;
  const double best = pool.best();
  pool.for_each_logit([&](float x) {
    count += 1;
    sum += best - x;
  });
  const double mean = sum / count;
  pool.for_each_logit([&](float x) {
    const double off = best - x - mean;
    squares += off * off;
  });
  const double deviation = std::sqrt(squares / count);
  pool.keep_logits_within(options.top_n_sigma * deviation);
}

// Dynamic: pull request 4972 of llama.cpp, 2024.
void sampler::state::apply_temperature() {
  const double middle = options.temperature, range = options.dynatemp_range;
  if (!(range > 0)) return pool.divide_by(middle);
  const double greatest_entropy = std::log(static_cast<double>(pool.count()));
  if (!(greatest_entropy > 0)) return;  // one token: no temperature changes it
  const double least = std::max(0.0, middle - range);
  const double share = std::clamp(pool.measure().entropy / greatest_entropy, 0.0, 1.0);
  const double temperature =
      least + (middle + range - least) * std::pow(share, options.dynatemp_exponent);
  if (static_cast<float>(temperature) > 0) {
    pool.divide_by(temperature);
  } else {
    pool.keep_best(1);
  }
}

// Basu et al., 2020, arXiv:2007.14966; the second version in the authors' code: tokens whose
// surprise is greater than mu are left out.
void sampler::state::apply_mirostat() {
  const double most = surprise_limit * std::log(2.0) - std::log(pool.measure().sum);
  if (most >= 0) {
    pool.keep_within(sampling::clamp_to_finite(most));
  } else {
    pool.keep_best(1);
  }
}

void sampler::state::learn(float probability) {
  if (options.mirostat == 0 || is_greedy()) return;
  // what is drawn has a probability, even if a float cannot hold it
  const double surprise = -std::log2(std::max(probability, std::numeric_limits<float>::min()));
  surprise_limit -= options.mirostat_eta * (surprise - options.mirostat_tau);
}

// Leaves the tokens to draw from in the pool.
void sampler::state::prepare(std::span<const float> logits, std::span<const token> history,
                             std::mt19937_64& numbers) {
  load(logits);
  for (const sampling_stage stage : options.order) {
    if (takes_part(stage)) apply(stage, history, numbers);
  }
  if (is_greedy()) {
    pool.keep_best(1);
  } else if (options.mirostat != 0) {
    apply_mirostat();
  }
}

sampler::sampler(const sampling_options& options, const tokenizer* texts) {
  validate(options);
  if (uses_dry(options) && !options.dry_sequence_breakers.empty() && texts == nullptr) {
    throw error(errc::invalid_argument,
                "DRY's sequence breakers are texts, but there is no vocabulary that gives the "
                "texts of tokens; pass a tokenizer, or leave dry_sequence_breakers empty.");
  }
  with_memory_for("the sampler", [&] {
    const std::uint64_t seed = options.seed ? *options.seed : std::random_device{}();
    state_ = std::make_unique<state>(
        state{.options = options,
              .texts = texts == nullptr ? std::nullopt : std::optional(*texts),
              .seed = seed,
              .random = std::mt19937_64(seed),
              .surprise_limit = 2.0 * options.mirostat_tau});
  });
}

sampler::sampler(const sampler& other)
    : state_(
          with_memory_for("the sampler", [&] { return std::make_unique<state>(*other.state_); })) {}
sampler& sampler::operator=(const sampler& other) {
  if (this != &other) *this = sampler(other);
  return *this;
}
sampler::sampler(sampler&&) noexcept = default;
sampler& sampler::operator=(sampler&&) noexcept = default;
sampler::~sampler() = default;

std::span<const sampler::candidate> sampler::candidates(std::span<const float> logits,
                                                        std::span<const token> history) {
  return with_memory_for("the logits of a vocabulary", [&] {
    std::mt19937_64 numbers = state_->random;  // as sample() will take them
    state_->prepare(logits, history, numbers);
    return state_->pool.to_probabilities();
  });
}

token sampler::sample(std::span<const float> logits, std::span<const token> history) {
  return with_memory_for("the logits of a vocabulary", [&] {
    state_->prepare(logits, history, state_->random);
    const candidate drawn = state_->pool.draw(state_->random);
    state_->learn(drawn.probability);
    return drawn.id;
  });
}

std::uint64_t sampler::seed() const noexcept {
  return state_->seed;
}
const sampling_options& sampler::options() const noexcept {
  return state_->options;
}

void sampler::check_vocabulary(std::int32_t n_vocab) const {
  check_bias_ids(state_->options.logit_bias, static_cast<std::size_t>(n_vocab));
}

}  // namespace nibble::inline NIBBLE_ABI
