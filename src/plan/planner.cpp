#include "plan/planner.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <nibble/base/bytes.hpp>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

#include "plan/budget.hpp"
#include "plan/choices.hpp"
#include "plan/counting.hpp"
#include "plan/report_words.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Of the search for the longest context.
constexpr std::int32_t context_step = 256;
// What each of several programs keeps, and memory for what crosses between devices, is known once
// the blocks have their devices, and may ask for another search.
constexpr int most_searches = 16;
// Of the search that decides, as a multiple of those that only tell what else could be.
constexpr int main_effort = 2;
// What lies on GPUs as a whole may take so much longer than the fastest placement.
constexpr double nearly = 1.02;

using part = pinned_blocks::part;

bool is_meant(const pinned_blocks& pin, const block_id& block) {
  const bool in_range = block.layer >= pin.first && block.layer < pin.last;
  switch (block.kind) {
    case block_kind::embedding:
      return pin.what == part::embedding;
    case block_kind::head:
      return pin.what == part::head;
    case block_kind::attention:
      return in_range && (pin.what == part::attention || pin.what == part::all);
    case block_kind::feed_forward:
    case block_kind::experts:
      return in_range && (pin.what == part::feed_forward || pin.what == part::all);
  }
  return false;
}

std::vector<const device_sizes*> checked_sizes(const model_definition& model,
                                               std::span<const offered_device> devices,
                                               const plan_options& options) {
  check_devices(devices);
  check_budget_options(options, devices.size(), model.hp.n_layer);
  std::vector<const device_sizes*> sizes;
  for (const offered_device& d : devices) sizes.push_back(d.sizes);
  return sizes;
}

}  // namespace

planner::planner(const model_definition& model, std::span<const offered_device> devices,
                 const plan_options& options)
    : model_(model),
      devices_(devices),
      options_(options),
      sizes_(checked_sizes(model, devices, options)),
      blocks_(model, sizes_) {
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    budgets_.push_back(budget_of(devices_[d], options_));
    if (!is_host(d)) has_gpu_ = true;
    if (!cpu_ && is_host(d) && !has_ring(d)) cpu_ = d;
  }
  for (std::size_t d = 0; d < devices_.size(); ++d) budgets_[d] = budgets_[memory_of(d)];
  for (const tensor_need& need : model_.needs) {
    if (need.found && need.block.kind == block_kind::experts) experts_.insert(need.block.layer);
  }
}

bool planner::is_host(std::size_t device) const {
  return computes_on_cpu(devices_[device].sizes->info().kind);
}

std::int32_t planner::usual_part(const placement& sizes) const {
  std::size_t used = 0;
  for (std::size_t d = 0; d < devices_.size(); ++d) used += !has_ring(d) || uses_disk_ ? 1 : 0;
  // blocks on disk are to be read in turn
  return part_of_batch(sizes.limits.max_tokens, used > 1 && !uses_disk_);
}

std::size_t planner::memory_of(std::size_t device) const {
  return has_ring(device) && cpu_ ? *cpu_ : device;
}

double planner::seconds_of(const placement& p) const {
  return options_.prompt_tokens / p.predicted.prompt +
         options_.generated_tokens / p.predicted.generation;
}

bool planner::on_gpus(const placement& p) const {
  return std::none_of(p.blocks.begin(), p.blocks.end(), [&](const placed_block& b) {
    return is_host(static_cast<std::size_t>(b.device));
  });
}

std::vector<bool> planner::allowed_blocks(std::size_t device, const plan_options& options,
                                          where allowed) const {
  const std::size_t n = model_.blocks.size();
  std::vector<bool> may(n, allowed == where::anywhere || !has_gpu_ || !is_host(device));
  const std::int32_t on_gpus = options.gpu_layers;
  for (std::size_t b = 0; b < n && on_gpus >= 0; ++b) {
    const block_id& block = model_.blocks[b];
    bool on_gpu = block.layer >= model_.hp.n_layer - on_gpus;
    if (block.kind == block_kind::embedding) continue;
    if (block.kind == block_kind::head) on_gpu = on_gpus > model_.hp.n_layer;
    may[b] = has_gpu_ && cpu_ ? on_gpu != is_host(device) : true;
  }
  // Where not all experts fit into memory, those used last are kept there, of whatever layers.
  for (std::size_t b = 0; b < n && uses_disk_ && is_host(device) && !has_ring(device); ++b) {
    if (has_experts(b)) may[b] = false;
  }
  if (has_ring(device) && !uses_disk_) may.assign(n, false);
  for (std::size_t b = 0; b < n; ++b) {
    const auto pin = std::find_if(options.pins.rbegin(), options.pins.rend(),
                                  [&](const auto& p) { return is_meant(p, model_.blocks[b]); });
    if (pin != options.pins.rend()) may[b] = static_cast<std::size_t>(pin->device) == device;
  }
  return may;
}

