#include "model/layers.hpp"

#include <cmath>
#include <nibble/base/concat.hpp>

#include "model/rope.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

nibble::shape make_shape(std::int64_t columns, std::int64_t rows = 1, std::int64_t matrices = 1) {
  return {{static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows),
           static_cast<std::uint64_t>(matrices), 1}};
}

attention_spec make_attention_spec(const layer_context& layer) {
  const hparams& hp = layer.hp;
  const layer_weights& w = layer.w();
  attention_spec spec;
  spec.n_head = layer.layer_hp().n_head;
  spec.n_head_kv = layer.layer_hp().n_head_kv;
  spec.key_length = hp.key_length;
  spec.value_length = hp.value_length;
  spec.scale = hp.attention_scale != 0 ? hp.attention_scale
                                       : 1.0f / std::sqrt(static_cast<float>(hp.key_length));
  spec.window = layer.layer_hp().window;
  spec.softcap = hp.attention_softcap;
  spec.rope = make_rope(layer.rope, hp, layer.layer_hp(), layer.rope_factors);
  if (w.attn_q_norm) spec.q_norm = rms_norm{w.attn_q_norm, hp.norm_epsilon};
  if (w.attn_k_norm) spec.k_norm = rms_norm{w.attn_k_norm, hp.norm_epsilon};
  spec.sinks = w.attn_sinks;
  spec.temperature_scale = hp.temperature_scale;
  spec.temperature_period = hp.temperature_period;
  return spec;
}

std::optional<rms_norm> norm_if(const weight* gain, const hparams& hp) {
  if (!gain) return std::nullopt;
  return rms_norm{gain, hp.norm_epsilon};
}

// hidden += [post_norm] product([sub_norm] in); `product.out` is filled in here.
void emit_residual(const layer_context& layer, value in, const weight* sub_norm, linear product,
                   const weight* post_norm) {
  recording& out = layer.out;
  if (!post_norm) {
    product.out = layer.hidden;
    out.emit(matmul_step{
        .in = in, .norm = norm_if(sub_norm, layer.hp), .outputs = {product}, .accumulate = true});
    return;
  }
  const value projected = out.make(layer.hp.n_embd);
  product.out = projected;
  out.emit(matmul_step{.in = in, .norm = norm_if(sub_norm, layer.hp), .outputs = {product}});
  out.emit(add_step{.in = projected, .out = layer.hidden, .norm = norm_if(post_norm, layer.hp)});
}

}  // namespace

void declare_attention(tensor_needs& needs, const hparams& hp, std::int32_t layer,
                       const attention_tensors& parts) {
  using w = layer_weights;
  const block_id block{block_kind::attention, layer};
  const layer_hparams& l = hp.layers[static_cast<std::size_t>(layer)];
  const std::int64_t q = std::int64_t{l.n_head} * hp.key_length;
  const std::int64_t k = std::int64_t{l.n_head_kv} * hp.key_length;
  const std::int64_t v = std::int64_t{l.n_head_kv} * hp.value_length;
  const std::int64_t o = std::int64_t{l.n_head} * hp.value_length;
  needs.vector(block, "attn_norm.weight", &w::attn_norm, make_shape(hp.n_embd));
  needs.matrix(block, "attn_q.weight", &w::attn_q, make_shape(hp.n_embd, q));
  needs.matrix(block, "attn_k.weight", &w::attn_k, make_shape(hp.n_embd, k));
  needs.matrix(block, "attn_v.weight", &w::attn_v, make_shape(hp.n_embd, v));
  needs.matrix(block, "attn_output.weight", &w::attn_output, make_shape(o, hp.n_embd));
  if (parts.has_bias) {
    needs.vector(block, "attn_q.bias", &w::attn_q_bias, make_shape(q), parts.qkv_bias);
    needs.vector(block, "attn_k.bias", &w::attn_k_bias, make_shape(k), parts.qkv_bias);
    needs.vector(block, "attn_v.bias", &w::attn_v_bias, make_shape(v), parts.qkv_bias);
    needs.vector(block, "attn_output.bias", &w::attn_output_bias, make_shape(hp.n_embd),
                 presence::optional);
  }
  if (parts.q_norm) {
    needs.vector(block, "attn_q_norm.weight", &w::attn_q_norm, make_shape(hp.key_length));
    needs.vector(block, "attn_k_norm.weight", &w::attn_k_norm, make_shape(hp.key_length));
  }
  if (parts.sub_norm) {
    needs.vector(block, "attn_sub_norm.weight", &w::attn_sub_norm, make_shape(o));
  }
  if (parts.post_norm) {
    needs.vector(block, "post_attention_norm.weight", &w::attn_post_norm, make_shape(hp.n_embd));
  }
  if (parts.scales) {
    const auto optional = presence::optional;
    needs.vector(block, "attn_q.scale", &w::attn_q_scale, make_shape(1), optional);
    needs.vector(block, "attn_k.scale", &w::attn_k_scale, make_shape(1), optional);
    needs.vector(block, "attn_v.scale", &w::attn_v_scale, make_shape(1), optional);
    needs.vector(block, "attn_output.scale", &w::attn_output_scale, make_shape(1), optional);
  }
  if (parts.sinks) {
    needs.vector(block, "attn_sinks.weight", &w::attn_sinks, make_shape(l.n_head));
  }
}

