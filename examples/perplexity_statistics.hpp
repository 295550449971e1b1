// What nibble-perplexity adds up: how well logits predict a text, and how far one model's are from
// another's. Everything in double precision.
#pragma once

#include <cstdint>
#include <limits>
#include <nibble/device/batch.hpp>
#include <span>
#include <vector>

namespace perplexity {

// Mean of numbers that come one by one, and its standard error if they are independent.
// B. P. Welford, Technometrics 4 (1962), 419.
class running_mean {
 public:
  void add(double x);

  std::int64_t count() const noexcept { return count_; }
  double mean() const noexcept { return mean_; }
  // sqrt(sample variance / count); not a number below two of them
  double standard_error() const;

 private:
  std::int64_t count_ = 0;
  double mean_ = 0, squares_ = 0;  // squares: sum of (x - mean)^2
};

// -ln of the probability that the logits, [n_vocab], give the token.
// Throws nibble::error (device) if one of them is not a number, or infinite.
double nats_of(std::span<const float> logits, nibble::token target);

// One position of a text, as a model and a reference see it.
struct position {
  double nats = 0, reference_nats = 0;  // -ln of the probability of the token that follows
  double divergence = 0;  // Kullback and Leibler's, sum p_reference ln(p_reference / p), in nats
  bool same_top = false;  // both find the same token most probable
};

// Both [n_vocab]. Throws as nats_of.
position compare(std::span<const float> logits, std::span<const float> reference,
                 nibble::token target);

// How well a text is predicted.
class prediction {
 public:
  // bytes: of the token in the text
  void add(double nats, std::size_t bytes);

  std::int64_t tokens() const noexcept { return nats_.count(); }
  double nats() const noexcept { return nats_.mean(); }  // a token
  double nats_error() const { return nats_.standard_error(); }
  double perplexity() const;        // exp(nats)
  double perplexity_error() const;  // to first order
  double bits_per_byte() const;     // not a number if no bytes were given

 private:
  running_mean nats_;
  std::uint64_t bytes_ = 0;
};

// The value below which a share q of the sorted values lies, between two of them by linear
// interpolation: definition 7 of Hyndman and Fan, The American Statistician 50 (1996), 361.
double quantile(std::span<const double> sorted, double q);

// How far a model is from a reference. Keeps one number for each position.
class comparison {
 public:
  void add(const position& at);

  const running_mean& divergence() const noexcept { return divergence_; }
  // 0 <= q <= 1; 0.5 is the median, 1 the maximum
  std::vector<double> divergence_quantiles(std::span<const double> q) const;
  const running_mean& same_top() const noexcept { return same_top_; }  // mean: the share
  // of the probability of the token that follows: the model's minus the reference's
  const running_mean& difference() const noexcept { return difference_; }
  double difference_rms() const;
  // perplexity of the model / perplexity of the reference, and its standard error from the
  // differences position by position
  double ratio() const;
  double ratio_error() const;

 private:
  running_mean divergence_, same_top_, difference_, squared_difference_, nats_difference_;
  std::vector<double> divergences_;
};

}  // namespace perplexity
