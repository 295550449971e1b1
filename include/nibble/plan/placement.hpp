// Which block of a model runs on which device, and what that takes: decided before anything is
// allocated, reported afterwards.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/model/arch.hpp>
#include <nibble/plan/token_cost.hpp>
#include <optional>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct plan_options {
  std::int32_t context = 0;  // tokens of a session; 0: the model's own, at most 4096
  kv_type key = kv_type::f16, value = kv_type::f16;
  // kv_layout's switches; none: on for keys with integer codes, where the model's heads allow it.
  std::optional<bool> rotate_key = {}, rotate_value = {};
  // There is room for so many with full contexts. More may be open, as long as their tokens fit
  // into the pages together.
  std::int32_t sessions = 1;
  std::int32_t batch = 512;  // tokens that are computed together
  bool all_logits = false;   // logits of every token of a batch, not of the last one only
};

// Bytes on one device, by what they are for.
struct device_use {
  device_info device;
  std::uint64_t weights = 0;
  std::uint64_t kv = 0;         // of all sessions
  std::uint64_t workspace = 0;  // activations, scratch

  std::uint64_t total() const { return weights + kv + workspace; }
};

struct placed_block {
  block_id block;
  std::int32_t device = 0;  // index into placement::devices
  std::uint64_t weights = 0;
};

struct placement {
  std::vector<device_use> devices;
  std::vector<placed_block> blocks;  // in the order in which they run
  std::int32_t context = 0, sessions = 1;
  kv_layout kv;
  std::vector<std::int32_t> kv_pages;  // of each group of layers
  program_limits limits;
  token_cost cost;
  std::vector<std::string> reasons;  // one sentence for each decision and fallback
};

// Places the whole model on one device. Pure: reads sizes, allocates nothing on the device.
// Throws error: invalid_argument (options), out_of_memory (naming what is needed and what is free).
NIBBLE_API placement plan(const model_definition& model, const backend& device,
                          const plan_options& options = {});

// A table for people.
NIBBLE_API std::ostream& operator<<(std::ostream& out, const placement& p);

}  // namespace nibble::inline NIBBLE_ABI
