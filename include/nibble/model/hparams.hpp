// The numbers that define a model, read from GGUF metadata and checked.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/steps.hpp>
#include <nibble/gguf/file.hpp>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

enum class rope_scaling_kind { none, linear, yarn };

// How rotary frequencies are stretched to contexts longer than the model was first trained for.
struct rope_scaling {
  rope_scaling_kind kind = rope_scaling_kind::none;
  double factor = 1;            // of the context
  double original_context = 0;  // tokens; YaRN
  double attention_factor = 1;  // multiplies sine and cosine
  double beta_fast = 32, beta_slow = 1;
  double log_multiplier = 0;
};

// What may differ from layer to layer.
struct layer_hparams {
  std::int32_t n_head = 0, n_head_kv = 0;
  std::int32_t n_ff = 0;
  std::int32_t window = 0;  // tokens of sliding-window attention; 0: all
  double rope_base = 10000;
  bool rope_scaled = true;  // hparams::rope applies
};

struct hparams {
  std::string architecture;
  std::string name;  // of the model, if the file tells
  std::int32_t n_layer = 0, n_embd = 0, n_vocab = 0;
  std::int32_t n_ctx_train = 0;
  std::int32_t key_length = 0, value_length = 0;  // per head
  float norm_epsilon = 0;
  std::vector<layer_hparams> layers;

  std::int32_t n_rot = 0;  // dimensions of a head that are rotated
  rope_scaling rope;

  std::int32_t n_expert = 0, n_expert_used = 0, n_ff_expert = 0;

  gate_kind ffn_gate = gate_kind::silu;

  float embedding_scale = 1;
  float attention_scale = 0;  // 0: 1 / sqrt(key_length)
  float attention_softcap = 0, final_softcap = 0;
  float temperature_scale = 0;
  std::int32_t temperature_period = 0;
  std::int32_t sliding_window = 0;  // as the file states it; which layers use it, `layers` tells
};

// Reads the keys that every architecture has, and those of experts, rope and windows if present.
// Throws error (bad_file) that names the key, its value, and what would be right.
NIBBLE_API hparams read_hparams(const gguf::file& file);

}  // namespace nibble::inline NIBBLE_ABI