placement_problem planner::problem_of(const cost_model& costs, const plan_options& options,
                                      where allowed) const {
  const std::size_t n = devices_.size();
  placement_problem p;
  p.blocks.assign(model_.blocks.size(), std::vector<placement_problem::option>(n));
  p.common_ends = costs.common_ends();
  for (std::size_t d = 0; d < n; ++d) {
    p.memories.push_back({.budget = budgets_[d], .even = !is_host(d)});
    p.places.push_back({.memory = static_cast<std::int32_t>(memory_of(d)),
                        .opening = devices_[d].overhead,
                        .entering = costs.weighted(costs.entering(d)),
                        .leaving = costs.weighted(costs.leaving(d))});
    for (std::size_t to = 0; to < n; ++to) {
      p.crossing.push_back(costs.weighted(costs.crossing(d, to)));
    }
    const std::vector<bool> may = allowed_blocks(d, options, allowed);
    for (std::size_t b = 0; b < p.blocks.size(); ++b) {
      const auto& workspace = costs.workspace(b, d);
      placement_problem::option& o = p.blocks[b][d];
      // rows of the embedding are looked up one by one
      const bool embedding = model_.blocks[b].kind == block_kind::embedding;
      o.allowed = may[b] && workspace.has_value() && !(embedding && has_ring(d));
      if (!o.allowed) continue;
      o.bytes = costs.bytes(b, d) + costs.kv_bytes(b, d);
      o.scratch = workspace->device();  // blocks that follow each other keep things together, too
      if (has_ring(d)) {
        o.scratch += sizes_[d]->ring().bytes(costs.streamed(b, d)) + costs.least_experts(b, d);
      }
      o.seconds = costs.weighted(costs.of(b, d));
    }
  }
  return p;
}

placement planner::count(const std::vector<std::int32_t>& device_of, const placement& sizes) {
  const auto counted = [&](std::int32_t part) {
    placement p = place_blocks(blocks_, device_of, sizes, part);
    for (std::size_t d = 0; d < devices_.size(); ++d) {
      device_use& use = p.devices[d];
      use.budget = budgets_[d];
      use.overhead = use.weights + use.kv + use.workspace > 0 ? devices_[d].overhead : 0;
    }
    return p;
  };
  placement p = counted(0);
  if (!excess_of(p).empty() && p.part != sizes.part) p = counted(sizes.part);
  keep_experts(p);
  return p;
}

// What is left of the host's memory goes to experts that are on disk.
void planner::keep_experts(placement& p) const {
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    if (!has_ring(d)) continue;
    const std::uint64_t used = bytes_in_memory_of(p, d);
    if (used < budgets_[d]) grow_expert_cache(model_.hp, d, budgets_[d] - used, p);
  }
}

std::uint64_t planner::bytes_in_memory_of(const placement& p, std::size_t device) const {
  std::uint64_t used = 0;
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    if (memory_of(d) == memory_of(device)) used += p.devices[d].total();
  }
  return used;
}

bool planner::has_experts(std::size_t block) const {
  return model_.blocks[block].kind == block_kind::feed_forward &&
         experts_.contains(model_.blocks[block].layer);
}

// By device: bytes that are too many in its memory. Empty: all fits.
std::map<std::size_t, std::uint64_t> planner::excess_of(const placement& p) const {
  std::map<std::size_t, std::uint64_t> excess;
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    const std::uint64_t used = memory_of(d) == d ? bytes_in_memory_of(p, d) : 0;
    if (used > budgets_[d]) excess[d] = used - budgets_[d];
  }
  return excess;
}

