// The numbers of models: published ones by name, and how they are written as metadata.
#pragma once

#include <cstdint>
#include <nibble/gguf/writer.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace synth {

enum class rope_kind { none, linear, yarn, llama3 };

// How rotary frequencies are stretched. llama3 is written as a tensor of factors.
struct rope_stretch {
  rope_kind kind = rope_kind::none;
  double factor = 0;
  std::int32_t original_context = 0;  // tokens; yarn and llama3
};

// 0 and "" stand for what is not stated.
struct model_numbers {
  std::string_view name;
  std::string_view arch;  // general.architecture
  std::int32_t n_layer = 0, n_embd = 0, n_ff = 0;
  std::int32_t n_head = 0, n_head_kv = 0, head_length = 0;
  std::int32_t n_vocab = 0, n_context = 0;
  double epsilon = 0, rope_base = 0;
  rope_stretch rope = {};
  std::int32_t window = 0;
  std::int32_t n_expert = 0, n_expert_used = 0, n_ff_expert = 0;
  std::optional<bool> tied = {};  // no output matrix: the embedding serves as one
};

// Whether models of an architecture have something.
enum class use { never, maybe, always };

struct arch_uses {
  use experts = use::never, window = use::never;
};

std::span<const model_numbers> presets();

// Throws nibble::error (invalid_argument) that lists the known ones.
const model_numbers& find_preset(std::string_view name);

// Fills in what is not stated and has a usual value, for the architecture. Throws nibble::error
// (invalid_argument) naming the options that are missing, or whose numbers contradict each other.
void complete(model_numbers& numbers);

// Throws nibble::error as find_arch does.
arch_uses uses_of(std::string_view arch);

// What a family's files have besides the numbers. Throws nibble::error as find_arch does.
std::string_view vocabulary_of(std::string_view arch);
// Whether files of this architecture have a tensor that it need not have: "blk.0.attn_output.bias".
bool has_optional_tensor(const model_numbers& numbers, std::string_view tensor);

// Sets general.* and the keys of the architecture.
void write_numbers(nibble::gguf::writer& out, const model_numbers& numbers);

// The factors that the frequencies of `n_rot` dimensions are divided by; empty unless llama3.
std::vector<float> rope_factors(const model_numbers& numbers, std::int32_t n_rot);

}  // namespace synth
