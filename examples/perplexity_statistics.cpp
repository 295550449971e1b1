#include "perplexity_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <string>

namespace perplexity {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

// Index of the greatest, the lower one at a tie.
std::size_t find_top(std::span<const float> logits) {
  std::size_t top = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) {
      throw nibble::error(
          nibble::errc::device,
          nibble::concat("the logit of token ", i, " is ", logits[i],
                         ", which is no finite number: the model's weights or the device are at "
                         "fault."));
    }
    if (logits[i] > logits[top]) top = i;
  }
  return top;
}

}  // namespace

void running_mean::add(double x) {
  ++count_;
  const double before = x - mean_;
  mean_ += before / static_cast<double>(count_);
  squares_ += before * (x - mean_);
}

double running_mean::standard_error() const {
  if (count_ < 2) return none;
  const auto n = static_cast<double>(count_);
  return std::sqrt(squares_ / (n - 1) / n);
}

double nats_of(std::span<const float> logits, nibble::token target) {
  const double greatest = logits[find_top(logits)];
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - greatest);
  return std::log(sum) + (greatest - logits[static_cast<std::size_t>(target)]);
}

position compare(std::span<const float> logits, std::span<const float> reference,
                 nibble::token target) {
  const std::size_t q_top = find_top(logits), p_top = find_top(reference);
  const double q_greatest = logits[q_top], p_greatest = reference[p_top];
  double q_sum = 0, p_sum = 0, weighted = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double q = logits[i] - q_greatest, p = reference[i] - p_greatest;
    const double e = std::exp(p);
    q_sum += std::exp(q);
    p_sum += e;
    weighted += e * (p - q);
  }
  const double q_log = std::log(q_sum), p_log = std::log(p_sum);
  const auto at = static_cast<std::size_t>(target);
  return {.nats = q_log + (q_greatest - logits[at]),
          .reference_nats = p_log + (p_greatest - reference[at]),
          // below 0 only by rounding
          .divergence = std::max(0.0, weighted / p_sum + (q_log - p_log)),
          .same_top = p_top == q_top};
}

void prediction::add(double nats, std::size_t bytes) {
  nats_.add(nats);
  bytes_ += bytes;
}

double prediction::perplexity() const {
  return std::exp(nats());
}

double prediction::perplexity_error() const {
  return perplexity() * nats_error();
}

double prediction::bits_per_byte() const {
  if (bytes_ == 0) return none;
  return nats() * static_cast<double>(tokens()) / std::log(2.0) / static_cast<double>(bytes_);
}

double quantile(std::span<const double> sorted, double q) {
  if (sorted.empty()) return none;
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = at - static_cast<double>(below);
  return sorted[below] + share * (sorted[above] - sorted[below]);
}

void comparison::add(const position& at) {
  divergence_.add(at.divergence);
  divergences_.push_back(at.divergence);
  same_top_.add(at.same_top ? 1 : 0);
  const double difference = std::exp(-at.nats) - std::exp(-at.reference_nats);
  difference_.add(difference);
  squared_difference_.add(difference * difference);
  nats_difference_.add(at.nats - at.reference_nats);
}

std::vector<double> comparison::divergence_quantiles(std::span<const double> q) const {
  std::vector<double> sorted = divergences_;
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> found;
  for (const double each : q) found.push_back(quantile(sorted, each));
  return found;
}

double comparison::difference_rms() const {
  return std::sqrt(squared_difference_.mean());
}

double comparison::ratio() const {
  return std::exp(nats_difference_.mean());
}

double comparison::ratio_error() const {
  return ratio() * nats_difference_.standard_error();
}

}  // namespace perplexity
