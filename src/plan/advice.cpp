// What a plan says about itself: why blocks lie where they do, and what would have to change.
#include <algorithm>
#include <nibble/base/bytes.hpp>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

#include "plan/choices.hpp"
#include "plan/planner.hpp"
#include "plan/report_words.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

bool wholly(const placement& p, std::int32_t device) {
  return std::all_of(p.blocks.begin(), p.blocks.end(),
                     [&](const placed_block& b) { return b.device == device; });
}

// " (weights 1 GiB, ...)"
std::string words_of_parts(const device_use& use) {
  return concat(" (weights ", to_text(use.weights), ", KV cache ", to_text(use.kv), ", workspace ",
                to_text(use.workspace), ")");
}

}  // namespace

void planner::explain(placement& p) {
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    if (wholly(p, static_cast<std::int32_t>(d))) {
      p.reasons.push_back(concat("Everything runs on ", p.devices[d].device.name, "."));
    }
  }
  if (p.segments().size() > 1) {
    for (std::string& s : words_of_blocks(p)) p.reasons.push_back(std::move(s));
  }
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    std::uint64_t bytes = 0;
    for (const std::uint64_t b : p.streamed_on(static_cast<std::int32_t>(d))) bytes += b;
    if (!has_ring(d)) continue;
    const bool beside_experts = explain_experts(p, d);
    if (bytes == 0) continue;
    p.reasons.push_back(concat(beside_experts ? "Of the other weights " : "Of the weights ",
                               to_text(bytes), beside_experts ? "" : " do not fit into memory and",
                               " are read from disk for each token, or each batch of a prompt."));
  }
  explain_gpu_layers(p);
  if (has_gpu_ && !on_gpus(p)) explain_shortage(p);
  for (const std::string& why : unusable_) p.reasons.push_back(why);
  if (cut_short_) {
    p.reasons.push_back(
        "The search for the fastest placement was cut short; a faster one may exist.");
  }
}

bool planner::explain_experts(placement& p, std::size_t device) const {
  std::int64_t experts = 0;
  std::uint64_t bytes = 0;
  for (const placed_block& b : p.blocks) {
    if (static_cast<std::size_t>(b.device) != device || b.on_demand == 0) continue;
    experts += model_.hp.n_expert;
    bytes += b.on_demand;
  }
  if (experts == 0) return false;
  const std::int64_t kept = std::min(p.devices[device].experts.slots, experts);
  p.reasons.push_back(concat("The routed experts, ", to_text(bytes),
                             ", are read from disk when a token goes through them; of ", experts,
                             " there is room for ", kept, " (", 100 * kept / experts,
                             " %) in memory, where those used last stay."));
  return true;
}

// Why a number of layers on GPUs changed nothing.
void planner::explain_gpu_layers(placement& p) const {
  if (options_.gpu_layers < 0 || (has_gpu_ && cpu_)) return;
  const std::string asked =
      concat(options_.gpu_layers, options_.gpu_layers == 1 ? " layer" : " layers", " on GPUs",
             options_.gpu_layers == 1 ? " was" : " were", " asked for, which changes nothing: ");
  p.reasons.push_back(asked + (has_gpu_ ? "there is no CPU among the devices for the others."
                                        : "there is no GPU among the devices."));
}

void planner::explain_shortage(placement& p) {
  if (options_.gpu_layers >= 0 || !options_.pins.empty()) return;  // as was asked for
  if (whole_) {
    p.reasons.push_back(concat(
        "Everything would fit on the GPUs, but this is faster: ", words_of_speed(p.predicted),
        " instead of ", words_of_speed(*whole_), "."));
    return;
  }
  for (std::string& s : remedies(p)) p.reasons.push_back(std::move(s));
}

// More memory on each GPU with which everything fits there, to a twentieth.
std::optional<std::uint64_t> planner::missing_on_each(std::int32_t context) {
  plan_options wanted = options_;
  wanted.context = context;
  wanted.longest_context = false;
  placement sizes = choose_sizes(model_, wanted);
  sizes.part = usual_part(sizes);
  const cost_model costs(blocks_, devices_, options_, sizes);
  const std::vector<std::uint64_t> budgets = budgets_;
  const auto fits = [&](std::uint64_t more) {
    for (std::size_t d = 0; d < budgets.size(); ++d) {
      if (!is_host(d)) budgets_[d] = checked_add(budgets[d], more).value_or(budgets[d]);
    }
    const bool found =
        search(costs, sizes, problem_of(costs, wanted, where::accelerated), 0).has_value();
    budgets_ = budgets;
    return found;
  };
  std::uint64_t high = std::uint64_t{64} << 20, low = 0;
  while (!fits(high)) {
    low = high;
    high *= 2;
    if (high > std::uint64_t{1} << 45) return std::nullopt;
  }
  while (high - low > high / 20) {
    const std::uint64_t middle = low + (high - low) / 2;
    (fits(middle) ? high : low) = middle;
  }
  return high;
}

