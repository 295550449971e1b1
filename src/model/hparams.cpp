#include <nibble/base/concat.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/model/hparams.hpp>
#include <nibble/model/limits.hpp>

#include "gguf/cursor.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

namespace limits = model_limits;

// Reads keys with the architecture's prefix.
class key_reader {
 public:
  explicit key_reader(const gguf::file& file)
      : file_(file), prefix_(std::string(file.require<std::string_view>("general.architecture"))) {}

  const std::string& architecture() const { return prefix_; }
  std::string key(std::string_view name) const { return concat(prefix_, ".", name); }

  std::int32_t bounded(const std::string& full_key, std::int64_t value, std::int64_t low,
                       std::int64_t high) const {
    if (value < low || value > high) {
      throw error(errc::bad_file,
                  concat("key '", full_key, "' is ", value, "; it must be between ", low, " and ",
                         high, "."),
                  {.file = file_.name()});
    }
    return static_cast<std::int32_t>(value);
  }

  std::int32_t require(std::string_view name, std::int64_t low, std::int64_t high) const {
    return bounded(key(name), file_.require<std::int64_t>(key(name)), low, high);
  }

  std::int32_t get(std::string_view name, std::int64_t low, std::int64_t high,
                   std::int64_t otherwise) const {
    const auto found = file_.get<std::int64_t>(key(name));
    return found ? bounded(key(name), *found, low, high) : static_cast<std::int32_t>(otherwise);
  }

  // Refuses what is not a number, too.
  double number(std::string_view name, limits::range range, double otherwise) const {
    const double value = file_.get<double>(key(name)).value_or(otherwise);
    if (value >= range.low && value <= range.high) return value;
    throw error(errc::bad_file,
                concat("key '", key(name), "' is ", value, "; it must be a number between ",
                       range.low, " and ", range.high, "."),
                {.file = file_.name()});
  }

  double require_number(std::string_view name, limits::range range) const {
    file_.require<double>(key(name));
    return number(name, range, 0);
  }

  // A number for all layers, or an array with one for each.
  std::vector<std::int32_t> per_layer(std::string_view name, std::int32_t n_layer, std::int64_t low,
                                      std::int64_t high,
                                      const std::vector<std::int32_t>& otherwise) const {
    const auto* found = file_.find(key(name));
    if (!found) return otherwise;
    const auto n = static_cast<std::size_t>(n_layer);
    if (found->type() != gguf::value_type::array) {
      return std::vector<std::int32_t>(n, require(name, low, high));
    }
    const auto values = *file_.get_array<std::int64_t>(key(name));
    if (values.size() < n) {
      throw error(errc::bad_file,
                  concat("key '", key(name), "' has ", values.size(), " entries; the model has ",
                         n_layer, " layers."),
                  {.file = file_.name()});
    }
    std::vector<std::int32_t> out(n);
    for (std::size_t i = 0; i < n; ++i) out[i] = bounded(key(name), values[i], low, high);
    return out;
  }

 private:
  const gguf::file& file_;
  std::string prefix_;
};

void read_layers(const key_reader& keys, const gguf::file& file, hparams& hp) {
  const auto n = static_cast<std::size_t>(hp.n_layer);
  hp.layers.resize(n);
  const auto heads = keys.per_layer("attention.head_count", hp.n_layer, 1, limits::heads, {});
  if (heads.empty())
    keys.require("attention.head_count", 1, limits::heads);  // names the missing key
  const auto heads_kv =
      keys.per_layer("attention.head_count_kv", hp.n_layer, 1, limits::heads, heads);
  const auto ff = keys.per_layer("feed_forward_length", hp.n_layer, 1, limits::width,
                                 std::vector<std::int32_t>(n, 0));
  // a file with experts in every layer may state their length only
  if (ff[0] == 0 && !file.find(keys.key("expert_feed_forward_length"))) {
    keys.require("feed_forward_length", 1, limits::width);  // names the missing key
  }
  const double base = keys.number("rope.freq_base", limits::rope_bases, 10000);
  for (std::size_t i = 0; i < n; ++i) {
    if (heads[i] % heads_kv[i] != 0) {
      throw error(errc::bad_file,
                  concat("layer ", i, " has ", heads[i], " heads and ", heads_kv[i],
                         " key/value heads; the first must be a multiple of the second."),
                  {.file = file.name()});
    }
    hp.layers[i] = {.n_head = heads[i], .n_head_kv = heads_kv[i], .n_ff = ff[i], .rope_base = base};
  }
}

// Keys or values of a head; if the file does not state it, the heads share the width evenly.
std::int32_t read_head_length(const key_reader& keys, const gguf::file& file, const hparams& hp,
                              std::string_view name) {
  if (file.find(keys.key(name))) return keys.require(name, 1, limits::head_length);
  const std::int32_t heads = hp.layers[0].n_head, length = hp.n_embd / heads;
  if (hp.n_embd % heads == 0 && length <= limits::head_length) return length;
  throw error(
      errc::bad_file,
      concat("the key '", keys.key(name), "' is absent, and the width ", hp.n_embd, " divided by ",
             heads, " heads is no whole number up to ", limits::head_length, "."),
      {.file = file.name()});
}

