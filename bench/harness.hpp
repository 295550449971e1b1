// What the files *_bench.cpp share: each registers its own benchmarks before main() runs.
//
// Names are kernel/format/isa/size, which is what filters and the tables at the end go by. The
// limits of the machine are measured by the same thread right before and right after each
// benchmark, because a shared machine's speed doubles and halves within minutes. All rates are in
// the thread's own processor time.
#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "peaks/peaks.hpp"

namespace bench {

// What one iteration does.
struct work {
  double macs = 0;    // multiply-accumulates
  double bytes = 0;   // of weights, keys, values or rows, each counted once
  double values = 0;  // shown as a rate if it is not 0
};

// What that is compared with.
struct limits {
  enum class bytes_from { memory, cache };

  const peak_loops& loops;
  peak_loop compute{};  // one of them; without instructions: nothing
  bytes_from source = bytes_from::memory;
};

// Measures the limits when it is made and when it finishes, and writes the counters of `state`.
class meter {
 public:
  meter(const limits& what, const benchmark::State& state);
  void finish(const work& each, benchmark::State& state);

 private:
  struct sample {
    double macs, bytes;  // 1e9 a second; 0: not measured
  };
  sample measure(const benchmark::State& state) const;

  limits what_;
  sample before_;
  double start_;  // thread_seconds()
};

template <typename Body>
void measure(benchmark::State& state, const limits& what, const work& each, Body body) {
  meter m(what, state);
  for (auto _ : state) {
    body();
    benchmark::ClobberMemory();
  }
  m.finish(each, state);
}

// The buffer made last, if it has this name; else `make` makes one in its place. So that
// benchmarks of one format share their weights and do not pile up.
std::shared_ptr<const buffer> shared_buffer(const std::string& name,
                                            const std::function<std::shared_ptr<buffer>()>& make);

inline std::string join(std::string_view kernel, std::string_view format, std::string_view isa,
                        std::int64_t size) {
  std::string name(kernel);
  for (const std::string_view part : {format, isa}) name.append("/").append(part);
  return name + "/" + std::to_string(size);
}

}  // namespace bench
