#include <algorithm>
#include <nibble/formats/list.hpp>
#include <nibble/plan/token_cost.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

// A table is looked up for each token; as the head's matrix, if it is that too, it is read whole.
void count_embedding(const tensor_need& need, std::uint64_t bytes, bool tied, token_cost& cost) {
  const tensor_view& view = need.found->view;
  cost.row_bytes += row_bytes(view.format, view.shape.columns());
  if (!tied) return;
  cost.shared_bytes += bytes;
  cost.head_macs += view.shape.elements();
}

}  // namespace

token_cost count_token_cost(const model_definition& model, const device_sizes& device, kv_type key,
                            kv_type value) {
  const hparams& hp = model.hp;
  token_cost cost;
  if (hp.n_expert > 0) cost.expert_share = static_cast<double>(hp.n_expert_used) / hp.n_expert;
  const bool tied = model.tied();
  double expert_macs = 0;
  for (const tensor_need& need : model.needs) {
    if (!need.found) continue;
    const std::uint64_t bytes = device.weight_bytes(need.stored_view());
    const std::uint64_t macs = need.as_float ? 0 : need.found->view.shape.elements();
    switch (need.block.kind) {
      case block_kind::embedding:
        count_embedding(need, bytes, tied, cost);
        break;
      case block_kind::experts:
        cost.expert_bytes += bytes;
        expert_macs += static_cast<double>(macs) * cost.expert_share;
        break;
      case block_kind::head:
        cost.shared_bytes += bytes;
        cost.head_macs += macs;
        break;
      case block_kind::attention:
      case block_kind::feed_forward:
        cost.shared_bytes += bytes;
        cost.macs += macs;
    }
  }
  cost.macs += static_cast<std::uint64_t>(expert_macs);
  for (std::int32_t layer = 0; layer < hp.n_layer; ++layer) {
    const kv_layout one{.layers = {model.kv(layer)}, .key = key, .value = value};
    cost.kv.push_back({one.bytes_per_token(), hp.layers[static_cast<std::size_t>(layer)].window});
  }
  return cost;
}

std::uint64_t token_cost::weight_bytes(std::int64_t tokens) const {
  const double share = std::min(1.0, expert_share * static_cast<double>(tokens));
  return shared_bytes + row_bytes * static_cast<std::uint64_t>(tokens) +
         static_cast<std::uint64_t>(share * static_cast<double>(expert_bytes));
}

std::uint64_t token_cost::kv_bytes(std::int64_t tokens) const {
  std::uint64_t bytes = 0;
  for (const kv_layer_cost& layer : kv) {
    const std::int64_t seen =
        layer.window > 0 ? std::min<std::int64_t>(tokens, layer.window) : tokens;
    bytes += layer.bytes_per_token * static_cast<std::uint64_t>(seen);
  }
  return bytes;
}

}  // namespace nibble::inline NIBBLE_ABI
