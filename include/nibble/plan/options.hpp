// What a caller wants of a plan.
#pragma once

#include <cstdint>
#include <limits>
#include <nibble/base/config.hpp>
#include <nibble/device/kv_type.hpp>
#include <optional>
#include <utility>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// How much of a device's memory may be taken.
struct memory_limit {
  std::uint64_t bytes = std::numeric_limits<std::uint64_t>::max();
  double share = 1;  // of all the memory that the device has
};

// Blocks of layers [first, last) that are to lie on one device.
struct pinned_blocks {
  enum class part { all, attention, feed_forward, embedding, head };
  part what = part::all;  // `all`: both halves of the layers
  std::int32_t first = 0, last = std::numeric_limits<std::int32_t>::max();
  std::int32_t device = 0;  // index into the devices that are planned with
};

// What may be given up so that everything fits on the GPUs.
enum class concession {
  kv_type,  // keys and values of 8 bits, then values of 4
  context   // a shorter context
};

// What is to happen if not everything fits on the GPUs.
enum class shortage {
  warn,     // the rest runs on the CPU, and the plan says so
  degrade,  // plan_options::concessions are made, in their order; then as `warn`
  fail      // error: out_of_memory
};

struct plan_options {
  std::int32_t context = 0;  // tokens of a session; 0: the model's own, at most 4096
  // The longest context with which everything fits on the GPUs, up to the model's own or `context`.
  bool longest_context = false;
  kv_type key = kv_type::f16, value = kv_type::f16;
  // kv_layout's switches; none: on for keys with integer codes, where the model's heads allow it.
  std::optional<bool> rotate_key = {}, rotate_value = {};
  // There is room for so many with full contexts. More may be open, as long as their tokens fit
  // into the pages together.
  std::int32_t sessions = 1;
  std::int32_t batch = 512;  // tokens that are computed together
  bool all_logits = false;   // logits of every token of a batch, not of the last one only

  // Of each GPU, and of the host's memory.
  memory_limit vram = {}, ram = {};
  // Left free of what is free, unless a limit of bytes says how much may be taken: a share, or
  // bytes instead of it.
  double headroom = 0.1;
  std::optional<std::uint64_t> headroom_bytes = {};
  // So many of the last layers on GPUs and the others on the CPU, as other engines count them (one
  // more than there are layers: the head, too). -1: as many as it takes.
  std::int32_t gpu_layers = -1;
  std::vector<pinned_blocks> pins = {};  // later ones win
  // What is to be fast: tokens of prompts and generated ones of a usual request.
  double prompt_tokens = 1024, generated_tokens = 256;
  shortage on_shortage = shortage::warn;
  std::vector<concession> concessions = {};  // none: keys and values first, then the context
  std::int32_t least_context = 2048;         // that a plan shortens to
};

}  // namespace nibble::inline NIBBLE_ABI
