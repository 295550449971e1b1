#include <algorithm>
#include <iomanip>
#include <nibble/base/bytes.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/plan/placement.hpp>
#include <ostream>

#include "base/memory_for.hpp"
#include "gguf/cursor.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::int32_t default_context = 4096;
constexpr std::int32_t max_batch = 1 << 16;

std::int32_t choose_context(const hparams& hp, const plan_options& options, placement& out) {
  if (options.context < 0 || options.context > (1 << 28)) {
    throw error(errc::invalid_argument, concat("a context of ", options.context,
                                               " tokens was asked for; it must be between "
                                               "1 and 2^28, or 0 to leave the choice to nibble."));
  }
  if (options.context == 0) {
    const std::int32_t chosen = std::min(hp.n_ctx_train, default_context);
    if (chosen < hp.n_ctx_train) {
      out.reasons.push_back(concat("The context is ", chosen, " tokens; the model was trained for ",
                                   hp.n_ctx_train, ", ask for more if you need it."));
    }
    return chosen;
  }
  if (options.context > hp.n_ctx_train) {
    out.reasons.push_back(concat("The context of ", options.context, " tokens is longer than the ",
                                 hp.n_ctx_train,
                                 " that the model was trained for; text may degrade beyond them."));
  }
  return options.context;
}

block_id owner(const block_id& block) {
  // routed experts are recorded with the feed-forward half that routes to them
  if (block.kind == block_kind::experts) return {block_kind::feed_forward, block.layer};
  return block;
}

void count_weights(const model_definition& model, const backend& device, placement& out) {
  for (const block_id& block : model.blocks) out.blocks.push_back({.block = block});
  for (const tensor_need& need : model.needs) {
    if (!need.found) continue;
    const auto bytes = device.weight_bytes(need.stored_view());
    const auto place = std::find_if(out.blocks.begin(), out.blocks.end(),
                                    [&](const auto& b) { return b.block == owner(need.block); });
    place->weights += bytes;
    out.devices[0].weights += bytes;
  }
}

// The steps' sizes follow from formats and shapes; stand-ins for the weights have those, and data
// that nobody reads.
std::uint64_t count_workspace(const model_definition& model, const backend& device,
                              program_limits limits) {
  std::vector<weight> weights(model.needs.size());
  weight_table table;
  table.layers.resize(static_cast<std::size_t>(model.hp.n_layer));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const tensor_need& need = model.needs[i];
    if (!need.found) continue;
    const tensor_view view = need.stored_view();
    weights[i] = {.format = view.format, .shape = view.shape, .data = view.data};
    set_slot(table, need, &weights[i]);
  }
  return device.workspace_bytes(model.record(table, 0, model.blocks.size()), limits);
}

void check_memory(const placement& p) {
  const device_use& use = p.devices[0];
  if (use.device.free_bytes == 0 || use.total() <= use.device.free_bytes) return;
  throw error(errc::out_of_memory,
              concat("the model needs ", to_text(use.total()), " (weights ", to_text(use.weights),
                     ", KV cache ", to_text(use.kv), ", workspace ", to_text(use.workspace),
                     "), but ", to_text(use.device.free_bytes),
                     " are free. A shorter context or a smaller quantisation would need less."),
              {.device = use.device.name});
}

placement make_plan(const model_definition& model, const backend& device,
                    const plan_options& options) {
  if (options.batch < 1 || options.batch > max_batch) {
    throw error(errc::invalid_argument,
                concat("a batch of ", options.batch,
                       " tokens was asked for; it must be between 1 and ", max_batch, "."));
  }
  placement out;
  out.devices.push_back({.device = device.info()});
  out.context = choose_context(model.hp, options, out);
  out.key = options.key;
  out.value = options.value;
  const std::int32_t batch = std::min(options.batch, out.context);
  out.limits = {.max_tokens = batch,
                .max_outputs = options.all_logits ? batch : 1,
                .max_context = out.context};
  count_weights(model, device, out);
  out.cost = count_token_cost(model, device, out.key, out.value);
  out.devices[0].kv = device.cache_bytes(model.kv(out.key, out.value, out.context));
  out.devices[0].workspace = count_workspace(model, device, out.limits);
  if (!model.unused.empty()) {
    out.reasons.push_back(
        concat(model.unused.size(),
               model.unused.size() > 1 ? " tensors of the file are" : " tensor of the file is",
               " not used: ", gguf::printable(model.unused.front()),
               model.unused.size() > 1 ? ", …" : "", "."));
  }
  out.reasons.push_back(concat("Everything runs on ", device.info().name, "."));
  check_memory(out);
  return out;
}

}  // namespace

placement plan(const model_definition& model, const backend& device, const plan_options& options) {
  return with_memory_for("the plan", [&] { return make_plan(model, device, options); });
}

std::ostream& operator<<(std::ostream& out, const placement& p) {
  const auto flags = out.flags();
  const auto column = [&](const std::string& text) -> std::ostream& {
    return out << std::right << std::setw(12) << text;
  };
  out << std::left << std::setw(28) << "device";
  column("blocks"), column("weights"), column("KV cache"), column("workspace"), column("total");
  out << '\n';
  for (std::size_t i = 0; i < p.devices.size(); ++i) {
    const device_use& use = p.devices[i];
    const auto blocks = std::count_if(p.blocks.begin(), p.blocks.end(), [&](const auto& b) {
      return static_cast<std::size_t>(b.device) == i;
    });
    out << std::left << std::setw(28) << use.device.name;
    column(std::to_string(blocks)), column(to_text(use.weights)), column(to_text(use.kv));
    column(to_text(use.workspace)), column(to_text(use.total()));
    out << '\n';
  }
  const auto name = [](kv_type t) { return t == kv_type::f16 ? "f16" : "f32"; };
  out << "context " << p.context << " tokens, keys " << name(p.key) << ", values " << name(p.value)
      << '\n';
  for (const std::string& reason : p.reasons) out << "- " << reason << '\n';
  out.flags(flags);
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI
