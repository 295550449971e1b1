// Pieces of work that threads take as they get to them.
#pragma once

#include <atomic>
#include <cstdint>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI {

// Shares n pieces out so that threads end together though one is slower than another: half of an
// equal share is each thread's own, whose memory lies together, and the rest goes to whoever comes.
class work_queue {
 public:
  // Before the threads begin.
  void reset() noexcept { taken_.store(0, std::memory_order_relaxed); }

  // Calls f(i) for some i of [0, n); all threads together for each of them once. Every thread calls
  // this once after a reset(), with the same n.
  template <typename F>
  void take(std::int64_t n, int thread, int threads, F&& f) {
    const std::int64_t own = n / 2 / threads;
    for (std::int64_t i = 0; i < own; ++i) f(own * thread + i);
    for (;;) {
      const std::int64_t i = own * threads + taken_.fetch_add(1, std::memory_order_relaxed);
      if (i >= n) return;
      f(i);
    }
  }

 private:
  alignas(64) std::atomic<std::int64_t> taken_{0};
};

}  // namespace nibble::inline NIBBLE_ABI
