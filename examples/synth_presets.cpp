#include "synth_presets.hpp"

#include <algorithm>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/model/arch.hpp>
#include <nibble/model/limits.hpp>
#include <numbers>

namespace synth {
namespace {

using nibble::concat;
using nibble::errc;
using nibble::error;

// From the config.json that is published with each model; contexts are max_position_embeddings.
// Vocabularies are as long as the embedding, which is what files in GGUF have.
// clang-format off
constexpr model_numbers rows[] = {
  // Qwen/Qwen2.5-0.5B
  {.name = "qwen2.5-0.5b", .arch = "qwen2", .n_layer = 24, .n_embd = 896, .n_ff = 4864,
   .n_head = 14, .n_head_kv = 2, .n_vocab = 151936, .n_context = 32768,
   .epsilon = 1e-6, .rope_base = 1e6, .tied = true},
  // meta-llama/Llama-3.2-1B
  {.name = "llama-3.2-1b", .arch = "llama", .n_layer = 16, .n_embd = 2048, .n_ff = 8192,
   .n_head = 32, .n_head_kv = 8, .head_length = 64, .n_vocab = 128256, .n_context = 131072,
   .epsilon = 1e-5, .rope_base = 500000, .rope = {rope_kind::llama3, 32, 8192}, .tied = true},
  // Qwen/Qwen3-4B
  {.name = "qwen3-4b", .arch = "qwen3", .n_layer = 36, .n_embd = 2560, .n_ff = 9728,
   .n_head = 32, .n_head_kv = 8, .head_length = 128, .n_vocab = 151936, .n_context = 40960,
   .epsilon = 1e-6, .rope_base = 1e6, .tied = true},
  // meta-llama/Llama-3.1-8B
  {.name = "llama-3.1-8b", .arch = "llama", .n_layer = 32, .n_embd = 4096, .n_ff = 14336,
   .n_head = 32, .n_head_kv = 8, .head_length = 128, .n_vocab = 128256, .n_context = 131072,
   .epsilon = 1e-5, .rope_base = 500000, .rope = {rope_kind::llama3, 8, 8192}},
  // google/gemma-3-12b-it, its text_config
  {.name = "gemma3-12b", .arch = "gemma3", .n_layer = 48, .n_embd = 3840, .n_ff = 15360,
   .n_head = 16, .n_head_kv = 8, .head_length = 256, .n_vocab = 262208, .n_context = 131072,
   .epsilon = 1e-6, .rope_base = 1e6, .rope = {rope_kind::linear, 8}, .window = 1024, .tied = true},
  // Qwen/Qwen3-32B
  {.name = "qwen3-32b", .arch = "qwen3", .n_layer = 64, .n_embd = 5120, .n_ff = 25600,
   .n_head = 64, .n_head_kv = 8, .head_length = 128, .n_vocab = 151936, .n_context = 40960,
   .epsilon = 1e-6, .rope_base = 1e6},
  // meta-llama/Llama-3.1-70B
  {.name = "llama-3.1-70b", .arch = "llama", .n_layer = 80, .n_embd = 8192, .n_ff = 28672,
   .n_head = 64, .n_head_kv = 8, .head_length = 128, .n_vocab = 128256, .n_context = 131072,
   .epsilon = 1e-5, .rope_base = 500000, .rope = {rope_kind::llama3, 8, 8192}},
  // meta-llama/Llama-3.1-405B
  {.name = "llama-3.1-405b", .arch = "llama", .n_layer = 126, .n_embd = 16384, .n_ff = 53248,
   .n_head = 128, .n_head_kv = 8, .head_length = 128, .n_vocab = 128256, .n_context = 131072,
   .epsilon = 1e-5, .rope_base = 500000, .rope = {rope_kind::llama3, 8, 8192}},
  // Qwen/Qwen3-30B-A3B
  {.name = "qwen3-30b-a3b", .arch = "qwen3moe", .n_layer = 48, .n_embd = 2048, .n_ff = 6144,
   .n_head = 32, .n_head_kv = 4, .head_length = 128, .n_vocab = 151936, .n_context = 40960,
   .epsilon = 1e-6, .rope_base = 1e6, .n_expert = 128, .n_expert_used = 8, .n_ff_expert = 768},
  // Qwen/Qwen3-235B-A22B
  {.name = "qwen3-235b-a22b", .arch = "qwen3moe", .n_layer = 94, .n_embd = 4096, .n_ff = 12288,
   .n_head = 64, .n_head_kv = 4, .head_length = 128, .n_vocab = 151936, .n_context = 40960,
   .epsilon = 1e-6, .rope_base = 1e6, .n_expert = 128, .n_expert_used = 8, .n_ff_expert = 1536},
  // openai/gpt-oss-20b
  {.name = "gpt-oss-20b", .arch = "gpt-oss", .n_layer = 24, .n_embd = 2880, .n_ff = 2880,
   .n_head = 64, .n_head_kv = 8, .head_length = 64, .n_vocab = 201088, .n_context = 131072,
   .epsilon = 1e-5, .rope_base = 150000, .rope = {rope_kind::yarn, 32, 4096}, .window = 128,
   .n_expert = 32, .n_expert_used = 4, .n_ff_expert = 2880},
};

// What is usual for an architecture where nothing is stated.
struct arch_row {
  std::string_view arch;
  std::string_view vocabulary;
  std::string_view optional_tensor;  // that its files have, as a name ends
  double rope_base;
  bool tied = false;
  arch_uses uses = {};
};

constexpr arch_row arch_rows[] = {
  {.arch = "llama", .vocabulary = "llama-bpe", .optional_tensor = "", .rope_base = 500000,
   .uses = {.experts = use::maybe}},
  {.arch = "mistral3", .vocabulary = "tekken", .optional_tensor = "", .rope_base = 1e6,
   .uses = {.experts = use::maybe}},
  {.arch = "qwen2", .vocabulary = "qwen2", .optional_tensor = "", .rope_base = 1e6},
  {.arch = "qwen3", .vocabulary = "qwen2", .optional_tensor = "", .rope_base = 1e6},
  {.arch = "qwen3moe", .vocabulary = "qwen2", .optional_tensor = "", .rope_base = 1e6,
   .uses = {.experts = use::always}},
  {.arch = "gemma3", .vocabulary = "gemma", .optional_tensor = "", .rope_base = 1e6, .tied = true,
   .uses = {.window = use::maybe}},
  {.arch = "gpt-oss", .vocabulary = "gpt-4o", .optional_tensor = ".attn_output.bias",
   .rope_base = 150000, .uses = {.experts = use::always, .window = use::always}},
  {.arch = "bitnet", .vocabulary = "llama-bpe", .optional_tensor = "", .rope_base = 500000,
   .tied = true},
};
// clang-format on

const arch_row& find_row(std::string_view arch) {
  static_cast<void>(nibble::find_arch(arch));  // says which ones there are
  for (const arch_row& row : arch_rows) {
    if (row.arch == arch) return row;
  }
  throw error(errc::unsupported,
              concat("there are no synthetic models of the architecture '", arch, "' yet."));
}

void require(const model_numbers& n, const arch_row& row) {
  std::string missing;
  const auto need = [&](bool wanted, bool stated, const char* option) {
    if (wanted && !stated) missing += concat(missing.empty() ? "" : ", ", option);
  };
  const bool experts = row.uses.experts == use::always || n.n_expert > 0;
  const rope_kind rope = n.rope.kind;
  need(true, n.n_layer != 0, "--n-layer");
  need(true, n.n_embd != 0, "--n-embd");
  need(true, n.n_head != 0, "--n-head");
  need(!experts, n.n_ff != 0, "--n-ff");
  need(experts, n.n_expert != 0, "--n-expert");
  need(experts, n.n_ff_expert != 0, "--n-ff-expert");
  need(experts, n.n_expert_used != 0, "--n-expert-used");
  need(row.uses.window == use::always, n.window != 0, "--sliding-window");
  need(rope != rope_kind::none, n.rope.factor != 0, "--rope-factor");
  need(rope == rope_kind::yarn || rope == rope_kind::llama3, n.rope.original_context != 0,
       "--rope-original-context");
  if (missing.empty()) return;
  throw error(errc::invalid_argument, concat("a model of the architecture '", row.arch,
                                             "' needs these options, too: ", missing, "."));
}

// What the reader of a model would refuse, in the words of the options.
void check_shape(const model_numbers& n) {
  const auto refuse = [](const auto&... parts) {
    throw error(errc::invalid_argument, concat(parts...));
  };
  if (n.n_head % n.n_head_kv != 0) {
    refuse("--n-head is ", n.n_head, " and --n-head-kv ", n.n_head_kv,
           "; the first must be a multiple of the second.");
  }
  if (n.head_length == 0 && n.n_embd % n.n_head != 0) {
    refuse("--n-embd ", n.n_embd, " divided by --n-head ", n.n_head,
           " is no whole number; choose others, or state --head-length.");
  }
  const std::int32_t length = n.head_length != 0 ? n.head_length : n.n_embd / n.n_head;
  if (length > nibble::model_limits::head_length) {
    refuse("--n-embd ", n.n_embd, " divided by --n-head ", n.n_head, " makes heads of ", length,
           "; at most ", nibble::model_limits::head_length,
           " is possible: choose others, or state --head-length.");
  }
  if (length % 2 != 0) {
    refuse(n.head_length != 0 ? "--head-length is " : "--n-embd divided by --n-head is ", length,
           "; the length of a head must be even.");
  }
  if (n.n_expert_used > n.n_expert) {
    refuse("--n-expert-used is ", n.n_expert_used, ", and --n-expert ", n.n_expert,
           "; a token cannot use more experts than there are.");
  }
}

}  // namespace

std::span<const model_numbers> presets() {
  return rows;
}

const model_numbers& find_preset(std::string_view name) {
  std::string known;
  for (const model_numbers& row : rows) {
    if (row.name == name) return row;
    known += concat(known.empty() ? "" : ", ", row.name);
  }
  throw error(errc::invalid_argument,
              concat("there is no preset '", name, "'; there are ", known, "."));
}

void complete(model_numbers& n) {
  if (n.arch.empty()) {
    throw error(errc::invalid_argument,
                "neither --preset nor --arch says what model it shall be; see --list and --help.");
  }
  const arch_row& row = find_row(n.arch);
  // of a preset that is made into another architecture
  if (row.uses.experts == use::never) n.n_expert = n.n_expert_used = n.n_ff_expert = 0;
  if (row.uses.window == use::never) n.window = 0;
  require(n, row);
  if (n.name.empty()) n.name = n.arch;
  if (n.n_head_kv == 0) n.n_head_kv = n.n_head;
  if (n.n_vocab == 0) n.n_vocab = 32000;
  if (n.n_context == 0) n.n_context = 4096;
  if (n.epsilon == 0) n.epsilon = 1e-5;
  if (n.rope_base == 0) n.rope_base = row.rope_base;
  if (!n.tied) n.tied = row.tied;
  check_shape(n);
}

arch_uses uses_of(std::string_view arch) {
  return find_row(arch).uses;
}

std::string_view vocabulary_of(std::string_view arch) {
  return find_row(arch).vocabulary;
}

bool has_optional_tensor(const model_numbers& numbers, std::string_view tensor) {
  if (tensor == "output.weight") return !numbers.tied.value_or(false);
  const std::string_view wanted = find_row(numbers.arch).optional_tensor;
  return !wanted.empty() && tensor.ends_with(wanted);
}

void write_numbers(nibble::gguf::writer& out, const model_numbers& n) {
  const auto key = [&](std::string_view name) { return concat(n.arch, ".", name); };
  const auto whole = [&](std::string_view name, std::int32_t value) {
    if (value != 0) out.set(key(name), static_cast<std::uint32_t>(value));
  };
  const auto real = [&](std::string_view name, double value) {
    out.set(key(name), static_cast<float>(value));
  };
  out.set("general.architecture", n.arch);
  out.set("general.type", "model");
  out.set("general.name", concat("synthetic ", n.name));
  out.set("general.description", "Random weights: for measuring speed and memory, not for use.");
  whole("block_count", n.n_layer);
  whole("context_length", n.n_context);
  whole("embedding_length", n.n_embd);
  whole("feed_forward_length", n.n_ff);
  whole("attention.head_count", n.n_head);
  whole("attention.head_count_kv", n.n_head_kv);
  whole("attention.key_length", n.head_length);
  whole("attention.value_length", n.head_length);
  whole("attention.sliding_window", n.window);
  real("attention.layer_norm_rms_epsilon", n.epsilon);
  whole("expert_count", n.n_expert);
  whole("expert_used_count", n.n_expert_used);
  whole("expert_feed_forward_length", n.n_ff_expert);
  whole("vocab_size", n.n_vocab);
  whole("rope.dimension_count", n.head_length);
  real("rope.freq_base", n.rope_base);
  if (n.rope.kind == rope_kind::linear || n.rope.kind == rope_kind::yarn) {
    out.set(key("rope.scaling.type"), n.rope.kind == rope_kind::yarn ? "yarn" : "linear");
    real("rope.scaling.factor", n.rope.factor);
    whole("rope.scaling.original_context_length", n.rope.original_context);
  }
}

// The Llama 3 Herd of Models, 2024, arXiv:2407.21783, and the reference code that came with 3.1:
// wavelengths beyond the original context are divided by the factor, those below a quarter of it
// stay, and between them the share of each changes linearly with the frequency.
std::vector<float> rope_factors(const model_numbers& n, std::int32_t n_rot) {
  if (n.rope.kind != rope_kind::llama3) return {};
  constexpr double low = 1, high = 4;  // low_freq_factor, high_freq_factor
  std::vector<float> out;
  for (std::int32_t i = 0; i < n_rot / 2; ++i) {
    const double frequency = std::pow(n.rope_base, -2.0 * i / n_rot);
    const double turns = n.rope.original_context * frequency / (2 * std::numbers::pi);
    const double kept = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    out.push_back(static_cast<float>(1 / ((1 - kept) / n.rope.factor + kept)));
  }
  return out;
}

}  // namespace synth
