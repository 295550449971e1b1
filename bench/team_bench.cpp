// What threads cost each other: an empty step, which is one barrier, and a run without steps.
//
// Names: team/barrier/threads/N, real time.
#include <benchmark/benchmark.h>

#include <string>
#include <thread>

#include "device/thread_team.hpp"

namespace {

constexpr int barriers = 1000;

void barrier(benchmark::State& state, int threads) {
  nibble::thread_team team(threads);
  for (auto _ : state) {
    team.run([&](int) {
      for (int i = 0; i < barriers; ++i) team.barrier();
    });
  }
  state.counters["each"] = benchmark::Counter(
      barriers, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void run(benchmark::State& state, int threads) {
  nibble::thread_team team(threads);
  for (auto _ : state) team.run([](int) {});
}

const bool added = [] {
  const int most = static_cast<int>(std::thread::hardware_concurrency());
  for (int threads = 2; threads <= most; threads *= 2) {
    const std::string n = std::to_string(threads);
    benchmark::RegisterBenchmark(("team/barrier/threads/" + n).c_str(), barrier, threads)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(("team/run/threads/" + n).c_str(), run, threads)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
