// Which block of a model runs on which device, and what that takes: decided before anything is
// allocated, reported afterwards.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/model/arch.hpp>
#include <nibble/plan/options.hpp>
#include <nibble/plan/token_cost.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Bytes on one device, by what they are for.
struct device_use {
  device_info device;
  std::uint64_t weights = 0;    // with the ring and the experts of a device that has them
  std::uint64_t kv = 0;         // of all sessions
  std::uint64_t workspace = 0;  // activations, scratch
  std::uint64_t transfers =
      0;  // on the CPU: of the host's memory, for what crosses to other devices
  std::uint64_t overhead = 0;  // what the device's driver takes for itself
  std::uint64_t budget = 0;    // that all of this may take; 0: not limited
  expert_cache experts = {};   // of `weights`: routed experts that were read from disk

  std::uint64_t total() const { return weights + kv + workspace + transfers + overhead; }
};

struct placed_block {
  block_id block;
  std::int32_t device = 0;     // index into placement::devices
  std::uint64_t weights = 0;   // that stay in the device's memory
  std::uint64_t streamed = 0;  // that pass through its ring, read from disk at each run
  // Of its routed experts, read from disk when a token goes through one that is not in memory.
  std::uint64_t on_demand = 0;
};

// Consecutive blocks on one device: blocks [first, last). On disk, each is by itself.
struct placed_segment {
  std::size_t first = 0, last = 0;
  std::int32_t device = 0;
};

// How fast the model is expected to be, in tokens a second; 0: not predicted.
struct predicted_speed {
  double prompt = 0;
  double generation = 0;
};

struct NIBBLE_API placement {
  std::vector<device_use> devices;
  std::vector<placed_block> blocks;  // in the order in which they run
  std::int32_t context = 0, sessions = 1;
  kv_layout kv;
  std::vector<std::int32_t> kv_pages;  // of each group of layers
  program_limits limits;               // of a batch
  std::int32_t part = 0;               // tokens of a batch that pass a segment together
  std::uint64_t host_bytes = 0;        // of the host's memory, for what crosses between devices
  token_cost cost;
  predicted_speed predicted;
  // Whether it is proven that no placement takes less time where devices wait for each other. False
  // also for one that was chosen because parts of prompts overlap.
  bool optimal = true;
  std::vector<std::string> reasons;  // one sentence for each decision and fallback

  std::vector<placed_segment> segments() const;
  // Whether a layer's keys and values lie on this device; by layer.
  std::vector<bool> kv_layers_on(std::int32_t device) const;
  // placed_block::streamed of the blocks on this device, in the order in which they run.
  std::vector<std::uint64_t> streamed_on(std::int32_t device) const;
  // Bytes of the budget that nothing takes, where several devices share one: a disk's blocks work
  // in the memory of the first CPU.
  std::uint64_t free_on(std::int32_t device) const;
  // Limits of the programs of the segments.
  program_limits segment_limits() const;
};

// A device as a planner sees it: a backend, or one that is only described.
struct offered_device {
  const device_sizes* sizes = nullptr;
  device_speed speed = {};
  std::uint64_t overhead = 0;  // bytes that its driver takes once it is used
  // That may be taken in all; none: by plan_options.
  std::optional<std::uint64_t> budget = {};
};

// Places a model's blocks so that a request takes least time by the devices' speeds and no budget
// is exceeded. Pure: sizes are read and nothing is allocated on a device; from several threads.
// Host memory is that of the first CPU among the devices; without one there is no limit to it.
// Throws error: invalid_argument (options, pins), out_of_memory (naming what would be needed, or,
// with shortage::fail, what would have to change), unsupported.
NIBBLE_API placement plan(const model_definition& model, std::span<const offered_device> devices,
                          const plan_options& options = {});

// Places the whole model on one device. Pure: reads sizes, allocates nothing on the device.
// Throws error: invalid_argument (options), out_of_memory (naming what is needed and what is free).
NIBBLE_API placement plan(const model_definition& model, const device_sizes& device,
                          const plan_options& options = {});

// What a placement that is given takes: device_of has an index into `devices` for each of the
// model's blocks. Throws error as plan() does, but not for memory that is not there.
NIBBLE_API placement count_placement(const model_definition& model,
                                     std::span<const device_sizes* const> devices,
                                     std::span<const std::int32_t> device_of,
                                     const plan_options& options = {});

// A table for people.
NIBBLE_API std::ostream& operator<<(std::ostream& out, const placement& p);

}  // namespace nibble::inline NIBBLE_ABI