std::vector<std::string> planner::remedies(const placement& p) {
  std::vector<std::string> found;
  const auto gpus = std::count_if(p.devices.begin(), p.devices.end(), [](const auto& use) {
    return !computes_on_cpu(use.device.kind);
  });
  if (const auto missing = missing_on_each(p.context)) {
    found.push_back(concat("With ", to_text(*missing), " more memory on ",
                           gpus > 1 ? "each of the GPUs" : "the GPU",
                           " all of it would fit there."));
  }
  plan_options other = options_;
  other.context = p.context;
  other.longest_context = false;
  if (info_of(options_.key).bits > 8 || info_of(options_.value).bits > 8) {
    other.key = other.value = kv_type::q8;
    if (place(other, where::accelerated, 0)) {
      found.push_back("With q8 keys and values everything would fit on the GPUs.");
    }
  }
  other.key = options_.key;
  other.value = options_.value;
  for (other.context = p.context / 2; other.context >= options_.least_context; other.context /= 2) {
    if (!place(other, where::accelerated, 0)) continue;
    found.push_back(
        concat("With a context of ", other.context, " tokens everything would fit on the GPUs."));
    break;
  }
  return found;
}

void planner::refuse(const placement* beside) {
  std::string have;
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    if (memory_of(d) != d) continue;
    have +=
        concat(have.empty() ? "" : ", ", devices_[d].sizes->info().name, " ", to_text(budgets_[d]));
  }
  const bool as_asked = options_.gpu_layers >= 0 || !options_.pins.empty();
  if (as_asked) {
    throw error(
        errc::out_of_memory,
        concat("the blocks do not fit where they were asked to be (pinned, or by the number "
               "of layers on GPUs); what may be used is: ",
               have, ". Ask for fewer layers on a device, or leave the choice to nibble."));
  }
  std::string advice;
  for (const std::string& why : unusable_) advice += " " + why;
  if (beside) {
    for (const std::string& s : remedies(*beside)) advice += " " + s;
  } else {
    advice += advice_of_context();
  }
  const placement sizes = choose_sizes(model_, options_);
  std::optional<device_use> least;
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    if (has_ring(d)) continue;
    const std::vector<std::int32_t> all(model_.blocks.size(), static_cast<std::int32_t>(d));
    const device_use use = place_blocks(blocks_, all, sizes).devices[d];
    if (!least || use.total() < least->total()) least = use;
  }
  throw error(errc::out_of_memory,
              concat("the model needs ", to_text(least->total()), beside ? " on one GPU" : "",
                     words_of_parts(*least), beside ? "" : least_beside_disk(sizes),
                     ", and what may be used is: ", have, ".", advice));
}

// What is needed in memory if all that may stay on disk does, as the end of a clause; empty where
// there is no disk.
std::string planner::least_beside_disk(const placement& sizes) {
  std::optional<device_use> least;
  for (std::size_t disk = 0; disk < devices_.size() && cpu_; ++disk) {
    if (!has_ring(disk)) continue;
    // a head that is larger than the other blocks makes the ring larger by more than itself
    for (const std::size_t of_head : {disk, *cpu_}) {
      std::vector<std::int32_t> device_of(model_.blocks.size(), static_cast<std::int32_t>(disk));
      device_of.front() = static_cast<std::int32_t>(*cpu_);
      device_of.back() = static_cast<std::int32_t>(of_head);
      const placement p = place_blocks(blocks_, device_of, sizes);
      device_use both = p.devices[*cpu_];
      both.weights += p.devices[disk].weights;
      both.kv += p.devices[disk].kv;
      both.workspace += p.devices[disk].workspace;
      if (!least || both.total() < least->total()) least = both;
    }
  }
  if (!least) return "";
  return concat(", with its blocks on disk ", to_text(least->total()), words_of_parts(*least));
}

// The longest context, by halves, with which the model could be run.
std::string planner::advice_of_context() {
  constexpr std::int32_t shortest = 128;
  plan_options other = options_;
  other.longest_context = false;
  for (other.context = choose_sizes(model_, options_).context / 2; other.context >= shortest;
       other.context /= 2) {
    if (!place(other, where::anywhere, 0)) continue;
    return concat(" With a context of ", other.context,
                  " tokens it would fit. A smaller quantisation would need less, too.");
  }
  return " A shorter context or a smaller quantisation would need less.";
}

}  // namespace nibble::inline NIBBLE_ABI
