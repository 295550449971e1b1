// Llama 2 and 3, Mistral 7B and Nemo, Mixtral (experts), and Ministral / Mistral Small 3
// (mistral3).

#include "model/layers.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

void declare_layer(tensor_needs& needs, const hparams& hp, std::int32_t layer) {
  declare_attention(needs, hp, layer, {});
  if (hp.n_expert > 0) {
    declare_moe(needs, hp, layer, {});
  } else {
    declare_dense_ffn(needs, hp, layer, {});
  }
}

void feed_forward(const layer_context& layer) {
  if (layer.hp.n_expert > 0) {
    emit_moe(layer, {.route = route_kind::softmax_then_top, .normalise = true});
  } else {
    emit_dense_ffn(layer, gate_kind::silu);
  }
}

}  // namespace

std::span<const arch_spec> llama_family() {
  static constexpr arch_spec specs[] = {
      {.name = "llama",
       .rope = rope_style::norm,
       .declare_layer = declare_layer,
       .attention = emit_attention,
       .feed_forward = feed_forward},
      {.name = "mistral3",
       .rope = rope_style::norm,
       .declare_layer = declare_layer,
       .attention = emit_attention,
       .feed_forward = feed_forward},
  };
  return specs;
}

}  // namespace nibble::inline NIBBLE_ABI
