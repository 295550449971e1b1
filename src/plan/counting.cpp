#include "plan/counting.hpp"

#include <algorithm>

namespace nibble::inline NIBBLE_ABI {
namespace {

// Embedding, two halves of each layer, head. Routed experts are recorded with the feed-forward half
// that routes to them.
std::size_t index_of(const model_definition& model, const block_id& block) {
  switch (block.kind) {
    case block_kind::embedding:
      return 0;
    case block_kind::attention:
      return 1 + 2 * static_cast<std::size_t>(block.layer);
    case block_kind::feed_forward:
    case block_kind::experts:
      return 2 + 2 * static_cast<std::size_t>(block.layer);
    case block_kind::head:
      break;
  }
  return model.blocks.size() - 1;
}

void count_weights(block_catalogue& blocks, placement& out) {
  std::vector<std::uint64_t> in_expert(out.blocks.size(), 0);  // bytes that one of a block takes
  for (std::size_t b = 0; b < out.blocks.size(); ++b) {
    placed_block& block = out.blocks[b];
    const auto d = static_cast<std::size_t>(block.device);
    // the embedding is the head's matrix, too
    const bool has_table = blocks.tied() && b > 0 && b + 1 == out.blocks.size() &&
                           out.blocks[0].device == block.device;
    for (const block_catalogue::tensor& t : blocks.of(b).tensors) {
      if (has_table && t.stored == blocks.table()) continue;
      if (blocks.is_on_demand(t, d)) {
        block.on_demand += blocks.weight_bytes(t.stored, d);
        in_expert[b] += blocks.expert_bytes(t.stored, d);
        continue;
      }
      const bool streamed = blocks.is_streamed(t.stored, d);
      (streamed ? block.streamed : block.weights) += blocks.weight_bytes(t.stored, d);
    }
    out.devices[d].weights += block.weights;
  }
  for (std::size_t d = 0; d < out.devices.size(); ++d) {
    const auto streamed = out.streamed_on(static_cast<std::int32_t>(d));
    if (streamed.empty()) continue;
    out.devices[d].weights +=
        blocks.devices()[d]->ring().bytes(*std::max_element(streamed.begin(), streamed.end()));
  }
  for (std::size_t b = 0; b < in_expert.size(); ++b) {
    if (in_expert[b] == 0) continue;
    expert_cache& experts = out.devices[static_cast<std::size_t>(out.blocks[b].device)].experts;
    experts.slots = least_expert_slots(blocks.model().hp, out.limits);
    experts.slot_bytes = std::max(experts.slot_bytes, in_expert[b]);
  }
  for (device_use& use : out.devices) use.weights += use.experts.bytes();
}

void count_caches(std::span<const device_sizes* const> devices, placement& out) {
  for (std::size_t d = 0; d < devices.size(); ++d) {
    const std::vector<bool> there = out.kv_layers_on(static_cast<std::int32_t>(d));
    if (std::find(there.begin(), there.end(), true) == there.end()) continue;
    const kv_layout layout = layers_of(out.kv, there);
    out.devices[d].kv = devices[d]->cache_bytes(layout, out.kv_pages);
    out.host_bytes += devices[d]->cache_host_bytes(layout);
  }
}

void count_workspaces(block_catalogue& blocks, placement& out) {
  std::vector<workspace_size> sizes(out.devices.size());
  const auto segments = out.segments();
  for (const placed_segment& s : segments) {
    const auto d = static_cast<std::size_t>(s.device);
    sizes[d].add(blocks.workspace(s.first, s.last, d, out.segment_limits()));
  }
  for (std::size_t d = 0; d < out.devices.size(); ++d) {
    out.devices[d].workspace = sizes[d].device();
    out.host_bytes += sizes[d].host();
  }
  if (segments.size() > 1 || out.part < out.limits.max_tokens) {
    out.host_bytes += pipeline::host_bytes(pipeline_sizes(blocks.model().hp, out));
  }
}

}  // namespace

std::vector<std::size_t> readers_of(const model_definition& model, const tensor_need& need) {
  std::vector<std::size_t> readers{index_of(model, need.block)};
  const bool embedding = need.block.kind == block_kind::embedding && !need.as_float;
  if (embedding && model.tied()) readers.push_back(model.blocks.size() - 1);
  return readers;
}

bool is_streamed(const tensor_need& need, const device_sizes& device) {
  return device.ring().slots > 0 && !need.is_kept();
}

bool is_on_demand(const tensor_need& need, const device_sizes& device) {
  return is_streamed(need, device) && need.block.kind == block_kind::experts;
}

std::uint64_t expert_bytes(tensor_view all, const device_sizes& device) {
  all.shape.extent[2] = all.shape.extent[3] = 1;
  return device.weight_bytes(all);
}

std::int64_t least_expert_slots(const hparams& hp, const program_limits& limits) {
  return std::min<std::int64_t>(hp.n_expert, std::int64_t{hp.n_expert_used} * limits.max_tokens);
}

void grow_expert_cache(const hparams& hp, std::size_t device, std::uint64_t bytes, placement& out) {
  device_use& use = out.devices[device];
  if (use.experts.slot_bytes == 0) return;
  std::int64_t blocks = 0;
  for (const placed_block& b : out.blocks) {
    if (static_cast<std::size_t>(b.device) == device && b.on_demand > 0) ++blocks;
  }
  const auto wanted = static_cast<std::uint64_t>(
      std::max(blocks * hp.n_expert - use.experts.slots, std::int64_t{0}));
  const std::uint64_t more = std::min(bytes / use.experts.slot_bytes, wanted);
  use.experts.slots += static_cast<std::int64_t>(more);
  use.weights += more * use.experts.slot_bytes;
}

pipeline::sizes pipeline_sizes(const hparams& hp, const placement& p) {
  return {.part = p.part,
          .n_embd = hp.n_embd,
          .n_vocab = hp.n_vocab,
          .max_tokens = p.limits.max_tokens,
          .max_outputs = p.limits.max_outputs};
}

void count_bytes(block_catalogue& blocks, placement& out) {
  count_weights(blocks, out);
  count_caches(blocks.devices(), out);
  count_workspaces(blocks, out);
  // the host's memory is the CPU's, or without one the ring's
  for (const device_kind kind : {device_kind::cpu, device_kind::disk}) {
    const auto host = std::find_if(out.devices.begin(), out.devices.end(),
                                   [&](const auto& use) { return use.device.kind == kind; });
    if (host == out.devices.end()) continue;
    host->transfers = out.host_bytes;
    break;
  }
}

}  // namespace nibble::inline NIBBLE_ABI
