#include "harness.hpp"

#include <algorithm>
#include <mutex>

namespace bench {
namespace {

// Bytes of memory read in a second by this thread, all threads of the benchmark at once, with the
// better loop.
double read_rate(const peak_loops& loops, int thread, int threads) {
  static const buffer memory = [] { return buffer(beyond_caches()); }();
  static std::once_flag touched;
  std::call_once(touched, [] { std::fill_n(memory.data(), memory.size() / 8, std::uint64_t{1}); });
  const std::size_t part = memory.size() / static_cast<std::size_t>(threads) & -read_step;
  const auto* const mine = reinterpret_cast<const unsigned char*>(memory.data()) +
                           static_cast<std::size_t>(thread) * part;
  double best = 0;
  for (const auto read : loops.read) {
    if (!read) continue;
    const double start = thread_seconds();
    read(mine, part);
    best = std::max(best, static_cast<double>(part) / (thread_seconds() - start) / 1e9);
  }
  return best;
}

}  // namespace

meter::meter(const limits& what, const benchmark::State& state)
    : what_(what), before_(measure(state)), start_(thread_seconds()) {}

meter::sample meter::measure(const benchmark::State& state) const {
  const bool memory = what_.source == limits::bytes_from::memory;
  return {measure_rate(what_.compute),
          memory ? read_rate(what_.loops, state.thread_index(), state.threads())
                 : measure_rate(what_.loops.cache)};
}

void meter::finish(const work& each, benchmark::State& state) {
  const double seconds = thread_seconds() - start_;
  const sample after = measure(state);
  const double times = static_cast<double>(state.iterations()) / seconds;
  const auto add = [&](const char* rate_name, const char* share_name, double amount, double a,
                       double b) {
    if (amount == 0) return;
    const double rate = amount * times / 1e9;
    state.counters[rate_name] = rate;  // summed over threads
    if (a + b > 0) {
      state.counters[share_name] =
          benchmark::Counter(2 * rate / (a + b), benchmark::Counter::kAvgThreads);
    }
  };
  add("GMAC/s", "of_peak", each.macs, before_.macs, after.macs);
  add("GB/s", what_.source == limits::bytes_from::memory ? "of_memory" : "of_cache", each.bytes,
      before_.bytes, after.bytes);
  if (each.values > 0) state.counters["Mvalues/s"] = each.values * times / 1e6;
}

std::shared_ptr<const buffer> shared_buffer(const std::string& name,
                                            const std::function<std::shared_ptr<buffer>()>& make) {
  static std::mutex mutex;
  static std::string held_name;
  static std::shared_ptr<const buffer> held;
  const std::scoped_lock lock(mutex);
  if (!held || held_name != name) {
    held.reset();  // before the next one is made
    held = make();
    held_name = name;
  }
  return held;
}

}  // namespace bench
