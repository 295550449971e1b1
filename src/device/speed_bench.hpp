// What measure_speed() runs: weights of random bits, programs over them, and their times.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/speed.hpp>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Seconds since some point in time.
using speed_clock = std::function<double()>;

// measure_speed() by any clock.
device_speed measure_speed(backend& fresh, const speed_plan& plan, const speed_clock& now);

// Blocks of random bits with small scales: values that no product makes infinite.
void fill_with_weights(format_id format, std::span<std::byte> blocks);

// Weights that are all placed and filled at once.
class speed_weights {
 public:
  const weight* add(format_id format, std::int64_t columns, std::int64_t rows);
  void import_into(backend& to);

 private:
  std::deque<weight> weights_;  // a deque: they keep their addresses
};

// Keys and values of one sequence, filled.
class speed_cache_pages {
 public:
  speed_cache_pages(backend& on, const kv_layout& layout, std::int32_t tokens);
  batch_chunk chunk(std::int32_t count, std::int32_t n_past) const {
    return {cache_.get(), &table_, 0, count, n_past};
  }

 private:
  std::unique_ptr<kv_cache> cache_;
  kv_table table_;
};

// One program and the batch that it is run with.
class timed_program {
 public:
  // Without a cache, `tokens` of a sequence that has none before.
  timed_program(backend& on, recording steps, std::int32_t tokens, const speed_clock& now);
  timed_program(backend& on, recording steps, batch_chunk chunk, std::int32_t context,
                const speed_clock& now);

  double run();  // the seconds that it took

 private:
  std::unique_ptr<program> program_;
  std::vector<token> tokens_;
  batch_chunk chunk_;
  std::int32_t output_;
  const speed_clock& now_;
};

struct run_times {
  // Of each program, the middle of its runs; beside other programs, which make runs longer, what a
  // quarter of them does not exceed. A single least time is luck that a model's thousands of runs
  // do not have.
  std::vector<double> usual;
  double noise = 1;  // the middle of all runs, by what a quarter of them does not exceed
};

// Runs programs in turn, for about so long in all and so often each at most; a first round is not
// counted.
run_times time_in_turn(std::span<timed_program> programs, double seconds, int most,
                       const speed_clock& now);
double time_alone(timed_program& one, double seconds, int most, const speed_clock& now);

}  // namespace nibble::inline NIBBLE_ABI
