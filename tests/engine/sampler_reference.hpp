// The sampler's stages as docs/sampling.md defines them, in double precision and as plainly as can
// be; and draws compared with probabilities.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <random>

#include "chi_squared.hpp"
#include "engine_test.hpp"

namespace test {

using nibble::sampler;
using nibble::sampling_options;
using nibble::sampling_stage;
using nibble::token;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Every stage is off, the seed is 1.
inline sampling_options keep_all() {
  return {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 1};
}

struct expected {
  token id;
  double logit, probability;
};

// What the stages work on: always sorted, with probabilities at temperature 1.
class reference_list {
 public:
  explicit reference_list(std::span<const float> logits) {
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (std::isfinite(logits[i])) list.push_back({static_cast<token>(i), logits[i], 0});
    }
  }

  void refresh() {
    const auto before = [](const expected& a, const expected& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    };
    if (!std::is_sorted(list.begin(), list.end(), before)) {
      std::sort(list.begin(), list.end(), before);
    }
    double sum = 0;
    for (expected& e : list) sum += e.probability = std::exp(e.logit - list[0].logit);
    for (expected& e : list) e.probability /= sum;
  }
  double entropy() const {
    double sum = 0;
    for (const expected& e : list) {
      if (e.probability > 0) sum -= e.probability * std::log(e.probability);
    }
    return sum;
  }
  // The first ones in this order whose probabilities reach the share.
  template <typename Order>
  void keep_share(double share, const Order& order) {
    std::stable_sort(list.begin(), list.end(), order);
    double sum = 0;
    std::size_t kept = 0;
    while (kept < list.size() && (kept == 0 || sum < share)) sum += list[kept++].probability;
    list.resize(kept);
  }

  std::vector<expected> list;
};

inline std::span<const token> last_tokens(std::span<const token> history, std::int32_t n) {
  const auto size = static_cast<std::int32_t>(history.size());
  return history.last(static_cast<std::size_t>(n < 0 ? size : std::min(n, size)));
}

inline void reference_penalties(reference_list& r, const sampling_options& o,
                                std::span<const token> history) {
  const auto window = last_tokens(history, o.repeat_last_n);
  for (expected& e : r.list) {
    const auto times = static_cast<double>(std::count(window.begin(), window.end(), e.id));
    if (times == 0) continue;
    double x = e.logit > 0 ? e.logit / o.repeat_penalty : e.logit * o.repeat_penalty;
    x -= o.presence_penalty + o.frequency_penalty * times;
    e.logit = static_cast<float>(x);
  }
}

// By comparing every place with the end, token by token; without breakers.
inline void reference_dry(reference_list& r, const sampling_options& o,
                          std::span<const token> history) {
  const auto window = last_tokens(history, o.dry_penalty_last_n);
  std::map<token, std::size_t> longest;
  for (std::size_t at = 1; at < window.size(); ++at) {
    std::size_t length = 0;
    while (length < at && window[at - 1 - length] == window[window.size() - 1 - length]) ++length;
    longest[window[at]] = std::max(longest[window[at]], length);
  }
  for (expected& e : r.list) {
    const auto length = static_cast<std::int32_t>(longest[e.id]);
    if (length < o.dry_allowed_length) continue;
    e.logit =
        static_cast<float>(e.logit - o.dry_multiplier * std::pow(static_cast<double>(o.dry_base),
                                                                 length - o.dry_allowed_length));
  }
}

inline void reference_top_n_sigma(reference_list& r, double n) {
  double mean = 0, variance = 0;
  const auto count = static_cast<double>(r.list.size());
  for (const expected& e : r.list) mean += e.logit / count;
  for (const expected& e : r.list) variance += (e.logit - mean) * (e.logit - mean) / count;
  const double least = r.list[0].logit - n * std::sqrt(variance);
  std::erase_if(r.list, [&](const expected& e) { return e.logit < least; });
}

inline void reference_temperature(reference_list& r, const sampling_options& o) {
  double temperature = o.temperature;
  if (o.dynatemp_range > 0) {
    if (r.list.size() == 1) return;
    const double share = r.entropy() / std::log(static_cast<double>(r.list.size()));
    const double least = std::max(0.0, temperature - o.dynatemp_range);
    const double most = temperature + o.dynatemp_range;
    temperature = least + (most - least) * std::pow(share, o.dynatemp_exponent);
  }
  for (expected& e : r.list) e.logit /= temperature;
}

