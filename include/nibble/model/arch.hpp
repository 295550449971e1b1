// What defines an architecture. Each family of them is one file, src/arch/<family>.cpp.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/device/kv_cache.hpp>
#include <nibble/device/recording.hpp>
#include <nibble/model/hparams.hpp>
#include <nibble/model/weights.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Where a layer function writes its steps, and what it reads.
struct layer_context {
  recording& out;
  const hparams& hp;
  const weight_table& weights;
  const std::vector<float>& rope_factors;  // divide the rotary frequencies; empty: none
  rope_style rope;
  std::int32_t layer;
  value hidden;  // [tokens, n_embd], changed in place

  const layer_hparams& layer_hp() const { return hp.layers[static_cast<std::size_t>(layer)]; }
  const layer_weights& w() const { return weights.layers[static_cast<std::size_t>(layer)]; }
};

struct arch_spec {
  std::string_view name;  // general.architecture
  rope_style rope = rope_style::none;
  // Completes what read_hparams found: keys of this architecture, layer patterns.
  void (*complete)(const gguf::file& file, hparams& hp) = nullptr;
  // Says which tensors one layer has; embedding and head are common to all.
  void (*declare_layer)(tensor_needs& needs, const hparams& hp, std::int32_t layer) = nullptr;
  // Emit the two halves of a layer.
  void (*attention)(const layer_context& layer) = nullptr;
  void (*feed_forward)(const layer_context& layer) = nullptr;
};

// Every architecture that nibble knows.
NIBBLE_API std::vector<std::span<const arch_spec>> arch_families();

// Throws error (unsupported) that lists the known ones.
NIBBLE_API const arch_spec& find_arch(std::string_view name);

// The numbers of a model of this architecture. Throws error: bad_file, unsupported.
NIBBLE_API hparams read_hparams(const gguf::file& file, const arch_spec& arch);

// Every tensor that such a model reads; none is looked for yet.
NIBBLE_API std::vector<tensor_need> declare_tensors(const arch_spec& arch, const hparams& hp);

// The factors that divide the rotary frequencies, one for each pair of dimensions. Files of any
// architecture may have them; they are no need, because they are read here and not by a device.
inline constexpr std::string_view rope_factors_name = "rope_freqs.weight";
NIBBLE_API nibble::shape rope_factors_shape(const hparams& hp);

// A model's definition: everything but the weights' values.
struct NIBBLE_API model_definition {
  const arch_spec* arch = nullptr;
  hparams hp;
  std::vector<tensor_need> needs;  // with the tensors found
  // Of the tensor rope_freqs.weight, if the file has it; ones if it was opened for its header only.
  std::vector<float> rope_factors;
  std::vector<std::string> unused;  // tensors of the file that nothing reads
  // Blocks in the order in which they run.
  std::vector<block_id> blocks;

  // Throws error: bad_file, unsupported.
  explicit model_definition(const gguf::file& file);

  // Whether the embedding is the head's matrix, too.
  bool tied() const;
  kv_layer kv(std::int32_t layer) const;
  kv_layout kv(kv_type key, kv_type value) const;
  // The steps of blocks [first, last), or of some of them, rising. The data of the weights is not
  // read.
  recording record(const weight_table& weights, std::size_t first, std::size_t last) const;
  recording record(const weight_table& weights, std::span<const std::size_t> some) const;
};

}  // namespace nibble::inline NIBBLE_ABI
