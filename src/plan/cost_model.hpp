// What each block takes at each device: bytes, and seconds by the devices' speeds.
//
// A request has P tokens of prompt and G generated ones. Generating one costs reading the weights
// that it passes and the keys and values of a usual past; a prompt's token costs its
// multiplications, or its share of reading the weights where that takes longer.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/plan/placement.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plan/block_catalogue.hpp"
#include "plan/solver.hpp"

namespace nibble::inline NIBBLE_ABI {

// Seconds of one token: of a prompt whose batches are cut into parts or are not, or generated.
struct token_seconds {
  double prompt = 0, whole = 0, generated = 0;
};

class cost_model {
 public:
  // `sizes` has the context, the types and the limits of the plan. The catalogue's devices are the
  // offered ones.
  cost_model(block_catalogue& blocks, std::span<const offered_device> devices,
             const plan_options& options, const placement& sizes);

  // Of a block on a device.
  token_seconds of(std::size_t block, std::size_t device) const {
    return seconds_[at(block, device)];
  }
  std::uint64_t bytes(std::size_t block, std::size_t device) const {
    return bytes_[at(block, device)];
  }
  // Of the block's matrices, if the device has a ring that they pass through.
  std::uint64_t streamed(std::size_t block, std::size_t device) const {
    return streamed_[at(block, device)];
  }
  // What the block's routed experts need in memory together, if the device reads them from disk.
  std::uint64_t least_experts(std::size_t block, std::size_t device) const {
    return least_experts_[at(block, device)].bytes();
  }
  std::uint64_t kv_bytes(std::size_t block, std::size_t device) const {
    return kv_bytes_[at(block, device)];
  }
  // None: the device has no kernels for the block; why() is a reason.
  const std::optional<workspace_size>& workspace(std::size_t block, std::size_t device) const {
    return workspaces_[at(block, device)];
  }
  const std::string& why(std::size_t device) const { return why_[device]; }
  // Of the hidden state's way from one device to another, and of starting there.
  token_seconds crossing(std::size_t from, std::size_t to) const;
  token_seconds entering(std::size_t device) const;
  token_seconds leaving(std::size_t device) const;
  // Of a token of a usual request, weighted by how many there are.
  double weighted(const token_seconds& t) const {
    return options_.prompt_tokens * t.prompt + options_.generated_tokens * t.generated;
  }
  // Of a whole placement; parts of prompts on several devices overlap.
  predicted_speed predict(const placement& p) const;
  // Bytes of the embedding, counted once where it is the head's matrix, too. By device.
  std::vector<std::uint64_t> common_ends() const;

 private:
  void count_products(const placement& sizes);
  void count_product(std::size_t kind, const block_catalogue::tensor& tensor, std::size_t device);
  void count_steps();
  void count_attention(const placement& sizes);
  void count_workspaces(const placement& sizes);
  // What the vectors have of a kind of block, and of a block, on a device.
  std::size_t in(std::size_t kind, std::size_t device) const { return kind * n_devices_ + device; }
  std::size_t at(std::size_t block, std::size_t device) const {
    return in(blocks_.kind_of(block), device);
  }
  double memory_bytes_per_second(format_id format, std::size_t device) const;
  double way_seconds(std::size_t device, double values) const;
  // Of the experts that a device reads from disk, the share that is in its memory.
  double in_memory(const placement& p, std::size_t device) const;

  block_catalogue& blocks_;
  std::span<const offered_device> devices_;
  const plan_options& options_;
  std::size_t n_devices_;
  double part_, batch_;  // tokens of a prompt that are computed together
  double n_embd_, n_vocab_;
  std::int32_t n_expert_;
  double share_of_experts_ = 1;
  std::vector<std::uint64_t> bytes_, streamed_, kv_bytes_;
  std::vector<expert_cache> least_experts_;
  std::vector<token_seconds> hit_seconds_;  // that an expert in memory saves, by all of them
  std::vector<token_seconds> seconds_;
  std::vector<std::optional<workspace_size>> workspaces_;
  std::vector<std::string> why_;  // by device
};

}  // namespace nibble::inline NIBBLE_ABI