// What fits into memory is there: disks are used where it does not.
std::optional<placement> planner::place(const plan_options& options, where allowed, int effort) {
  bool has_disk = false;
  for (std::size_t d = 0; d < devices_.size(); ++d) has_disk = has_disk || has_ring(d);
  uses_disk_ = false;
  if (auto found = place_so(options, allowed, effort)) return found;
  uses_disk_ = has_disk;
  return has_disk ? place_so(options, allowed, effort) : std::nullopt;
}

std::optional<placement> planner::place_so(const plan_options& options, where allowed, int effort) {
  placement sizes = choose_sizes(model_, options);
  sizes.part = usual_part(sizes);
  const cost_model costs(blocks_, devices_, options_, sizes);
  unusable_.clear();
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    if (costs.why(d).empty()) continue;
    unusable_.push_back(concat(devices_[d].sizes->info().name, " is not used: ", costs.why(d)));
  }
  return search(costs, sizes, problem_of(costs, options, allowed), effort);
}

std::optional<placement> planner::search(const cost_model& costs, const placement& sizes,
                                         placement_problem problem, int effort) {
  if (!may_fit(problem)) return std::nullopt;
  solver_limits limits;
  limits.work *= effort;
  limits.even_work *= effort;
  if (effort < main_effort) limits.work_to_fit /= 100;  // what is not found soon counts as none
  for (int i = 0; i < most_searches; ++i) {
    const placement_answer answer = solve(problem, limits);
    if (!answer.solution) return std::nullopt;
    placement p = count(answer.solution->place, sizes);
    p.optimal = answer.solution->proven;
    if (effort > 0) cut_short_ = !p.optimal;
    const auto excess = excess_of(p);
    // what was not foreseen; more each time, so that this comes to an end
    for (const auto& [memory, bytes] : excess) {
      std::uint64_t& budget = problem.memories[memory].budget;
      budget -= std::min(budget, bytes + budget / 1024 * static_cast<std::uint64_t>(i));
    }
    if (!excess.empty()) continue;
    p.predicted = costs.predict(p);
    if (effort > 0) choose_overlapping(p, costs, problem, sizes);
    return p;
  }
  return std::nullopt;
}

// The search adds up what devices take; where parts of prompts overlap, less passes. So placements
// that are simple to name are looked at, too: all on one device, and even shares of several GPUs.
void planner::choose_overlapping(placement& best, const cost_model& costs,
                                 const placement_problem& problem, const placement& sizes) {
  for (const auto& device_of : simple_placements(problem)) {
    const bool allowed = std::equal(device_of.begin(), device_of.end(), problem.blocks.begin(),
                                    [](std::int32_t d, const auto& options) {
                                      return options[static_cast<std::size_t>(d)].allowed;
                                    });
    if (!allowed) continue;
    placement p = count(device_of, sizes);
    if (!excess_of(p).empty()) continue;
    p.predicted = costs.predict(p);
    if (seconds_of(p) >= seconds_of(best) * (1 - 1e-6)) continue;
    p.optimal = false;
    best = std::move(p);
  }
}

std::vector<std::vector<std::int32_t>> planner::simple_placements(
    const placement_problem& problem) const {
  const std::size_t n = problem.blocks.size();
  std::vector<std::vector<std::int32_t>> found;
  std::vector<std::size_t> gpus;
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    if (has_ring(d)) continue;
    found.emplace_back(n, static_cast<std::int32_t>(d));
    if (!is_host(d)) gpus.push_back(d);
  }
  for (std::size_t used = 2; used <= gpus.size(); ++used) {
    // by what each may hold
    double room = 0, bytes = 0, before = 0, of_gpus = 0;
    for (std::size_t i = 0; i < used; ++i) room += static_cast<double>(budgets_[gpus[i]]);
    for (const auto& block : problem.blocks) bytes += static_cast<double>(block[gpus[0]].bytes);
    std::vector<std::int32_t> device_of(n);
    for (std::size_t b = 0, i = 0; b < n; ++b) {
      const auto own = static_cast<double>(problem.blocks[b][gpus[0]].bytes);
      const double end = of_gpus + static_cast<double>(budgets_[gpus[i]]) / room * bytes;
      if (i + 1 < used && before + own / 2 > end) {
        of_gpus = end;
        ++i;
      }
      device_of[b] = static_cast<std::int32_t>(gpus[i]);
      before += own;
    }
    found.push_back(std::move(device_of));
  }
  return found;
}

