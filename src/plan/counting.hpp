// What blocks take on devices: bytes of weights, of caches, of workspaces.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/plan/placement.hpp>
#include <span>
#include <vector>

#include "device/pipeline.hpp"

namespace nibble::inline NIBBLE_ABI {

// Which blocks read a tensor: one, or two where the embedding is the head's matrix, too.
std::vector<std::size_t> readers_of(const model_definition& model, const tensor_need& need);

// Whether a tensor passes through the device's ring: matrices do. What is converted to floats, and
// is small, stays in memory.
bool is_streamed(const tensor_need& need, const device_sizes& device);

// The steps' sizes follow from formats and shapes; stand-ins for the weights have those, and data
// that nobody reads.
class stand_in_weights {
 public:
  explicit stand_in_weights(const model_definition& model);
  const weight_table& table() const noexcept { return table_; }

 private:
  std::vector<weight> weights_;
  weight_table table_;
};

// How the pipeline of a placement is made.
pipeline::sizes pipeline_sizes(const hparams& hp, const placement& p);

// Fills in the bytes of a placement whose blocks have their devices. devices: as in the placement.
void count_bytes(const model_definition& model, std::span<const device_sizes* const> devices,
                 placement& out);

}  // namespace nibble::inline NIBBLE_ABI