void declare_dense_ffn(tensor_needs& needs, const hparams& hp, std::int32_t layer,
                       const ffn_tensors& parts) {
  using w = layer_weights;
  const block_id block{block_kind::feed_forward, layer};
  const std::int64_t n_ff = hp.layers[static_cast<std::size_t>(layer)].n_ff;
  needs.vector(block, parts.norm, &w::ffn_norm, make_shape(hp.n_embd));
  needs.matrix(block, "ffn_gate.weight", &w::ffn_gate, make_shape(hp.n_embd, n_ff));
  needs.matrix(block, "ffn_up.weight", &w::ffn_up, make_shape(hp.n_embd, n_ff));
  needs.matrix(block, "ffn_down.weight", &w::ffn_down, make_shape(n_ff, hp.n_embd));
  const auto optional = presence::optional;
  needs.vector(block, "ffn_gate.bias", &w::ffn_gate_bias, make_shape(n_ff), optional);
  needs.vector(block, "ffn_up.bias", &w::ffn_up_bias, make_shape(n_ff), optional);
  needs.vector(block, "ffn_down.bias", &w::ffn_down_bias, make_shape(hp.n_embd), optional);
  if (parts.sub_norm) {
    needs.vector(block, "ffn_sub_norm.weight", &w::ffn_sub_norm, make_shape(n_ff));
  }
  if (parts.post_norm) {
    needs.vector(block, "post_ffw_norm.weight", &w::ffn_post_norm, make_shape(hp.n_embd));
  }
  if (parts.scales) {
    needs.vector(block, "ffn_gate.scale", &w::ffn_gate_scale, make_shape(1), optional);
    needs.vector(block, "ffn_up.scale", &w::ffn_up_scale, make_shape(1), optional);
    needs.vector(block, "ffn_down.scale", &w::ffn_down_scale, make_shape(1), optional);
  }
}

void declare_moe(tensor_needs& needs, const hparams& hp, std::int32_t layer,
                 const moe_tensors& parts) {
  using w = layer_weights;
  const block_id dense{block_kind::feed_forward, layer}, experts{block_kind::experts, layer};
  const std::int64_t n = hp.n_expert, n_ff = hp.n_ff_expert;
  needs.vector(dense, parts.norm, &w::ffn_norm, make_shape(hp.n_embd));
  needs.matrix(dense, "ffn_gate_inp.weight", &w::router, make_shape(hp.n_embd, n));
  needs.matrix(experts, "ffn_gate_exps.weight", &w::experts_gate, make_shape(hp.n_embd, n_ff, n));
  needs.matrix(experts, "ffn_up_exps.weight", &w::experts_up, make_shape(hp.n_embd, n_ff, n));
  needs.matrix(experts, "ffn_down_exps.weight", &w::experts_down, make_shape(n_ff, hp.n_embd, n));
  if (!parts.biases) return;
  needs.vector(dense, "ffn_gate_inp.bias", &w::router_bias, make_shape(n));
  needs.vector(experts, "ffn_gate_exps.bias", &w::experts_gate_bias, make_shape(n_ff, n));
  needs.vector(experts, "ffn_up_exps.bias", &w::experts_up_bias, make_shape(n_ff, n));
  needs.vector(experts, "ffn_down_exps.bias", &w::experts_down_bias, make_shape(hp.n_embd, n));
}

