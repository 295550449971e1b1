// BitNet b1.58: ternary weights, a norm before each of the two output matrices, tied embeddings.

#include <nibble/base/concat.hpp>

#include "gguf/cursor.hpp"
#include "model/layers.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Files that do not name their activation are from before the models that square a ReLU.
void complete(const gguf::file& file, hparams& hp) {
  constexpr const char* key = "bitnet.hidden_activation";
  const auto name = file.get<std::string_view>(key).value_or("silu");
  if (name == "relu2" || name == "relu_sqr") {
    hp.ffn_gate = gate_kind::relu_squared;
  } else if (name != "silu") {
    throw error(
        errc::unsupported,
        concat("key '", key, "' is '", gguf::printable(name), "'; nibble knows silu and relu2."),
        {.file = file.name()});
  }
}

void declare_layer(tensor_needs& needs, const hparams& hp, std::int32_t layer) {
  declare_attention(needs, hp, layer, {.sub_norm = true, .scales = true});
  declare_dense_ffn(needs, hp, layer, {.sub_norm = true, .scales = true});
}

void feed_forward(const layer_context& layer) {
  emit_dense_ffn(layer, layer.hp.ffn_gate);
}

}  // namespace

std::span<const arch_spec> bitnet_family() {
  static constexpr arch_spec specs[] = {
      {.name = "bitnet",
       .rope = rope_style::neox,
       .complete = complete,
       .declare_layer = declare_layer,
       .attention = emit_attention,
       .feed_forward = feed_forward},
  };
  return specs;
}

}  // namespace nibble::inline NIBBLE_ABI