void read_head_lengths(const key_reader& keys, const gguf::file& file, hparams& hp) {
  hp.key_length = read_head_length(keys, file, hp, "attention.key_length");
  hp.value_length = read_head_length(keys, file, hp, "attention.value_length");
  hp.n_rot = keys.get("rope.dimension_count", 0, hp.key_length, hp.key_length);
  if (hp.n_rot % 2 != 0) {
    throw error(
        errc::bad_file,
        concat("key '", keys.key("rope.dimension_count"), "' is ", hp.n_rot, "; it must be even."),
        {.file = file.name()});
  }
}

void read_rope(const key_reader& keys, const gguf::file& file, hparams& hp) {
  const auto kind = file.get<std::string_view>(keys.key("rope.scaling.type"));
  rope_scaling& rope = hp.rope;
  // files from before rope.scaling.* state only a linear factor; 0 stands for none in both
  rope.factor = 1;
  for (const char* name : {"rope.scale_linear", "rope.scaling.factor"}) {
    if (file.get<double>(keys.key(name)).value_or(0) == 0) continue;
    rope.factor = keys.number(name, limits::rope_factors, 1);
  }
  rope.original_context =
      keys.get("rope.scaling.original_context_length", 1, limits::context, hp.n_ctx_train);
  rope.attention_factor = keys.number("rope.scaling.attn_factor", limits::magnitudes, 1);
  rope.beta_fast = keys.number("rope.scaling.yarn_beta_fast", limits::rope_betas, 32);
  rope.beta_slow = keys.number("rope.scaling.yarn_beta_slow", limits::rope_betas, 1);
  rope.log_multiplier = keys.number("rope.scaling.yarn_log_multiplier", limits::multipliers, 0);
  if (!kind || *kind == "linear") {
    rope.kind = rope.factor == 1 ? rope_scaling_kind::none : rope_scaling_kind::linear;
  } else if (*kind == "yarn") {
    rope.kind = rope_scaling_kind::yarn;
  } else if (*kind != "none") {
    throw error(errc::unsupported,
                concat("key '", keys.key("rope.scaling.type"), "' is '", gguf::printable(*kind),
                       "'; nibble knows none, linear and yarn."),
                {.file = file.name()});
  }
}

void read_experts(const key_reader& keys, hparams& hp) {
  hp.n_expert = keys.get("expert_count", 0, limits::experts, 0);
  if (hp.n_expert == 0) return;
  hp.n_expert_used = keys.require("expert_used_count", 1, hp.n_expert);
  hp.n_ff_expert = keys.get("expert_feed_forward_length", 1, limits::width, hp.layers[0].n_ff);
}

}  // namespace

hparams read_hparams(const gguf::file& file) {
  const key_reader keys(file);
  hparams hp;
  hp.architecture = keys.architecture();
  hp.name = std::string(file.get<std::string_view>("general.name").value_or(""));
  hp.n_layer = keys.require("block_count", 1, limits::layers);
  hp.n_embd = keys.require("embedding_length", 1, limits::width);
  hp.n_ctx_train = keys.require("context_length", 1, limits::context);
  hp.norm_epsilon =
      static_cast<float>(keys.require_number("attention.layer_norm_rms_epsilon", limits::epsilons));
  // `vocab_size` is optional: a model with a tokenizer has as many entries as that
  const auto* tokens = file.find("tokenizer.ggml.tokens");
  const auto* list =
      tokens ? std::get_if<std::shared_ptr<const gguf::array_view>>(&tokens->data) : nullptr;
  if (list) {
    hp.n_vocab = keys.bounded("tokenizer.ggml.tokens", static_cast<std::int64_t>((*list)->count), 1,
                              limits::vocabulary);
  } else {
    hp.n_vocab = keys.require("vocab_size", 1, limits::vocabulary);
  }
  read_layers(keys, file, hp);
  read_head_lengths(keys, file, hp);
  read_rope(keys, file, hp);
  read_experts(keys, hp);
  hp.sliding_window = keys.get("attention.sliding_window", 0, limits::context, 0);
  hp.attention_softcap =
      static_cast<float>(keys.number("attn_logit_softcapping", limits::softcaps, 0));
  hp.final_softcap =
      static_cast<float>(keys.number("final_logit_softcapping", limits::softcaps, 0));
  hp.temperature_scale =
      static_cast<float>(keys.number("attention.temperature_scale", limits::multipliers, 0));
  // the temperature of queries counts in original contexts
  if (hp.temperature_scale != 0) {
    hp.temperature_period = static_cast<std::int32_t>(hp.rope.original_context);
  }
  return hp;
}

}  // namespace nibble::inline NIBBLE_ABI