void require_experts(const gguf::file& file, const hparams& hp) {
  if (hp.n_expert > 0) return;
  throw error(errc::bad_file,
              concat("key '", hp.architecture, ".expert_count' is absent or 0; this architecture ",
                     "has experts in every layer."),
              {.file = file.name()});
}

void emit_attention(const layer_context& layer) {
  recording& out = layer.out;
  const layer_weights& w = layer.w();
  attention_spec spec = make_attention_spec(layer);
  const value q = out.make(std::int64_t{spec.n_head} * spec.key_length);
  const value k = out.make(std::int64_t{spec.n_head_kv} * spec.key_length);
  const value v = out.make(std::int64_t{spec.n_head_kv} * spec.value_length);
  out.emit(matmul_step{.in = layer.hidden,
                       .norm = norm_if(w.attn_norm, layer.hp),
                       .outputs = {{w.attn_q, w.attn_q_bias, q, w.attn_q_scale},
                                   {w.attn_k, w.attn_k_bias, k, w.attn_k_scale},
                                   {w.attn_v, w.attn_v_bias, v, w.attn_v_scale}}});
  const value attended = out.make(std::int64_t{spec.n_head} * spec.value_length);
  out.emit(attend_step{
      .q = q, .k = k, .v = v, .out = attended, .layer = layer.layer, .spec = std::move(spec)});
  emit_residual(layer, attended, w.attn_sub_norm,
                {w.attn_output, w.attn_output_bias, {}, w.attn_output_scale}, w.attn_post_norm);
}

void emit_dense_ffn(const layer_context& layer, gate_kind kind) {
  recording& out = layer.out;
  const layer_weights& w = layer.w();
  const std::int64_t n_ff = layer.layer_hp().n_ff;
  const value gate = out.make(n_ff), up = out.make(n_ff);
  out.emit(matmul_step{.in = layer.hidden,
                       .norm = norm_if(w.ffn_norm, layer.hp),
                       .outputs = {{w.ffn_gate, w.ffn_gate_bias, gate, w.ffn_gate_scale},
                                   {w.ffn_up, w.ffn_up_bias, up, w.ffn_up_scale}}});
  out.emit(gate_step{.gate = gate, .up = up, .out = gate, .kind = kind});
  emit_residual(layer, gate, w.ffn_sub_norm, {w.ffn_down, w.ffn_down_bias, {}, w.ffn_down_scale},
                w.ffn_post_norm);
}

void emit_moe(const layer_context& layer, const moe_options& options) {
  recording& out = layer.out;
  const layer_weights& w = layer.w();
  const std::int64_t used = layer.hp.n_expert_used, n_ff = layer.hp.n_ff_expert;
  const value normed = out.make(layer.hp.n_embd);
  out.emit(
      norm_step{.in = layer.hidden, .out = normed, .norm = {w.ffn_norm, layer.hp.norm_epsilon}});
  const value logits = out.make(layer.hp.n_expert);
  out.emit(matmul_step{.in = normed, .outputs = {{w.router, w.router_bias, logits}}});
  const value selection = out.make({.width = used, .element = value_element::i32});
  const value weights = out.make(used);
  out.emit(route_step{.logits = logits,
                      .selection = selection,
                      .weights = weights,
                      .kind = options.route,
                      .normalise = options.normalise});
  const value gate = out.make(used * n_ff), up = out.make(used * n_ff);
  out.emit(expert_matmul_step{.in = normed,
                              .selection = selection,
                              .outputs = {{w.experts_gate, w.experts_gate_bias, gate},
                                          {w.experts_up, w.experts_up_bias, up}}});
  out.emit(gate_step{.gate = gate, .up = up, .out = gate, .kind = options.gate});
  const value down = out.make(used * layer.hp.n_embd);
  out.emit(expert_matmul_step{.in = gate,
                              .selection = selection,
                              .in_per_slot = true,
                              .outputs = {{w.experts_down, w.experts_down_bias, down}}});
  out.emit(combine_step{.in = down, .weights = weights, .out = layer.hidden});
}

}  // namespace nibble::inline NIBBLE_ABI
