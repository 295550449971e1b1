// What blocks take on devices: bytes of weights, of caches, of workspaces.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/plan/placement.hpp>
#include <span>
#include <vector>

#include "device/pipeline.hpp"
#include "plan/block_catalogue.hpp"

namespace nibble::inline NIBBLE_ABI {

// Which blocks read a tensor: one, or two where the embedding is the head's matrix, too.
std::vector<std::size_t> readers_of(const model_definition& model, const tensor_need& need);

// Whether a tensor passes through the device's ring, or is read by experts.
bool is_streamed(const tensor_need& need, const device_sizes& device);
// Whether they are routed experts', each of which is read when a token goes through it.
bool is_on_demand(const tensor_need& need, const device_sizes& device);
// Bytes of one expert's matrix, of all that a tensor has, in a slot of the device's expert_cache.
std::uint64_t expert_bytes(tensor_view all, const device_sizes& device);
// Experts of a block that one batch may go through: so many must be in memory together.
std::int64_t least_expert_slots(const hparams& hp, const program_limits& limits);
// More room for experts, as far as they do not have it and the bytes go.
void grow_expert_cache(const hparams& hp, std::size_t device, std::uint64_t bytes, placement& out);

// How the pipeline of a placement is made.
pipeline::sizes pipeline_sizes(const hparams& hp, const placement& p);

// Fills in the bytes of a placement whose blocks have their devices, which are the catalogue's.
void count_bytes(block_catalogue& blocks, placement& out);

}  // namespace nibble::inline NIBBLE_ABI
