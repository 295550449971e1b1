// What this machine can do at best: the limits that a model's speed is compared with.
#pragma once

#include <string>
#include <vector>

namespace bench {

double median(std::vector<double> x);

// Measures a little whenever it is asked to, and gives the medians of all that it has seen: the
// speed of a shared machine drifts, so limits are measured both before and after the work.
class peaks {
 public:
  explicit peaks(int threads) : threads_(threads) {}

  // Takes a buffer larger than the caches meanwhile. Throws std::bad_alloc.
  void measure();

  // Bytes read from memory by all threads, 1e9 a second.
  double bandwidth() const { return median(bandwidth_); }
  // Multiply-accumulates of 8-bit integers by all threads in registers, 1e9 a second.
  double integer_rate() const { return median(integer_); }
  // The instructions that integer_rate() was measured with.
  static std::string integer_instructions();

 private:
  int threads_;
  std::vector<double> bandwidth_, integer_;  // one of each pass
};

}  // namespace bench
