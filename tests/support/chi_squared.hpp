// Pearson's test of counts against probabilities.
#pragma once

#include <cmath>
#include <map>
#include <span>

namespace test {

// The regularised upper incomplete gamma function Q(a, x), for a > 0 and x >= 0: its series below
// a + 1 (Abramowitz and Stegun, 6.5.29), its continued fraction above (6.5.31, by Lentz's method).
inline double upper_gamma(double a, double x) {
  if (x <= 0) return 1;
  const double front = std::exp(a * std::log(x) - x - std::lgamma(a));
  if (x < a + 1) {
    double term = 1 / a, sum = term;
    for (double n = a + 1; term > sum * 1e-16; ++n) sum += term *= x / n;
    return 1 - front * sum;
  }
  double b = x + 1 - a, c = 1e300, d = 1 / b, fraction = d;
  for (int i = 1; i < 10000; ++i) {
    const double an = i * (a - i);
    b += 2;
    d = 1 / (an * d + b);
    c = b + an / c;
    fraction *= c * d;
    if (std::abs(c * d - 1) < 1e-15) break;
  }
  return front * fraction;
}

// How probable a chi-squared statistic at least this great is.
inline double chi_squared_p(double statistic, double degrees) {
  return upper_gamma(degrees / 2, statistic / 2);
}

// How probable counts at least this far from `wanted` (probabilities) are. 0 if there is a count of
// what has none. Every expected count must be 5 at least, or the statistic is not chi-squared.
template <typename Key>
double p_of_counts(const std::map<Key, int>& counts, const std::map<Key, double>& wanted) {
  double draws = 0, sum = 0;
  for (const auto& [key, count] : counts) {
    if (count > 0 && wanted.count(key) == 0) return 0;
    draws += count;
  }
  for (const auto& [key, probability] : wanted) {
    const double mean = probability * draws;
    if (!(mean >= 5)) return -1;
    const auto found = counts.find(key);
    const double off = (found == counts.end() ? 0 : found->second) - mean;
    sum += off * off / mean;
  }
  if (wanted.size() == 1) return 1;
  return chi_squared_p(sum, static_cast<double>(wanted.size() - 1));
}

}  // namespace test
