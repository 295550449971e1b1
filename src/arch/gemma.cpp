// Gemma 3: five layers with a sliding window and their own rotary base, then one without.

#include <cmath>

#include "model/layers.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::int32_t layers_per_global = 6;
constexpr double local_rope_base = 10000;
constexpr std::int32_t layers_of_27b = 62;

void complete(const gguf::file&, hparams& hp) {
  hp.embedding_scale = std::sqrt(static_cast<float>(hp.n_embd));
  // the 27B model scales by width / heads, all others by the head's length
  if (hp.n_layer == layers_of_27b) {
    hp.attention_scale =
        1.0f / std::sqrt(static_cast<float>(hp.n_embd) / static_cast<float>(hp.layers[0].n_head));
  }
  for (std::int32_t i = 0; i < hp.n_layer; ++i) {
    layer_hparams& layer = hp.layers[static_cast<std::size_t>(i)];
    const bool local = i % layers_per_global < layers_per_global - 1;
    if (!local || hp.sliding_window == 0) continue;
    layer.window = hp.sliding_window;
    layer.rope_base = local_rope_base;
    layer.rope_scaled = false;
  }
}

void declare_layer(tensor_needs& needs, const hparams& hp, std::int32_t layer) {
  declare_attention(needs, hp, layer, {.has_bias = false, .q_norm = true, .post_norm = true});
  declare_dense_ffn(needs, hp, layer, {.post_norm = true});
}

void feed_forward(const layer_context& layer) {
  emit_dense_ffn(layer, gate_kind::gelu_tanh);
}

}  // namespace

std::span<const arch_spec> gemma_family() {
  static constexpr arch_spec specs[] = {
      {.name = "gemma3",
       .rope = rope_style::neox,
       .complete = complete,
       .declare_layer = declare_layer,
       .attention = emit_attention,
       .feed_forward = feed_forward},
  };
  return specs;
}

}  // namespace nibble::inline NIBBLE_ABI
