#include <algorithm>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/formats/decode.hpp>
#include <nibble/model/arch.hpp>
#include <numeric>
#include <unordered_set>

#include "gguf/cursor.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

nibble::shape embedding_shape(const hparams& hp) {
  return {{static_cast<std::uint64_t>(hp.n_embd), static_cast<std::uint64_t>(hp.n_vocab), 1, 1}};
}

std::vector<float> read_rope_factors(const gguf::file& file, const hparams& hp) {
  const gguf::tensor_info* found = file.find_tensor(rope_factors_name);
  if (!found) return {};
  const auto pairs = static_cast<std::uint64_t>(hp.n_rot / 2);
  const error_context where{
      .file = file.name(), .offset = found->offset, .tensor = std::string(rope_factors_name)};
  if (!has_format(found->view.format)) throw_unsupported(found->view.format, where);
  if (found->view.shape != rope_factors_shape(hp)) {
    throw error(errc::bad_file,
                concat("the shape is ", to_text(found->view.shape), "; one factor for each of ",
                       pairs, " rotated pairs was expected."),
                where);
  }
  std::vector<float> factors(pairs, 1.0f);
  // without data nothing is computed, and sizes do not depend on the factors
  if (!file.has_data()) return factors;
  std::vector<std::byte> buffer;
  const auto stored = file.read(*found, 0, found->bytes, buffer);
  decode_row(found->view.format, stored.data(), pairs, factors.data());
  for (std::size_t i = 0; i < pairs; ++i) {
    const float f = factors[i];
    if (!(f > 0) || !std::isfinite(f)) {
      throw error(errc::bad_file,
                  concat("factor ", i, " is ", f, "; it must be a positive number."), where);
    }
  }
  return factors;
}

std::vector<std::string> find_unused(const gguf::file& file,
                                     const std::vector<tensor_need>& needs) {
  std::unordered_set<std::string_view> read{rope_factors_name};
  for (const tensor_need& need : needs) read.insert(need.name);
  std::vector<std::string> unused;
  for (const gguf::tensor_info& tensor : file.tensors()) {
    if (!read.contains(tensor.name)) unused.emplace_back(tensor.name);
  }
  return unused;
}

void record_head(recording& out, const hparams& hp, const weight_table& weights, value hidden) {
  const value selected = out.make({.width = hp.n_embd, .rows = value_rows::per_output});
  const value logits = out.make({.width = hp.n_vocab, .rows = value_rows::per_output});
  out.emit(select_step{.in = hidden, .out = selected});
  const weight* matrix = weights.output ? weights.output : weights.token_embd;
  out.emit(matmul_step{.in = selected,
                       .norm = rms_norm{weights.output_norm, hp.norm_epsilon},
                       .outputs = {{matrix, nullptr, logits}}});
  if (hp.final_softcap != 0) out.emit(softcap_step{.x = logits, .cap = hp.final_softcap});
  out.output = logits;
}

}  // namespace

const arch_spec& find_arch(std::string_view name) {
  // the specs themselves are constants; only this list of them is made anew
  const auto families = arch_families();
  std::string known;
  for (const auto family : families) {
    for (const arch_spec& spec : family) {
      if (spec.name == name) return spec;
      known += concat(known.empty() ? "" : ", ", spec.name);
    }
  }
  throw error(errc::unsupported, concat("the architecture '", gguf::printable(name),
                                        "' is unknown; nibble knows ", known, "."));
}

std::vector<tensor_need> declare_tensors(const arch_spec& arch, const hparams& hp) {
  using w = weight_table;
  const block_id head{block_kind::head, 0};
  tensor_needs needs;
  needs.matrix({block_kind::embedding, 0}, "token_embd.weight", &w::token_embd,
               embedding_shape(hp));
  for (std::int32_t layer = 0; layer < hp.n_layer; ++layer) arch.declare_layer(needs, hp, layer);
  needs.vector(head, "output_norm.weight", &w::output_norm, hp.n_embd);
  // absent: tied to the embedding
  needs.matrix(head, "output.weight", &w::output, embedding_shape(hp), presence::optional);
  return std::move(needs.list);
}

nibble::shape rope_factors_shape(const hparams& hp) {
  return {{static_cast<std::uint64_t>(hp.n_rot / 2), 1, 1, 1}};
}

hparams read_hparams(const gguf::file& file, const arch_spec& arch) {
  hparams hp = read_hparams(file);
  if (arch.complete) arch.complete(file, hp);
  return hp;
}

model_definition::model_definition(const gguf::file& file) {
  const auto name = file.require<std::string_view>("general.architecture");
  arch = &find_arch(name);
  hp = read_hparams(file, *arch);
  needs = declare_tensors(*arch, hp);
  find_tensors(file, needs);
  rope_factors = read_rope_factors(file, hp);
  unused = find_unused(file, needs);
  blocks.push_back({block_kind::embedding, 0});
  for (std::int32_t layer = 0; layer < hp.n_layer; ++layer) {
    blocks.push_back({block_kind::attention, layer});
    blocks.push_back({block_kind::feed_forward, layer});
  }
  blocks.push_back({block_kind::head, 0});
}

bool model_definition::tied() const {
  return std::none_of(needs.begin(), needs.end(), [](const tensor_need& need) {
    return need.found && need.block.kind == block_kind::head && !need.as_float;
  });
}

kv_layer model_definition::kv(std::int32_t layer) const {
  const layer_hparams& l = hp.layers[static_cast<std::size_t>(layer)];
  return {.n_head_kv = l.n_head_kv,
          .key_length = hp.key_length,
          .value_length = hp.value_length,
          .window = l.window};
}

kv_layout model_definition::kv(kv_type key, kv_type value) const {
  kv_layout layout{.layers = {}, .key = key, .value = value};
  for (std::int32_t layer = 0; layer < hp.n_layer; ++layer) layout.layers.push_back(kv(layer));
  return layout;
}

recording model_definition::record(const weight_table& weights, std::size_t first,
                                   std::size_t last) const {
  std::vector<std::size_t> all(last - first);
  std::iota(all.begin(), all.end(), first);
  return record(weights, all);
}

recording model_definition::record(const weight_table& weights,
                                   std::span<const std::size_t> some) const {
  recording out;
  const value hidden = out.make(hp.n_embd);
  if (blocks[some.front()].kind != block_kind::embedding) out.input = hidden;
  for (const std::size_t i : some) {
    const block_id& block = blocks[i];
    const layer_context layer{out, hp, weights, rope_factors, arch->rope, block.layer, hidden};
    switch (block.kind) {
      case block_kind::embedding:
        out.emit(
            embed_step{.table = weights.token_embd, .scale = hp.embedding_scale, .out = hidden});
        break;
      case block_kind::attention:
        arch->attention(layer);
        break;
      case block_kind::feed_forward:
        arch->feed_forward(layer);
        break;
      case block_kind::experts:
        break;  // recorded with the feed-forward half that routes to them
      case block_kind::head:
        record_head(out, hp, weights, hidden);
        break;
    }
  }
  if (blocks[some.back()].kind != block_kind::head) out.output = hidden;
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI
