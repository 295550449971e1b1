// A step as the CPU runs it: compiled once from a recording, walked by all threads together.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/batch.hpp>
#include <nibble/device/steps.hpp>
#include <vector>

#include "cpu/kernel_table.hpp"
#include "device/thread_team.hpp"

namespace nibble::inline NIBBLE_ABI {

class cpu_kv_cache;

struct index_range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const noexcept { return end - begin; }
};

// Rows and columns are shared out in units of this many: one block of quantised activations, and no
// cache line that two threads write.
inline constexpr std::int64_t share_unit = 32;

// The part of n things that is this thread's. It depends on n alone, so steps that share out the
// same columns give each thread the same ones.
inline index_range share(std::int64_t n, int thread, int threads, std::int64_t unit = share_unit) {
  const std::int64_t units = (n + unit - 1) / unit;
  const std::int64_t begin = units * thread / threads * unit;
  const std::int64_t end = units * (thread + 1) / threads * unit;
  return {begin < n ? begin : n, end < n ? end : n};
}

// Where a token stands.
struct token_place {
  cpu_kv_cache* cache = nullptr;
  const kv_table* table = nullptr;
  std::int64_t index = 0;  // in its sequence
  std::int64_t place = 0;  // kv_table::place(index); what RoPE turns it by
  // Tokens that are gone from between those kept and this one.
  std::int64_t dropped() const noexcept { return place - index; }
};

// What changes from run to run.
struct cpu_run {
  thread_team* team = nullptr;
  std::int64_t tokens = 0, outputs = 0;
  const token* ids = nullptr;                                    // [tokens]
  const std::int32_t* output_tokens = nullptr;                   // [outputs]
  const token_place* places = nullptr;                           // [tokens]
  std::vector<std::vector<cpu::kv_page>>* page_lists = nullptr;  // by thread; room for any context

  int threads() const noexcept { return team->size(); }
  // One token: threads rather repeat a row's work than wait for each other.
  bool single() const noexcept { return tokens == 1; }
  std::int64_t rows(value_rows kind) const noexcept {
    return kind == value_rows::per_token ? tokens : outputs;
  }
};

// How the threads divide a step's values. Between two steps that both go by columns, each thread
// reads what it wrote itself.
enum class sharing {
  columns,  // share(width, ...) of every row
  other
};

class cpu_step {
 public:
  virtual ~cpu_step() = default;
  // By one thread, before all of them run.
  virtual void begin() {}
  virtual void run(const cpu_run& state, int thread) const = 0;

  // How it reads, and how it leaves what it writes, by whether the batch is a single token.
  virtual sharing enters(bool /*single*/) const { return sharing::other; }
  virtual sharing leaves(bool /*single*/) const { return sharing::other; }
  // Whether all threads meet inside it after the first reads and before the first writes of values.
  virtual bool meets_inside(bool /*single*/) const { return false; }
};

}  // namespace nibble::inline NIBBLE_ABI