// XTC acts if its probability is not 0.
inline void reference_stage(reference_list& r, const sampling_options& o,
                            std::span<const token> history, sampling_stage stage) {
  auto& list = r.list;
  switch (stage) {
    case sampling_stage::penalties:
      return reference_penalties(r, o, history);
    case sampling_stage::dry:
      if (o.dry_multiplier > 0) reference_dry(r, o, history);
      return;
    case sampling_stage::top_n_sigma:
      if (o.top_n_sigma > 0) reference_top_n_sigma(r, o.top_n_sigma);
      return;
    case sampling_stage::top_k:
      if (o.top_k > 0 && static_cast<std::size_t>(o.top_k) < list.size()) {
        list.resize(static_cast<std::size_t>(o.top_k));
      }
      return;
    case sampling_stage::typical: {
      const auto off = [h = r.entropy()](const expected& e) {
        return std::abs(-std::log(e.probability) - h);
      };
      if (o.typical == 1) return;
      return r.keep_share(o.typical, [&](const auto& a, const auto& b) { return off(a) < off(b); });
    }
    case sampling_stage::top_p:
      if (o.top_p == 1) return;
      return r.keep_share(
          o.top_p, [](const auto& a, const auto& b) { return a.probability > b.probability; });
    case sampling_stage::min_p:
      std::erase_if(list, [&, least = o.min_p * list[0].probability](const expected& e) {
        return e.probability < least;
      });
      return;
    case sampling_stage::xtc: {
      if (o.xtc_probability == 0 || o.xtc_threshold > 0.5f) return;
      std::ptrdiff_t top = 0;
      for (const expected& e : list) top += e.probability >= o.xtc_threshold;
      if (top > 1) list.erase(list.begin(), list.begin() + top - 1);
      return;
    }
    case sampling_stage::temperature:
      return reference_temperature(r, o);
  }
}

inline std::vector<expected> reference(std::span<const float> logits, const sampling_options& o,
                                       std::span<const token> history = {}) {
  reference_list r(logits);
  for (const auto& [id, bias] : o.logit_bias) {
    for (expected& e : r.list) {
      if (e.id == id) e.logit = static_cast<float>(e.logit + bias);
    }
  }
  std::erase_if(r.list, [](const expected& e) { return std::isinf(e.logit); });
  const bool greedy = o.temperature == 0 && o.dynatemp_range == 0;
  for (const sampling_stage stage : o.order) {
    if (greedy && stage != sampling_stage::penalties && stage != sampling_stage::dry) continue;
    r.refresh();
    reference_stage(r, o, history, stage);
  }
  r.refresh();
  if (greedy) return {{r.list.front().id, r.list.front().logit, 1}};
  return r.list;
}

// Compares candidates with the reference: the same tokens, in the order of their probabilities,
// which differ by rounding only (`slack`, in units of 3e-7, for what is rounded before). A float
// holds no probability below 1e-45.
inline void compare(std::span<const float> logits, const sampling_options& o,
                    std::span<const token> history = {}, double slack = 2) {
  const auto wanted = reference(logits, o, history);
  std::map<token, expected> by_id;
  for (const expected& e : wanted) by_id[e.id] = e;
  sampler s(o);
  const auto found = s.candidates(logits, history);
  REQUIRE(found.size() <= wanted.size());
  if (found.size() < wanted.size()) REQUIRE(wanted[found.size()].probability < 1e-37);
  const auto agrees = [&](const sampler::candidate& c) {
    const auto e = by_id.find(c.id);
    if (e == by_id.end() || !(c.probability > 0)) return false;
    const double p = e->second.probability;
    if (p < 1e-37) return true;
    // the exponent is rounded to 24 bits a few times
    const double exponent = wanted[0].logit - e->second.logit;
    return std::abs(c.probability - p) <= 3e-7 * (slack + exponent) * p;
  };
  const auto ordered = [](const sampler::candidate& a, const sampler::candidate& b) {
    return a.probability >= b.probability;
  };
  std::size_t agreeing = 0;
  while (agreeing < found.size() && agrees(found[agreeing]) &&
         (agreeing == 0 || ordered(found[agreeing - 1], found[agreeing]))) {
    ++agreeing;
  }
  REQUIRE(agreeing == found.size());
}

// Draws by the options' seed against these probabilities, [id] -> probability.
inline void check_draws(std::span<const float> logits, const sampling_options& o,
                        const std::map<token, double>& wanted, std::span<const token> history = {},
                        int draws = 200'000) {
  sampler s(o);
  std::map<token, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[s.sample(logits, history)];
  const double p = p_of_counts(counts, wanted);
  INFO("the counts' p-value is " << p);
  CHECK(p > 1e-4);
}

// Logits of tokens whose probabilities are as these numbers.
inline std::vector<float> logits_of(std::initializer_list<double> shares) {
  std::vector<float> logits;
  for (const double p : shares) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

inline std::vector<float> random_logits(std::size_t n, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(random);
  return logits;
}

}  // namespace test
