// Qwen 2 and 2.5 (biases on Q, K, V), Qwen 3 (per-head norms), Qwen 3 MoE.

#include "model/layers.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

void declare_qwen2(tensor_needs& needs, const hparams& hp, std::int32_t layer) {
  declare_attention(needs, hp, layer, {.qkv_bias = presence::required});
  declare_dense_ffn(needs, hp, layer, {});
}

void declare_qwen3(tensor_needs& needs, const hparams& hp, std::int32_t layer) {
  declare_attention(needs, hp, layer, {.q_norm = true});
  declare_dense_ffn(needs, hp, layer, {});
}

void declare_qwen3moe(tensor_needs& needs, const hparams& hp, std::int32_t layer) {
  declare_attention(needs, hp, layer, {.q_norm = true});
  declare_moe(needs, hp, layer, {});
}

void dense(const layer_context& layer) {
  emit_dense_ffn(layer, gate_kind::silu);
}

void experts(const layer_context& layer) {
  emit_moe(layer, {.route = route_kind::softmax_then_top, .normalise = true});
}

void complete_moe(const gguf::file& file, hparams& hp) {
  require_experts(file, hp);
}

}  // namespace

std::span<const arch_spec> qwen_family() {
  static constexpr arch_spec specs[] = {
      {.name = "qwen2",
       .rope = rope_style::neox,
       .declare_layer = declare_qwen2,
       .attention = emit_attention,
       .feed_forward = dense},
      {.name = "qwen3",
       .rope = rope_style::neox,
       .declare_layer = declare_qwen3,
       .attention = emit_attention,
       .feed_forward = dense},
      {.name = "qwen3moe",
       .rope = rope_style::neox,
       .complete = complete_moe,
       .declare_layer = declare_qwen3moe,
       .attention = emit_attention,
       .feed_forward = experts},
  };
  return specs;
}

}  // namespace nibble::inline NIBBLE_ABI