std::optional<placement> planner::longest(const plan_options& options) {
  const std::int32_t own = std::max(model_.hp.n_ctx_train, 1);
  const std::int32_t most = options.context > 0 ? options.context : own;
  // what a plan shortens to is another matter than what was asked for
  const std::int32_t least = options.longest_context ? context_step : options.least_context;
  std::int32_t low = std::min(least, most), high = most;
  const auto with = [&](std::int32_t context, int effort) {
    plan_options tried = options;
    tried.context = context;
    return place(tried, where::accelerated, effort);
  };
  std::optional<placement> best = with(high, 1);
  if (best) return best;
  best = with(low, 0);
  if (!best) return best;
  while (high - low > context_step) {
    const std::int32_t middle =
        std::max(low + 1, (low + (high - low) / 2) / context_step * context_step);
    if (auto found = with(middle, 0)) {
      best = std::move(found);
      low = middle;
    } else {
      high = middle;
    }
  }
  // until here only whether it fits mattered
  auto found = with(low, 1);
  return found ? std::move(found) : std::move(best);
}

std::optional<placement> planner::concede() {
  plan_options tried = options_;
  std::vector<std::string> made;
  std::vector<concession> order = options_.concessions;
  if (order.empty()) order = {concession::kv_type, concession::context};
  const auto placed = [&] {
    return options_.longest_context ? longest(tried) : place(tried, where::accelerated);
  };
  for (const concession c : order) {
    std::optional<placement> found;
    if (c == concession::context && !options_.longest_context) {
      tried.context = choose_sizes(model_, options_).context;
      found = longest(tried);
      if (found) {
        made.push_back(concat("The context is ", found->context, " tokens instead of ",
                              tried.context, " so that everything fits."));
      }
    } else if (c == concession::kv_type) {
      for (const auto& [key, value] :
           {std::pair(kv_type::q8, kv_type::q8), std::pair(kv_type::q8, kv_type::q4)}) {
        const plan_options before = tried;
        if (info_of(key).bits < info_of(tried.key).bits) tried.key = key;
        if (info_of(value).bits < info_of(tried.value).bits) tried.value = value;
        const bool changed = tried.key != before.key || tried.value != before.value;
        if (changed && (found = placed())) break;
      }
      if (tried.key != options_.key || tried.value != options_.value) {
        made.push_back(concat("Keys are ", info_of(tried.key).name, " and values ",
                              info_of(tried.value).name, " instead of ", info_of(options_.key).name,
                              " and ", info_of(options_.value).name, " so that everything fits."));
      }
    }
    if (!found) continue;
    found->reasons.insert(found->reasons.end(), made.begin(), made.end());
    return found;
  }
  return std::nullopt;
}

placement planner::place_all() {
  std::optional<placement> found;
  if (options_.longest_context) {
    if ((found = longest(options_))) return *std::move(found);
  } else if ((found = place(options_, where::anywhere, main_effort))) {
    if (!has_gpu_ || on_gpus(*found)) return *std::move(found);
    if (auto whole = place(options_, where::accelerated)) {
      // GPUs may hold everything, and yet not be the fastest for all of it
      whole_ = whole->predicted;
      return seconds_of(*whole) <= seconds_of(*found) * nearly ? *std::move(whole)
                                                               : *std::move(found);
    }
    if (options_.on_shortage == shortage::warn) return *std::move(found);
    if (options_.on_shortage == shortage::fail) refuse(&*found);
  }
  const bool cut_short = cut_short_;
  if (options_.on_shortage == shortage::degrade) {
    if (auto conceded = concede()) return *std::move(conceded);
  }
  cut_short_ = cut_short;
  if (options_.longest_context) {
    plan_options least = options_;
    least.context = std::min(options_.least_context, std::max(model_.hp.n_ctx_train, 1));
    found = place(least, where::anywhere, main_effort);
  }
  if (!found) refuse(nullptr);
  if (options_.on_shortage == shortage::fail) refuse(&*found);
  return *std::move(found);
}

placement planner::run() {
  placement p = place_all();
  p.cost = count_token_cost(model_, *sizes_[0], p.kv.key, p.kv.value);
  explain(p);
  return p;
}

}  // namespace nibble::inline NIBBLE_ABI
