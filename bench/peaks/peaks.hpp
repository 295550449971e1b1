// What this machine can do at best: the limits that speeds are compared with. One definition for
// nibble-bench and nibble-microbench.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "peaks/loops.hpp"

namespace bench {

double median(std::vector<double> x);

// Memory that is not shared with anything: in huge pages where the system grants them, as the
// weights of a model are. Throws std::bad_alloc.
class buffer {
 public:
  explicit buffer(std::size_t size);
  ~buffer();
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;

  std::uint64_t* data() const { return data_; }
  std::size_t size() const { return bytes_; }

 private:
  std::uint64_t* data_;
  std::size_t bytes_;
};

// Four times the largest cache, so that little of one pass is left for the next; a multiple of
// 2 MiB.
std::size_t beyond_caches();

// Seconds that the calling thread has been on a processor.
double thread_seconds();

// The rate of a loop on the calling thread, 1e9 a second of its processor time; about 2 ms. 0 if
// the instruction set has no such loop.
double measure_rate(const peak_loop& loop);

// Measures a little whenever it is asked to, and gives the medians of all that it has seen: the
// speed of a shared machine drifts, so limits are measured both before and after the work.
class peaks {
 public:
  // `isa` is that of the kernels in use.
  peaks(int threads, std::string_view isa) : threads_(threads), loops_(loops_of(isa)) {}

  // Takes a buffer larger than the caches meanwhile. Throws std::bad_alloc.
  void measure();

  // Bytes read from memory by all threads, 1e9 a second, with the better of the two loops.
  double bandwidth() const { return std::max(median(bandwidth_[0]), median(bandwidth_[1])); }
  // Multiply-accumulates of 8-bit integers by all threads in registers, 1e9 a second.
  double integer_rate() const { return median(integer_); }
  // The same where one factor has 4 bits, so that sums of 16 bits may do.
  double narrow_rate() const { return median(narrow_); }
  // The instructions that these are measured with.
  std::string integer_instructions() const { return loops_.int8.instructions; }
  std::string narrow_instructions() const { return loops_.int8_16.instructions; }

 private:
  int threads_;
  const peak_loops& loops_;
  std::vector<double> rates_of(const peak_loop& loop) const;

  // one of each pass
  std::array<std::vector<double>, 2> bandwidth_;  // by loop
  std::vector<double> integer_, narrow_;
};

}  // namespace bench
