#include <nibble/plan/placement.hpp>

#include <algorithm>
#include <nibble/base/bytes.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

#include "base/memory_for.hpp"
#include "plan/choices.hpp"
#include "plan/counting.hpp"
#include "plan/planner.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Parts of a batch that follow each other through the segments, at most, and tokens that a part has
// at least: fewer would read weights more often than they are computed with.
constexpr std::int32_t most_parts = 4, least_part = 64;

bool is_on_disk(const placement& p, std::int32_t device) {
  const auto d = static_cast<std::size_t>(device);
  return d < p.devices.size() && p.devices[d].device.kind == device_kind::disk;
}

// Parts of a batch would ask for the blocks in another order than that in which they are read.
bool uses_disk(const placement& p) {
  return std::any_of(p.blocks.begin(), p.blocks.end(),
                     [&](const placed_block& b) { return is_on_disk(p, b.device); });
}

placement place_whole(const model_definition& model, std::span<const device_sizes* const> devices,
                      std::span<const std::int32_t> device_of, const plan_options& options) {
  block_catalogue blocks(model, devices);
  placement p = place_blocks(blocks, device_of, choose_sizes(model, options));
  p.cost = count_token_cost(model, *devices[0], p.kv.key, p.kv.value);
  return p;
}

void check_memory(const placement& p) {
  const device_use& use = p.devices[0];
  if (use.device.free_bytes == 0 || use.total() <= use.device.free_bytes) return;
  throw error(errc::out_of_memory,
              concat("the model needs ", to_text(use.total()), " (weights ", to_text(use.weights),
                     ", KV cache ", to_text(use.kv), ", workspace ", to_text(use.workspace),
                     "), but ", to_text(use.device.free_bytes),
                     " are free. A shorter context or a smaller quantisation would need less."),
              {.device = use.device.name});
}

}  // namespace

std::vector<placed_segment> placement::segments() const {
  std::vector<placed_segment> found;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const bool alone = is_on_disk(*this, blocks[i].device);  // its weights come and go
    if (found.empty() || alone || blocks[i].device != found.back().device) {
      found.push_back({i, i, blocks[i].device});
    }
    found.back().last = i + 1;
  }
  return found;
}

std::vector<bool> placement::kv_layers_on(std::int32_t device) const {
  std::vector<bool> there(kv.layers.size(), false);
  for (const placed_block& b : blocks) {
    if (b.block.kind != block_kind::attention || b.device != device) continue;
    there[static_cast<std::size_t>(b.block.layer)] = true;
  }
  return there;
}

std::vector<std::uint64_t> placement::streamed_on(std::int32_t device) const {
  std::vector<std::uint64_t> bytes;
  for (const placed_block& b : blocks) {
    if (b.device == device) bytes.push_back(b.streamed);
  }
  return bytes;
}

std::uint64_t placement::free_on(std::int32_t device) const {
  const auto cpu = std::find_if(devices.begin(), devices.end(), [](const device_use& use) {
    return use.device.kind == device_kind::cpu;
  });
  const auto memory_of = [&](const device_use& use) {
    return use.device.kind == device_kind::disk && cpu != devices.end() ? &*cpu : &use;
  };
  const device_use* const memory = memory_of(devices[static_cast<std::size_t>(device)]);
  std::uint64_t used = 0;
  for (const device_use& use : devices) {
    if (memory_of(use) == memory) used += use.total();
  }
  return memory->budget > used ? memory->budget - used : 0;
}

program_limits placement::segment_limits() const {
  return {.max_tokens = part,
          .max_outputs = std::min(limits.max_outputs, part),
          .max_context = limits.max_context};
}

std::int32_t part_of_batch(std::int32_t batch, bool several_segments) {
  if (!several_segments) return batch;
  return std::min(batch, std::max((batch + most_parts - 1) / most_parts, least_part));
}

placement place_blocks(block_catalogue& blocks, std::span<const std::int32_t> device_of,
                       const placement& sizes, std::int32_t part) {
  const model_definition& model = blocks.model();
  const auto devices = blocks.devices();
  if (device_of.size() != model.blocks.size()) {
    throw error(errc::invalid_argument, concat("a device was given for ", device_of.size(),
                                               " blocks; the model has ", model.blocks.size()));
  }
  placement out = sizes;
  for (const device_sizes* device : devices) out.devices.push_back({.device = device->info()});
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    if (device_of[i] < 0 || static_cast<std::size_t>(device_of[i]) >= devices.size()) {
      throw error(errc::invalid_argument, concat(to_text(model.blocks[i]), " was placed on device ",
                                                 device_of[i], "; there are ", devices.size()));
    }
    out.blocks.push_back({.block = model.blocks[i], .device = device_of[i]});
    if (model.blocks[i].kind == block_kind::embedding && is_on_disk(out, device_of[i])) {
      throw error(
          errc::invalid_argument,
          "the embedding was placed on disk; single rows of it are looked up, so it must lie "
          "in the memory of another device.",
          {.device = out.devices[static_cast<std::size_t>(device_of[i])].device.name});
    }
  }
  if (uses_disk(out)) part = out.limits.max_tokens;
  out.part = part > 0 ? part : part_of_batch(out.limits.max_tokens, out.segments().size() > 1);
  count_bytes(blocks, out);
  return out;
}

placement plan(const model_definition& model, const device_sizes& device,
               const plan_options& options) {
  return with_memory_for("the plan", [&] {
    const device_sizes* const devices[] = {&device};
    const std::vector<std::int32_t> device_of(model.blocks.size(), 0);
    placement out = place_whole(model, devices, device_of, options);
    out.reasons.push_back(concat("Everything runs on ", device.info().name, "."));
    check_memory(out);
    return out;
  });
}

placement plan(const model_definition& model, std::span<const offered_device> devices,
               const plan_options& options) {
  return with_memory_for("the plan", [&] { return planner(model, devices, options).run(); });
}

placement count_placement(const model_definition& model,
                          std::span<const device_sizes* const> devices,
                          std::span<const std::int32_t> device_of, const plan_options& options) {
  return with_memory_for("the plan",
                         [&] { return place_whole(model, devices, device_of, options); });
}

}  // namespace nibble::inline NIBBLE_ABI
