#include "plan/choices.hpp"

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/kv/page_pool.hpp>

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

void choose_kv(const model_definition& model, const plan_options& options, placement& out) {
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
}

void check_counts(const plan_options& options) {
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
}

}  // namespace

placement choose_sizes(const model_definition& model, const plan_options& options) {
  check_counts(options);
  placement out;
  out.context = choose_context(model.hp, options, out);
  out.sessions = options.sessions;
  const std::int32_t batch = std::min(options.batch, out.context);
  out.limits = {.max_tokens = batch,
                .max_outputs = options.all_logits ? batch : std::min(options.sessions, batch),
                .max_context = out.context};
  out.part = batch;
  choose_kv(model, options, out);
  if (!model.unused.empty()) {
    out.reasons.push_back(
        concat(model.unused.size(),
               model.unused.size() > 1 ? " tensors of the file are" : " tensor of the file is",
               " not used: ", gguf::printable(model.unused.front()),
               model.unused.size() > 1 ? ", …" : "", "."));
  }
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI
