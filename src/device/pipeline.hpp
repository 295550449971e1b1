// A model's segments, each on its device, run one after another; parts of a long batch follow each
// other, so that several devices work at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

class pipeline {
 public:
  struct segment {
    std::unique_ptr<program> steps;
    std::size_t device = 0;
    bool head_only = false;  // has nothing to do where no logits are wanted
  };
  struct device {
    kv_cache* cache = nullptr;  // null: no layer keeps anything there
    bool waits = false;         // submit() returns before the work is done
  };
  struct sizes {
    std::int32_t part = 0;  // tokens that run through a segment together
    std::int64_t n_embd = 0, n_vocab = 0;
    std::int32_t max_tokens = 0, max_outputs = 0;  // of a batch
  };

  // Takes the memory that run() needs, but for a first batch of many sequences.
  pipeline(std::vector<segment> segments, std::vector<device> devices, const sizes& of);

  // Bytes of the host's memory that a pipeline of more than one segment takes.
  static std::uint64_t host_bytes(const sizes& of);

  // The logits of the outputs, [outputs, n_vocab], valid until the next run. Caches named in the
  // batch are not looked at: each device has its own. `progress`, unless it is empty, is called now
  // and then with the share that is done, below 1. Throws as it, program::submit() and wait(); what
  // was started is over then.
  std::span<const float> run(const batch& work, const std::function<void(double)>& progress = {});

 private:
  // Consecutive tokens of a batch.
  struct part {
    std::span<const token> tokens;
    std::vector<batch_chunk> chunks;
    std::vector<std::int32_t> outputs;
    std::int32_t first_output = 0;  // in the batch
  };

  void cut(const batch& work);
  void run_tick(std::size_t tick);
  // The next segment on this device that has something to do in a tick; n_segments if none has.
  std::size_t next_on(std::size_t d, std::size_t from, std::size_t tick) const;
  void start(std::size_t s, std::size_t p);
  void finish(std::size_t s, std::size_t p);
  void abandon() noexcept;
  batch work_of(const part& p, std::size_t d);
  std::span<float> hidden_of(std::size_t p);  // [tokens, n_embd]

  std::vector<segment> segments_;
  std::vector<device> devices_;
  sizes of_;
  std::vector<std::size_t> order_;    // of devices: those first that do not make the caller wait
  std::vector<std::size_t> started_;  // by device: the segment that runs there
  std::vector<std::size_t> next_;     // by device, within a tick
  std::vector<part> parts_;
  std::size_t n_parts_ = 0;
  std::vector<batch_chunk> chunks_;  // of the part that is being submitted
  std::vector<float> hidden_;        // between segments, of each part
  std::vector<float> logits_;        // of all parts
};

}  // namespace nibble::inline NIBBLE_ABI
