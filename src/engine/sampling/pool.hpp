// The tokens that may still be drawn, with their logits: what the stages of a sampler work on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nibble/engine/sampler.hpp>
#include <random>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI::sampling {

// More probable first; equal ones by id, so that results do not depend on the sorting algorithm.
// `probability` stands for a logit until the pool says otherwise.
inline bool before(const sampler::candidate& a, const sampler::candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

inline float clamp_to_finite(double logit) {
  constexpr double most = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(logit, -most, most));
}

// std::uniform_real_distribution differs between standard libraries; this does not. In [0, 1).
inline double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

// A whole vocabulary lies as one logit for each id, in blocks whose greatest logits are known, so
// that a selection looks into few of them. What a selection keeps becomes a list.
//
// `distance` is (best logit - logit) / temperature, so exp(-distance) is the weight of a token: its
// probability times the sum of all weights. No sum of large logits is formed, because it would
// round away what is small beside them.
class pool {
 public:
  using candidate = sampler::candidate;

  // Logits that are no finite numbers mean that the token cannot be drawn.
  void load(std::span<const float> logits);
  bool empty() { return !(best() > gone); }
  std::size_t vocabulary() const { return vocabulary_; }

  // f(id, logit) gives a new logit, or minus infinity to remove the token. It is called for these
  // ids, and maybe for others, whose logits it must return as they are.
  template <typename F>
  void edit(std::span<const token> ids, const F& f);
  template <typename F>  // f(logit) is called for each token there is
  void for_each_logit(const F& f) const;

  void divide_by(double temperature) { temperature_ = static_cast<float>(temperature); }
  // Brings the temperature into the logits, for what changes logits after it.
  void settle_temperature();

  struct moments {
    double sum;      // of the weights; at least 1, the best one's
    double entropy;  // of the probabilities, in nats
  };
  moments measure();
  std::size_t count() const;  // tokens there are
  float best();
  float distance(float logit) { return (best() - logit) / temperature_; }

  void keep_best(std::size_t k);         // these many, at least 1
  void keep_within(float most);          // up to this distance; most >= 0
  void keep_logits_within(double most);  // logits this far below the best; most >= 0
  void keep_probable(double share);      // the fewest best whose probabilities reach the share
  void keep_typical(double share);       // likewise, those whose surprise is near the entropy
  // Those at or above this probability go, but for the last of them.
  void drop_top_choices(float probability);

  // Sorts, and turns logits into probabilities that sum to 1. The pool is spent.
  std::span<const candidate> to_probabilities();
  // The token at which the sum of the probabilities, best first, passes a random number, and its
  // probability. No number is taken if only one token is left. The pool is spent.
  candidate draw(std::mt19937_64& random);

 private:
  static constexpr float gone = -std::numeric_limits<float>::infinity();
  static constexpr std::size_t block_size = 64;
  // up to so many are sorted at once; a longer list is cut by halves first
  static constexpr std::size_t few = 1024;

  void find_block_bests();
  template <typename Keep>
  void gather(float least, const Keep& keep);
  void gather_best(std::size_t k);
  void keep_reaching(double share, double sum);
  void keep_within_rounded(double most);
  // what count() is at most
  std::size_t size() const { return dense_ ? vocabulary_ : list_.size(); }
  bool is_small() const { return size() <= few; }
  void sort();
  bool undecided();
  candidate draw_from_many(double at);
  double weight(float logit);
  template <typename Before>
  std::size_t prefix(const Before& order, double target, bool pass);
  moments measure_dense();

  std::size_t vocabulary_ = 0;
  std::vector<float> logits_;       // [blocks * block_size], the rest minus infinity
  std::vector<float> block_best_;   // [blocks]
  std::vector<float> block_order_;  // scratch, [blocks]
  std::vector<candidate> list_;
  float best_ = gone, temperature_ = 1;
  bool dense_ = true, best_known_ = false, sorted_ = false;
};

template <typename F>
void pool::edit(std::span<const token> ids, const F& f) {
  if (dense_) {
    for (const token id : ids) {
      float& logit = logits_[static_cast<std::size_t>(id)];
      if (logit > gone) logit = f(id, logit);
    }
  } else {
    for (candidate& c : list_) c.probability = f(c.id, c.probability);
    std::erase_if(list_, [](const candidate& c) { return !(c.probability > gone); });
  }
  best_known_ = sorted_ = false;
}

template <typename F>
void pool::for_each_logit(const F& f) const {
  if (dense_) {
    for (const float logit : logits_) {
      if (logit > gone) f(logit);
    }
  } else {
    for (const candidate& c : list_) f(c.probability);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::sampling
