// What computing a token takes: bytes read and multiplications. With a machine's limits beside it,
// this tells how fast a model could run at best.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/model/arch.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct NIBBLE_API token_cost {
  std::uint64_t shared_bytes = 0;  // weights that every batch reads once
  std::uint64_t row_bytes = 0;     // of the embedding, for each token
  std::uint64_t expert_bytes = 0;  // of all routed experts
  double expert_share = 1;         // of the experts, that one token goes through
  std::uint64_t macs = 0;          // multiply-accumulates of a token with weights, but for the head
  std::uint64_t head_macs = 0;     // of a token whose logits are wanted

  struct kv_layer_cost {
    std::uint64_t bytes_per_token = 0;
    std::int32_t window = 0;  // tokens that are seen at most; 0: all
  };
  std::vector<kv_layer_cost> kv;

  // Bytes of weights that a batch of this many tokens reads; different tokens are taken to use
  // different experts until all are in use.
  std::uint64_t weight_bytes(std::int64_t tokens) const;
  // Bytes of keys and values that a token reads when this many tokens stand in the cache.
  std::uint64_t kv_bytes(std::int64_t tokens) const;
};

NIBBLE_API token_cost count_token_cost(const model_definition& model, const device_sizes& device,
                                       kv_type key, kv_type value);

}  // namespace nibble::inline NIBBLE_ABI
