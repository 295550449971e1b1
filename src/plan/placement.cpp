#include <algorithm>
#include <iomanip>
#include <nibble/base/bytes.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/kv/page_pool.hpp>
#include <nibble/plan/placement.hpp>
#include <ostream>

#include "base/memory_for.hpp"
#include "gguf/cursor.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::int32_t default_context = 4096;
constexpr std::int32_t max_batch = 1 << 16, max_sessions = 256;

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

// Why keys or values cannot be rotated, as the end of a sentence; empty if they can.
std::string obstacle_to_rotation(const kv_layout& layout, bool key) {
  for (const kv_layer& layer : layout.layers) {
    if (layer.kind == kv_kind::latent) {
      return "the model makes keys and values from one row, which must stay as it is";
    }
    const std::int32_t length = key ? layer.key_length : layer.value_length;
    if (layer.kind == kv_kind::rows && length % 8 != 0) {
      return concat("heads have ", length, " values, which 8 does not divide");
    }
  }
  return {};
}

bool choose_rotation(const kv_layout& layout, bool key, std::optional<bool> wanted,
                     placement& out) {
  const char* const what = key ? "keys" : "values";
  const bool usual = key && has_scales(layout.key);  // docs/kv-cache.md: values gain nothing
  if (!wanted.value_or(usual)) return false;
  const std::string obstacle = obstacle_to_rotation(layout, key);
  if (obstacle.empty()) return true;
  if (wanted) {
    throw error(errc::unsupported, concat("a rotation of ", what, " was asked for, but ", obstacle,
                                          ". Leave it off for this model."));
  }
  out.reasons.push_back(concat("The ", what, " are not rotated: ", obstacle, "."));
  return false;
}

void choose_kv(const model_definition& model, const backend& device, const plan_options& options,
               placement& out) {
  for (const kv_type type : {options.key, options.value}) {
    if (static_cast<std::size_t>(type) < all_kv_types.size()) continue;
    throw error(errc::invalid_argument, concat("there is no type ", static_cast<int>(type),
                                               " of keys and values; see kv_type."));
  }
  out.kv = model.kv(options.key, options.value);
  out.kv.rotate_key = choose_rotation(out.kv, true, options.rotate_key, out);
  out.kv.rotate_value = choose_rotation(out.kv, false, options.rotate_value, out);
  out.kv_pages =
      pages_of_sessions(group_layers(out.kv), out.context, out.limits.max_tokens, out.sessions);
  out.devices[0].kv = device.cache_bytes(out.kv, out.kv_pages);
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
  if (options.sessions < 1 || options.sessions > max_sessions) {
    throw error(errc::invalid_argument,
                concat("room for ", options.sessions,
                       " sessions was asked for; it must be between 1 and ", max_sessions, "."));
  }
  placement out;
  out.devices.push_back({.device = device.info()});
  out.context = choose_context(model.hp, options, out);
  out.sessions = options.sessions;
  const std::int32_t batch = std::min(options.batch, out.context);
  out.limits = {.max_tokens = batch,
                .max_outputs = options.all_logits ? batch : std::min(options.sessions, batch),
                .max_context = out.context};
  count_weights(model, device, out);
  choose_kv(model, device, options, out);
  out.cost = count_token_cost(model, device, options.key, options.value);
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
  const auto rotated = [](bool yes) { return yes ? " rotated" : ""; };
  out << "context " << p.context << " tokens";
  if (p.sessions > 1) out << " for each of " << p.sessions << " sessions";
  out << ", keys " << info_of(p.kv.key).name << rotated(p.kv.rotate_key) << ", values "
      << info_of(p.kv.value).name << rotated(p.kv.rotate_value) << ", " << p.kv.bytes_per_token()
      << " bytes a token\n";
  for (const std::string& reason : p.reasons) out << "- " << reason << '\n';
  out.flags(flags);
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI
