#include <algorithm>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/engine/sampler.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

template <typename T>
[[noreturn]] void refuse(const char* option, T value, const char* right) {
  throw error(errc::invalid_argument,
              concat("the sampling option ", option, " is ", value, "; it must be ", right, "."));
}

void check(const sampling_options& o) {
  if (!(o.temperature >= 0) || !std::isfinite(o.temperature)) {
    refuse("temperature", o.temperature, "a finite number, 0 or greater");
  }
  if (o.top_k < 0) refuse("top_k", o.top_k, "0 (all) or greater");
  if (!(o.top_p > 0 && o.top_p <= 1)) refuse("top_p", o.top_p, "greater than 0, at most 1");
  if (!(o.min_p >= 0 && o.min_p <= 1)) refuse("min_p", o.min_p, "between 0 and 1");
}

// std::uniform_real_distribution differs between standard libraries; this does not.
double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

// More probable first; equal ones by id, so that results do not depend on the sorting algorithm.
bool before(const sampler::candidate& a, const sampler::candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

}  // namespace

sampler::sampler(const sampling_options& options)
    : options_(options),
      seed_(options.seed ? *options.seed : std::random_device{}()),
      random_(seed_) {
  check(options);
}

// Sorts the best k to the front and drops the others.
void sampler::keep_top_k(std::size_t k) {
  k = std::min(k, work_.size());
  const auto end = work_.begin() + static_cast<std::ptrdiff_t>(k);
  if (k < work_.size()) std::nth_element(work_.begin(), end - 1, work_.end(), before);
  std::sort(work_.begin(), end, before);
  work_.resize(k);
}

// Logits (sorted, best first) become probabilities at this temperature.
void sampler::to_probabilities(float temperature) {
  const float best = work_.front().probability;
  double sum = 0;
  for (candidate& c : work_) {
    c.probability = std::exp((c.probability - best) / temperature);
    sum += c.probability;
  }
  for (candidate& c : work_) c.probability = static_cast<float>(c.probability / sum);
  // far below the best one nothing is left of a probability: such a token cannot be drawn
  while (work_.back().probability == 0) work_.pop_back();
}

// top_p and min_p look at probabilities at temperature 1, while the candidates still hold logits.
void sampler::keep_top_p() {
  if (options_.top_p >= 1) return;
  const float best = work_.front().probability;
  double sum = 0;
  for (const candidate& c : work_) sum += std::exp(c.probability - best);
  double reached = 0;
  std::size_t kept = 0;
  while (kept < work_.size() && reached < options_.top_p * sum) {
    reached += std::exp(work_[kept++].probability - best);
  }
  work_.resize(std::max<std::size_t>(kept, 1));
}

void sampler::keep_min_p() {
  if (options_.min_p <= 0) return;
  // the difference, because a sum would round away what is small beside a large logit
  const float best = work_.front().probability, least = std::log(options_.min_p);
  const auto below = [=](const candidate& c) { return c.probability - best < least; };
  const auto end = std::find_if(work_.begin() + 1, work_.end(), below);
  work_.erase(end, work_.end());
}

std::span<const sampler::candidate> sampler::candidates(std::span<const float> logits) {
  work_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    // a NaN would break the order; minus infinity means that the token is forbidden
    if (std::isfinite(logits[i])) work_.push_back({static_cast<token>(i), logits[i]});
  }
  if (work_.empty()) {
    throw error(errc::device,
                "none of the logits is a number: the model's weights or the device "
                "are at fault.");
  }
  const bool greedy = options_.temperature == 0;
  const auto k = static_cast<std::size_t>(options_.top_k);
  keep_top_k(greedy ? 1 : k == 0 ? work_.size() : k);
  if (!greedy) {
    keep_top_p();
    keep_min_p();
  }
  to_probabilities(greedy ? 1.0f : options_.temperature);
  return work_;
}

token sampler::sample(std::span<const float> logits) {
  const auto left = candidates(logits);
  if (left.size() == 1) return left.front().id;
  double at = uniform(random_);
  for (const candidate& c : left) {
    at -= c.probability;
    if (at < 0) return c.id;
  }
  return left.back().id;  // the probabilities' sum may miss 1 by rounding
}

}  // namespace nibble::inline NIBBLE_ABI
