// gpt-oss: every other layer with a sliding window, a learned attention sink per head, biases
// everywhere, clamped SwiGLU experts routed by a softmax over the chosen ones.

#include <nibble/base/concat.hpp>

#include "model/layers.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

void complete(const gguf::file& file, hparams& hp) {
  require_experts(file, hp);
  if (hp.sliding_window == 0) {
    throw error(
        errc::bad_file,
        concat("key '", hp.architecture, ".attention.sliding_window' is absent or 0; every ",
               "other layer of this architecture has a window."),
        {.file = file.name()});
  }
  for (std::int32_t i = 0; i < hp.n_layer; i += 2) {
    hp.layers[static_cast<std::size_t>(i)].window = hp.sliding_window;
  }
}

void declare_layer(tensor_needs& needs, const hparams& hp, std::int32_t layer) {
  declare_attention(needs, hp, layer, {.qkv_bias = presence::required, .sinks = true});
  // the norm before the experts has the name that others give to a norm after attention
  declare_moe(needs, hp, layer, {.norm = "post_attention_norm.weight", .biases = true});
}

void feed_forward(const layer_context& layer) {
  emit_moe(layer, {.gate = gate_kind::swiglu_clamped, .route = route_kind::top_then_softmax});
}

}  // namespace

std::span<const arch_spec> gpt_oss_family() {
  static constexpr arch_spec specs[] = {
      {.name = "gpt-oss",
       .rope = rope_style::neox,
       .complete = complete,
       .declare_layer = declare_layer,
       .attention = emit_attention,
       .feed_forward = feed_forward},
  };
  return specs;
}

}  // namespace nibble::inline NIBBLE_ABI
