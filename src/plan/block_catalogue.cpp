#include "plan/block_catalogue.hpp"

#include <algorithm>
#include <variant>

#include "plan/counting.hpp"

namespace nibble::inline NIBBLE_ABI {

block_catalogue::block_catalogue(const model_definition& model,
                                 std::span<const device_sizes* const> devices)
    : model_(model), devices_(devices), tied_(model.tied()) {
  find_kinds(find_tensors());
}

// By block what it reads. Tensors of one format and shape have one stand-in, so that steps of
// blocks that are alike are equal.
std::vector<std::vector<block_catalogue::tensor>> block_catalogue::find_tensors() {
  std::vector<std::vector<tensor>> read(model_.blocks.size());
  weights_.layers.resize(static_cast<std::size_t>(model_.hp.n_layer));
  std::map<std::tuple<format_id, decltype(nibble::shape::extent), bool, bool>, std::size_t> known;
  for (const tensor_need& need : model_.needs) {
    if (!need.found) continue;
    const tensor_view view = need.stored_view();
    const auto [same, is_new] = known.try_emplace(
        {view.format, view.shape.extent, need.as_float, need.is_kept()}, stored_.size());
    const std::size_t stored = same->second;
    if (is_new) {
      stored_tensor& s = stored_.emplace_back();
      s.view = view;
      s.as_float = need.as_float;
      s.is_kept = need.is_kept();
      s.bytes.resize(devices_.size()), s.of_one.resize(devices_.size());
      // nobody reads the data, which a file that was opened for its header lacks
      s.stand_in = {.format = view.format,
                    .shape = view.shape,
                    .data = reinterpret_cast<const std::byte*>(&s)};
    }
    set_slot(weights_, need, &stored_[stored].stand_in);
    const bool expert = need.block.kind == block_kind::experts;
    for (const std::size_t reader : readers_of(model_, need)) {
      read[reader].push_back({stored, expert});
    }
    if (need.block.kind == block_kind::embedding && !need.as_float) table_ = stored;
  }
  return read;
}

void block_catalogue::find_kinds(const std::vector<std::vector<tensor>>& tensors) {
  std::map<std::pair<block_kind, std::vector<tensor>>, std::vector<std::size_t>> alike;
  for (std::size_t b = 0; b < model_.blocks.size(); ++b) {
    const block_kind what = model_.blocks[b].kind;
    recording steps = model_.record(weights_, b, b + 1);
    for (step& s : steps.steps) {
      if (auto* const attend = std::get_if<attend_step>(&s)) attend->layer = 0;
    }
    std::vector<std::size_t>& candidates = alike[{what, tensors[b]}];
    const auto same = std::find_if(candidates.begin(), candidates.end(),
                                   [&](std::size_t k) { return kinds_[k].steps == steps; });
    if (same != candidates.end()) {
      kind_of_.push_back(*same);
      continue;
    }
    candidates.push_back(kinds_.size());
    kind_of_.push_back(kinds_.size());
    kinds_.push_back({what, b, tensors[b], std::move(steps)});
  }
}

std::uint64_t block_catalogue::weight_bytes(std::size_t stored, std::size_t device) {
  auto& bytes = stored_[stored].bytes[device];
  if (!bytes) bytes = devices_[device]->weight_bytes(stored_[stored].view);
  return *bytes;
}

std::uint64_t block_catalogue::expert_bytes(std::size_t stored, std::size_t device) {
  auto& bytes = stored_[stored].of_one[device];
  if (!bytes) bytes = nibble::expert_bytes(stored_[stored].view, *devices_[device]);
  return *bytes;
}

bool block_catalogue::is_streamed(std::size_t stored, std::size_t device) const {
  return devices_[device]->ring().slots > 0 && !stored_[stored].is_kept;
}

// Blocks of a kind that came before add nothing: only the hidden state is alive in more than one
// block, and of what steps need besides the greatest counts, and tables of equal rotations once. So
// the program of one block of each kind takes as much.
workspace_size block_catalogue::workspace(std::size_t first, std::size_t last, std::size_t device,
                                          program_limits limits) {
  std::vector<std::size_t> blocks, kinds;
  std::vector<bool> seen(kinds_.size(), false);
  for (std::size_t b = first; b < last; ++b) {
    const std::size_t k = kind_of_[b];
    if (seen[k]) continue;
    seen[k] = true;
    blocks.push_back(b), kinds.push_back(k);
  }
  const auto [known, is_new] = workspaces_.try_emplace(
      {device, limits.max_tokens, limits.max_outputs, limits.max_context, std::move(kinds)});
  if (!is_new) return known->second;
  try {
    known->second = devices_[device]->workspace_of(model_.record(weights_, blocks), limits);
  } catch (...) {
    workspaces_.erase(known);
    throw;
  }
  return known->second;
}

}  // namespace nibble::inline NIBBLE_ABI
