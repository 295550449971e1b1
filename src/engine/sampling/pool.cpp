#include "engine/sampling/pool.hpp"

#include <cmath>

#include "engine/sampling/exp.hpp"

namespace nibble::inline NIBBLE_ABI::sampling {

namespace {

// Loops over this many running results become vector code on every instruction set.
constexpr std::size_t lanes = 16;

// A distance from which on a weight is 0 as a float.
constexpr float far_away = 104;

}  // namespace

void pool::load(std::span<const float> logits) {
  vocabulary_ = logits.size();
  logits_.resize((logits.size() + block_size - 1) / block_size * block_size);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    constexpr float most = std::numeric_limits<float>::max();
    // a NaN would break the order; minus infinity means that the token is forbidden
    logits_[i] = std::abs(logits[i]) <= most ? logits[i] : gone;
  }
  std::fill(logits_.begin() + static_cast<std::ptrdiff_t>(logits.size()), logits_.end(), gone);
  list_.clear();
  temperature_ = 1;
  dense_ = true;
  best_known_ = sorted_ = false;
}

void pool::find_block_bests() {
  block_best_.resize(logits_.size() / block_size);
  for (std::size_t b = 0; b < block_best_.size(); ++b) {
    const float* const x = logits_.data() + b * block_size;
    float most[lanes];
    std::copy(x, x + lanes, most);
    for (std::size_t i = lanes; i < block_size; i += lanes) {
      for (std::size_t j = 0; j < lanes; ++j) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    }
    block_best_[b] = *std::max_element(most, most + lanes);
  }
}

float pool::best() {
  if (best_known_) return best_;
  best_ = gone;
  if (dense_) {
    find_block_bests();
    for (const float x : block_best_) best_ = std::max(best_, x);
  } else if (sorted_ && !list_.empty()) {
    best_ = list_.front().probability;
  } else {
    for (const candidate& c : list_) best_ = std::max(best_, c.probability);
  }
  best_known_ = true;
  return best_;
}

void pool::settle_temperature() {
  if (temperature_ == 1) return;
  const double divisor = temperature_;
  const auto divide = [divisor](float x) { return x > gone ? clamp_to_finite(x / divisor) : x; };
  for (float& x : logits_) x = divide(x);
  for (candidate& c : list_) c.probability = divide(c.probability);
  temperature_ = 1;
  best_known_ = sorted_ = false;  // different logits may have become equal
}

std::size_t pool::count() const {
  std::size_t count = 0;
  for_each_logit([&](float) { ++count; });
  return count;
}

double pool::weight(float logit) {
  return std::exp((logit - best()) / temperature_);
}

// Every loop has a fixed number of rounds and no branch, so that it becomes vector code.
pool::moments pool::measure_dense() {
  const float best = this->best();
  // beside less than the least normal number, distances are 0 or out of reach in any case
  const float inverse = 1 / std::max(temperature_, std::numeric_limits<float>::min());
  double sum = 0, energy = 0;
  for (std::size_t b = 0; b < block_best_.size(); ++b) {
    if (distance(block_best_[b]) > far_away) continue;
    const float* const x = logits_.data() + b * block_size;
    float near[block_size], w[block_size], e[block_size];
    for (std::size_t i = 0; i < block_size; ++i) {
      const float y = (x[i] - best) * inverse;
      near[i] = y > least_exponent ? y : least_exponent;
    }
    for (std::size_t i = 0; i < block_size; ++i) w[i] = exp_of_negative(near[i]);
    for (std::size_t i = 0; i < block_size; ++i) e[i] = w[i] * near[i];
    for (std::size_t half = block_size / 2; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) {
        w[i] += w[i + half];
        e[i] += e[i + half];
      }
    }
    sum += w[0];
    energy -= e[0];
  }
  return {sum, std::log(sum) + energy / sum};
}

pool::moments pool::measure() {
  if (dense_) return measure_dense();
  double sum = 0, energy = 0;
  for (const candidate& c : list_) {
    const double w = weight(c.probability);
    sum += w;
    if (w > 0) energy += w * distance(c.probability);
  }
  return {sum, std::log(sum) + energy / sum};
}

// Lists the tokens of blocks that reach `least`, if keep(logit).
template <typename Keep>
void pool::gather(float least, const Keep& keep) {
  best();
  list_.clear();
  for (std::size_t b = 0; b < block_best_.size(); ++b) {
    if (!(block_best_[b] >= least)) continue;
    for (std::size_t i = b * block_size; i < (b + 1) * block_size; ++i) {
      if (logits_[i] > gone && keep(logits_[i])) {
        list_.push_back({static_cast<token>(i), logits_[i]});
      }
    }
  }
  dense_ = sorted_ = false;
}

// A list of at most block_size * k tokens that has the best k: the k best blocks have k tokens at
// least as good as the last of these blocks' bests. Of those equal to it the first k will do.
void pool::gather_best(std::size_t k) {
  best();
  float least = std::numeric_limits<float>::lowest();
  if (k < block_best_.size()) {
    block_order_ = block_best_;
    const auto last = block_order_.begin() + static_cast<std::ptrdiff_t>(k) - 1;
    std::nth_element(block_order_.begin(), last, block_order_.end(), std::greater<>());
    least = std::max(least, *last);
  }
  std::size_t equal = 0;
  gather(least, [&](float x) { return x > least || (x == least && equal++ < k); });
}

void pool::keep_best(std::size_t k) {
  if (k >= size() && k > few) return;
  if (dense_) gather_best(k);
  k = std::min(k, list_.size());
  const auto end = list_.begin() + static_cast<std::ptrdiff_t>(k);
  if (!sorted_) {
    if (k < list_.size()) std::nth_element(list_.begin(), end - 1, list_.end(), before);
    if (k <= few) std::sort(list_.begin(), end, before);
    sorted_ = k <= few;
  }
  list_.erase(end, list_.end());
}

void pool::keep_within(float most) {
  if (dense_) {
    // blocks are chosen a little generously, as the bound on logits is rounded
    const float reach = most * temperature_;
    const float least = best() - reach - (std::abs(best()) + reach) * 1e-6f;
    gather(least, [&](float x) { return !(distance(x) > most); });
    return;
  }
  const float best = this->best();
  std::erase_if(list_,
                [&](const candidate& c) { return (best - c.probability) / temperature_ > most; });
}

void pool::keep_logits_within(double most) {
  keep_within(clamp_to_finite(most / temperature_));
}

void pool::sort() {
  if (dense_) gather(gone, [](float) { return true; });
  if (!sorted_) std::sort(list_.begin(), list_.end(), before);
  sorted_ = true;
}

// Puts the fewest tokens to the front, in this order, whose weights reach the target (or pass it),
// and returns how many; all, if they do not. The last of them stands last. Time grows linearly: the
// half in which the target is reached is searched on.
template <typename Before>
std::size_t pool::prefix(const Before& order, double target, bool pass) {
  const auto reached = [=](double sum) { return pass ? sum > target : sum >= target; };
  const auto at = [this](std::size_t i) { return list_.begin() + static_cast<std::ptrdiff_t>(i); };
  std::size_t from = 0, to = list_.size();
  double sum = 0;
  while (to - from > few) {
    const std::size_t middle = from + (to - from) / 2;
    std::nth_element(at(from), at(middle), at(to), order);
    double half = 0;
    for (std::size_t i = from; i < middle; ++i) half += weight(list_[i].probability);
    if (reached(sum + half)) {
      to = middle;
    } else {
      sum += half;
      from = middle;
    }
  }
  std::sort(at(from), at(to), order);
  while (from < to && !reached(sum)) sum += weight(list_[from++].probability);
  return std::max<std::size_t>(from, 1);
}

// Makes a list without tokens that are certainly none of the best that reach this share of `sum`:
// those so far from the best that all tokens together, if they were no nearer, had less than the
// rest.
void pool::keep_reaching(double share, double sum) {
  keep_within_rounded(std::log(static_cast<double>(vocabulary_) / ((1 - share) * sum)));
}

// A little is added for what rounding may have taken.
void pool::keep_within_rounded(double most) {
  keep_within(static_cast<float>(std::max(most, 0.0) + 0.01));
}

void pool::keep_probable(double share) {
  if (is_small()) sort();
  const double sum = measure().sum;
  if (dense_) keep_reaching(share, sum);
  const bool all_sorted = is_small();
  list_.resize(prefix(before, share * sum, false));
  sorted_ = all_sorted;
}

