// The halves of transformer layers, shared by the architectures: what tensors they need and which
// steps they emit. Optional parts (biases, extra norms, sinks) follow from which weights exist.
#pragma once

#include <nibble/model/arch.hpp>

namespace nibble::inline NIBBLE_ABI {

// Tensors of an attention half, and which of the optional ones the architecture has.
struct attention_tensors {
  presence qkv_bias = presence::optional;
  bool has_bias = true;    // look for biases at all
  bool q_norm = false;     // per-head norms of queries and keys
  bool sub_norm = false;   // norm before the output matrix
  bool post_norm = false;  // norm after it
  bool sinks = false;
  bool scales = false;  // a factor beside each matrix
};
void declare_attention(tensor_needs& needs, const hparams& hp, std::int32_t layer,
                       const attention_tensors& parts);

struct ffn_tensors {
  const char* norm = "ffn_norm.weight";
  bool sub_norm = false;
  bool post_norm = false;
  bool scales = false;
};
void declare_dense_ffn(tensor_needs& needs, const hparams& hp, std::int32_t layer,
                       const ffn_tensors& parts);

struct moe_tensors {
  const char* norm = "ffn_norm.weight";
  bool biases = false;  // of the router and of all experts; required then
};
void declare_moe(tensor_needs& needs, const hparams& hp, std::int32_t layer,
                 const moe_tensors& parts);

// Throws error (bad_file) if the file states no experts.
void require_experts(const gguf::file& file, const hparams& hp);

// hidden += [post_norm] W_o [sub_norm] attention(W_qkv norm(hidden))
void emit_attention(const layer_context& layer);
// hidden += [post_norm] W_down [sub_norm] (activation(W_gate x) * W_up x), x = norm(hidden)
void emit_dense_ffn(const layer_context& layer, gate_kind kind);

struct moe_options {
  gate_kind gate = gate_kind::silu;
  route_kind route = route_kind::softmax_then_top;
  bool normalise = false;
};
// hidden += sum over the chosen experts of weight * expert(norm(hidden))
void emit_moe(const layer_context& layer, const moe_options& options);

}  // namespace nibble::inline NIBBLE_ABI
