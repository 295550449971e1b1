// The named weights of a model, and what an architecture demands of a file.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/weight.hpp>
#include <nibble/gguf/file.hpp>
#include <string>
#include <variant>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct hparams;

// The unit of placement: what lies together on one device and runs there.
enum class block_kind { embedding, attention, feed_forward, experts, head };

struct block_id {
  block_kind kind = block_kind::embedding;
  std::int32_t layer = 0;  // 0 for embedding and head
  friend bool operator==(const block_id&, const block_id&) = default;
};

// "embedding", "layer 3 attention", …
NIBBLE_API std::string to_text(const block_id& block);

// A null pointer means that the model has no such weight.
struct layer_weights {
  const weight* attn_norm = nullptr;
  const weight *attn_q = nullptr, *attn_k = nullptr, *attn_v = nullptr, *attn_output = nullptr;
  const weight *attn_q_bias = nullptr, *attn_k_bias = nullptr, *attn_v_bias = nullptr;
  const weight* attn_output_bias = nullptr;
  const weight *attn_q_scale = nullptr, *attn_k_scale = nullptr, *attn_v_scale = nullptr;
  const weight* attn_output_scale = nullptr;
  const weight *attn_q_norm = nullptr, *attn_k_norm = nullptr;  // per head
  const weight* attn_sub_norm = nullptr;                        // before the output matrix
  const weight* attn_post_norm = nullptr;                       // after it
  const weight* attn_sinks = nullptr;

  const weight* ffn_norm = nullptr;
  const weight *ffn_gate = nullptr, *ffn_up = nullptr, *ffn_down = nullptr;
  const weight *ffn_gate_bias = nullptr, *ffn_up_bias = nullptr, *ffn_down_bias = nullptr;
  const weight *ffn_gate_scale = nullptr, *ffn_up_scale = nullptr, *ffn_down_scale = nullptr;
  const weight* ffn_sub_norm = nullptr;
  const weight* ffn_post_norm = nullptr;

  const weight *router = nullptr, *router_bias = nullptr;
  const weight *experts_gate = nullptr, *experts_up = nullptr, *experts_down = nullptr;
  const weight *experts_gate_bias = nullptr, *experts_up_bias = nullptr;
  const weight* experts_down_bias = nullptr;
};

struct weight_table {
  const weight *token_embd = nullptr, *output_norm = nullptr, *output = nullptr;
  std::vector<layer_weights> layers;
};

enum class presence { required, optional };

// One tensor that an architecture reads: its name in the file, its shape, its place in the table.
struct tensor_need {
  std::string name;
  nibble::shape shape;
  presence present = presence::required;
  block_id block;
  bool as_float = false;  // norm gains, biases, sinks: kept as F32, whatever the file holds
  std::variant<const weight * weight_table::*, const weight * layer_weights::*> slot;
  const gguf::tensor_info* found = nullptr;  // set by find_tensors; null: absent and optional

  // Whether it lies in memory even where blocks stay on disk: what is small and every token needs.
  NIBBLE_API bool is_kept() const;
  // The tensor found, as a backend will be given it; its data is the file's nonetheless.
  NIBBLE_API tensor_view stored_view() const;
};

// Collects needs; the functions of src/model/layers.cpp and src/arch say what they need.
class tensor_needs {
 public:
  void matrix(block_id block, const std::string& name, const weight* weight_table::*slot,
              nibble::shape shape, presence present = presence::required);
  void vector(block_id block, const std::string& name, const weight* weight_table::*slot,
              std::int64_t length);
  // Names in a layer get the prefix "blk.<layer>.".
  void matrix(block_id block, const std::string& name, const weight* layer_weights::*slot,
              nibble::shape shape, presence present = presence::required);
  void vector(block_id block, const std::string& name, const weight* layer_weights::*slot,
              nibble::shape shape, presence present = presence::required);

  std::vector<tensor_need> list;
};

// Finds every need in the file. Throws error (bad_file) naming the tensor that is missing or has
// another shape, with the shape expected.
NIBBLE_API void find_tensors(const gguf::file& file, std::vector<tensor_need>& needs);

// Puts a weight into the table at the place that the need names.
inline void set_slot(weight_table& table, const tensor_need& need, const weight* w) {
  if (const auto* global = std::get_if<const weight * weight_table::*>(&need.slot)) {
    table.*(*global) = w;
  } else {
    table.layers[static_cast<std::size_t>(need.block.layer)].*
        (std::get<const weight * layer_weights::*>(need.slot)) = w;
  }
}

}  // namespace nibble::inline NIBBLE_ABI