void pool::keep_typical(double share) {
  const auto [sum, entropy] = measure();
  const double log_sum = std::log(sum);
  const double allowance = std::log(static_cast<double>(size()) / (1 - share)) - entropy;
  // beyond this surprise all together have less than the rest that may go, and nothing above the
  // entropy lies as far from it
  if (dense_) keep_within_rounded(entropy + std::max(allowance, entropy) - log_sum);
  const float best = this->best();
  const auto strangeness = [&, offset = log_sum - entropy](const candidate& c) {
    return std::abs((static_cast<double>(best) - c.probability) / temperature_ + offset);
  };
  const auto order = [&](const candidate& a, const candidate& b) {
    const double of_a = strangeness(a), of_b = strangeness(b);
    return of_a != of_b ? of_a < of_b : before(a, b);
  };
  list_.resize(prefix(order, share * sum, false));
  best_known_ = sorted_ = false;
}

void pool::drop_top_choices(float probability) {
  const double sum = measure().sum;
  // most tokens need no exp
  const double reach = -std::log(probability * sum) + 0.01;
  const float best = this->best();
  const auto chosen = [&](float logit) {
    return (best - logit) / temperature_ <= reach &&
           static_cast<float>(weight(logit) / sum) >= probability;
  };
  candidate last{-1, std::numeric_limits<float>::max()};
  std::size_t count = 0;
  const auto find_last = [&](token id, float logit) {
    if (!chosen(logit)) return;
    ++count;
    if (last.id < 0 || before(last, {id, logit})) last = {id, logit};
  };
  if (dense_) {
    for (std::size_t i = 0; i < vocabulary_; ++i) {
      if (logits_[i] > gone) find_last(static_cast<token>(i), logits_[i]);
    }
  } else {
    for (const candidate& c : list_) find_last(c.id, c.probability);
  }
  if (count < 2) return;
  if (dense_) {
    for (std::size_t i = 0; i < vocabulary_; ++i) {
      if (logits_[i] > gone && static_cast<token>(i) != last.id && chosen(logits_[i])) {
        logits_[i] = gone;
      }
    }
  } else {
    std::erase_if(list_,
                  [&](const candidate& c) { return c.id != last.id && chosen(c.probability); });
  }
  best_known_ = false;
}

std::span<const pool::candidate> pool::to_probabilities() {
  sort();
  best_known_ = false;
  const float best = this->best();
  double sum = 0;
  for (candidate& c : list_) {
    c.probability = std::exp((c.probability - best) / temperature_);
    sum += c.probability;
  }
  for (candidate& c : list_) c.probability = static_cast<float>(c.probability / sum);
  // far below the best one nothing is left of a probability: such a token cannot be drawn
  while (list_.back().probability == 0) list_.pop_back();
  return list_;
}

// Whether there is more than one token whose weight is not 0.
bool pool::undecided() {
  best();
  std::size_t near = 0;
  const auto count = [&](float logit) { near += distance(logit) < far_away; };
  if (!dense_) {
    for (const candidate& c : list_) count(c.probability);
    return near > 1;
  }
  for (std::size_t b = 0; b < block_best_.size() && near < 2; ++b) {
    if (distance(block_best_[b]) >= far_away) continue;
    for (std::size_t i = 0; i < block_size; ++i) count(logits_[b * block_size + i]);
  }
  return near > 1;
}

// Without sorting all of them.
pool::candidate pool::draw_from_many(double at) {
  const double sum = measure().sum;
  if (dense_) keep_reaching(at, sum);
  std::size_t last = prefix(before, at * sum, true) - 1;
  while (last > 0 && weight(list_[last].probability) == 0) --last;  // the sums are rounded
  return {list_[last].id, static_cast<float>(weight(list_[last].probability) / sum)};
}

pool::candidate pool::draw(std::mt19937_64& random) {
  if (!is_small()) {
    if (undecided()) return draw_from_many(uniform(random));
    keep_best(1);
  }
  const auto left = to_probabilities();
  if (left.size() == 1) return left.front();
  double at = uniform(random);
  for (const candidate& c : left) {
    at -= c.probability;
    if (at < 0) return c;
  }
  return left.back();  // the probabilities' sum may miss 1 by rounding
}

}  // namespace nibble::inline NIBBLE_ABI::sampling
