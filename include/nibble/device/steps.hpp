// The fused steps that every architecture is made of and that every backend implements.
//
// A step is data: buffers of the workspace (`value`), weights, and numbers known when the model is
// loaded. What changes from batch to batch (tokens, positions, sequences) comes with the `batch` at
// run time, so a recorded list of steps, or a graph captured from it, is used again for each token.
// Steps are equal if they name the same values and weights.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/weight.hpp>
#include <optional>
#include <variant>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Names a buffer of the workspace: [rows, width], float32 unless its value_info says otherwise.
struct value {
  std::int32_t id = -1;
  explicit operator bool() const noexcept { return id >= 0; }
  friend bool operator==(value, value) = default;
};

enum class value_rows { per_token, per_output };  // output: a token whose logits are wanted
enum class value_element { f32, i32 };

struct value_info {
  std::int64_t width = 0;  // elements a row
  value_rows rows = value_rows::per_token;
  value_element element = value_element::f32;
  friend bool operator==(const value_info&, const value_info&) = default;
};

// y = x / sqrt(mean(x^2) + epsilon) * gain. Zhang and Sennrich 2019, arXiv:1910.07467.
struct rms_norm {
  const weight* gain = nullptr;  // [width]; F32
  float epsilon = 0;
  friend bool operator==(const rms_norm&, const rms_norm&) = default;
};

// out[t] = scale * table[token[t]]
struct embed_step {
  const weight* table = nullptr;  // [n_embd, n_vocab]
  float scale = 1;
  value out;
  friend bool operator==(const embed_step&, const embed_step&) = default;
};

// out = norm(in)
struct norm_step {
  value in, out;
  rms_norm norm;
  friend bool operator==(const norm_step&, const norm_step&) = default;
};

// out (+)= scale * (matrix * in) + bias
struct linear {
  const weight* matrix = nullptr;  // [columns, rows]
  const weight* bias = nullptr;    // [rows] or none; F32
  value out;                       // width = rows
  const weight* scale = nullptr;   // [1] or none; F32: of matrices that are stored without it
  friend bool operator==(const linear&, const linear&) = default;
};

// Several matrices over one input, which is normalised first if asked, and quantised once.
struct matmul_step {
  value in;
  std::optional<rms_norm> norm = {};
  std::vector<linear> outputs = {};
  bool accumulate = false;  // adds to what `out` holds: the residual
  friend bool operator==(const matmul_step&, const matmul_step&) = default;
};

enum class rope_style {
  none,
  norm,  // pairs (2i, 2i+1)
  neox,  // pairs (i, i + n/2)
};

// Rotary position embedding, Su et al. 2021, arXiv:2104.09864. Whatever scaling the model asks for
// (linear, YaRN, per-dimension factors) is already in the frequencies.
struct rope_spec {
  rope_style style = rope_style::none;
  std::vector<double> frequencies;  // radians a position, one for each rotated pair
  float magnitude = 1;              // multiplies sine and cosine (YaRN's attention factor)
  friend bool operator==(const rope_spec&, const rope_spec&) = default;
};

struct attention_spec {
  std::int32_t n_head = 0, n_head_kv = 0;
  std::int32_t key_length = 0, value_length = 0;  // per head
  float scale = 0;                                // multiplies q.k
  std::int32_t window = 0;                        // a token sees the last `window` ones; 0: all
  float softcap = 0;                              // s -> cap * tanh(s / cap); 0: none
  rope_spec rope;
  std::optional<rms_norm> q_norm, k_norm;  // per head, before rope; gain [key_length]
  const weight* sinks = nullptr;           // [n_head], F32: a logit per head without a value
  // Query temperature that grows with the position: q *= 1 + scale * ln(1 + floor(pos / period)).
  float temperature_scale = 0;
  std::int32_t temperature_period = 0;
  friend bool operator==(const attention_spec&, const attention_spec&) = default;
};

// Rotates q and k, appends k and v to the layer's cache, attends over it.
struct attend_step {
  value q, k, v;  // [tokens, n_head * key_length], [tokens, n_head_kv * key_length], [...,
                  // n_head_kv * value_length]
  value out;      // [tokens, n_head * value_length]
  std::int32_t layer = 0;
  attention_spec spec;
  friend bool operator==(const attend_step&, const attend_step&) = default;
};

enum class gate_kind {
  silu,           // silu(gate) * up
  gelu_tanh,      // gelu(gate) * up, tanh approximation
  relu_squared,   // relu(gate)^2 * up
  swiglu_clamped  // g = min(gate, 7), u = clamp(up, -7, 7): g * sigmoid(1.702 g) * (u + 1)
};

// out = activation(gate) * up; widths are equal
struct gate_step {
  value gate, up, out;
  gate_kind kind = gate_kind::silu;
  friend bool operator==(const gate_step&, const gate_step&) = default;
};

// out += norm(in) if a norm is given, else in
struct add_step {
  value in, out;
  std::optional<rms_norm> norm = {};
  friend bool operator==(const add_step&, const add_step&) = default;
};

enum class route_kind {
  softmax_then_top,  // weights: softmax over all experts, the chosen ones
  top_then_softmax,  // weights: softmax over the chosen ones only
};

// Chooses the experts of each token: greatest logits first, the lower index at a tie.
struct route_step {
  value logits;     // [tokens, n_expert]
  value selection;  // [tokens, n_used], i32
  value weights;    // [tokens, n_used]
  route_kind kind = route_kind::softmax_then_top;
  bool normalise = false;  // make the chosen weights sum to 1
  float scale = 1;
  friend bool operator==(const route_step&, const route_step&) = default;
};

// For each token and each of its chosen experts: out = matrix[expert] * in + bias[expert].
struct expert_matmul_step {
  value in;         // [tokens, columns], or [tokens, n_used * columns] if in_per_slot
  value selection;  // [tokens, n_used]
  bool in_per_slot = false;
  std::vector<linear> outputs = {};  // matrix [columns, rows, n_expert], bias [rows, n_expert]; out
                                     // [tokens, n_used * rows]
  friend bool operator==(const expert_matmul_step&, const expert_matmul_step&) = default;
};

// out[t] += sum over slots of weights[t, slot] * in[t, slot]
struct combine_step {
  value in;       // [tokens, n_used * width]
  value weights;  // [tokens, n_used]
  value out;      // [tokens, width]
  friend bool operator==(const combine_step&, const combine_step&) = default;
};

// out = the rows of `in` whose logits are wanted
struct select_step {
  value in;   // per token
  value out;  // per output, same width
  friend bool operator==(const select_step&, const select_step&) = default;
};

// x -> cap * tanh(x / cap), in place
struct softcap_step {
  value x;
  float cap = 0;
  friend bool operator==(const softcap_step&, const softcap_step&) = default;
};

using step = std::variant<embed_step, norm_step, matmul_step, attend_step, gate_step, add_step,
                          route_step, expert_matmul_step, combine_step, select_step, softcap_step>;

}  // namespace nibble::inline NIBBLE_ABI
