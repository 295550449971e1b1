#include "plan/cost_model.hpp"

#include <algorithm>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>
#include <variant>

#include "plan/counting.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Tokens that a layer's attention sees of so many.
double seen_of(double tokens, const kv_layer& layer) {
  return layer.window > 0 ? std::min<double>(tokens, layer.window) : tokens;
}

}  // namespace

cost_model::cost_model(block_catalogue& blocks, std::span<const offered_device> devices,
                       const plan_options& options, const placement& sizes)
    : blocks_(blocks),
      devices_(devices),
      options_(options),
      n_devices_(devices.size()),
      part_(sizes.part),
      batch_(sizes.limits.max_tokens),
      n_embd_(blocks.model().hp.n_embd),
      n_vocab_(blocks.model().hp.n_vocab),
      n_expert_(blocks.model().hp.n_expert),
      bytes_(blocks.kinds().size() * n_devices_),
      streamed_(bytes_.size()),
      kv_bytes_(bytes_.size()),
      least_experts_(bytes_.size()),
      hit_seconds_(bytes_.size()),
      seconds_(bytes_.size()),
      workspaces_(bytes_.size()),
      why_(n_devices_) {
  const hparams& hp = blocks.model().hp;
  if (hp.n_expert > 0) share_of_experts_ = static_cast<double>(hp.n_expert_used) / hp.n_expert;
  count_products(sizes);
  count_steps();
  count_attention(sizes);
  count_workspaces(sizes);
}

void cost_model::count_products(const placement& sizes) {
  for (std::size_t k = 0; k < blocks_.kinds().size(); ++k) {
    const block_catalogue::kind& kind = blocks_.kinds()[k];
    for (const block_catalogue::tensor& t : kind.tensors) {
      for (std::size_t d = 0; d < n_devices_; ++d) {
        if (blocks_.is_on_demand(t, d)) {
          expert_cache& least = least_experts_[in(k, d)];
          least.slots = least_expert_slots(blocks_.model().hp, sizes.limits);
          least.slot_bytes += blocks_.expert_bytes(t.stored, d);
        } else {
          auto& counted = blocks_.is_streamed(t.stored, d) ? streamed_ : bytes_;
          counted[in(k, d)] += blocks_.weight_bytes(t.stored, d);
        }
        // rows of the embedding are looked up
        if (blocks_.as_float(t.stored) || kind.what == block_kind::embedding) continue;
        count_product(k, t, d);
      }
    }
  }
}

void cost_model::count_product(std::size_t kind, const block_catalogue::tensor& tensor,
                               std::size_t device) {
  const tensor_view& view = blocks_.view(tensor.stored);
  const double share = tensor.expert ? share_of_experts_ : 1;
  const auto macs = static_cast<double>(view.shape.elements()) * share;
  const bool from_disk = blocks_.is_streamed(tensor.stored, device);
  const bool head = blocks_.kinds()[kind].what == block_kind::head;
  const format_speed speed = devices_[device].speed.of(view.format);
  const auto bytes = static_cast<double>(blocks_.weight_bytes(tensor.stored, device));
  const double from_memory = bytes / memory_bytes_per_second(view.format, device);
  const double reading = from_disk ? bytes / speed.bytes_per_second : from_memory;
  const auto of_prompt = [&](double all, double together) {
    // of a prompt only the last token's logits are wanted
    if (head) return all / std::max(options_.prompt_tokens, 1.0);
    // tokens may go to different experts, and all of those are read
    const double read = std::min(1.0, share * together);
    return std::max(macs / speed.macs_per_second, all * read / together);
  };
  token_seconds& t = seconds_[in(kind, device)];
  t.generated += reading * share;
  t.prompt += of_prompt(reading, from_disk ? batch_ : part_);
  t.whole += of_prompt(reading, batch_);
  if (!tensor.expert || !from_disk) return;
  token_seconds& hit = hit_seconds_[in(kind, device)];
  hit.generated += std::max(reading - from_memory, 0.0) * share;
  hit.prompt += std::max(of_prompt(reading, batch_) - of_prompt(from_memory, batch_), 0.0);
  hit.whole = hit.prompt;
}

// Of weights in the memory that a device computes from: a disk's is that of the CPU beside it.
double cost_model::memory_bytes_per_second(format_id format, std::size_t device) const {
  const bool has_ring = devices_[device].sizes->ring().slots > 0;
  for (const offered_device& other : devices_) {
    if (!has_ring || other.sizes->info().kind != device_kind::cpu) continue;
    return other.speed.of(format).bytes_per_second;
  }
  return devices_[device].speed.of(format).bytes_per_second;
}

void cost_model::count_steps() {
  for (std::size_t k = 0; k < blocks_.kinds().size(); ++k) {
    const recording& steps = blocks_.kinds()[k].steps;
    double products = 0, columns = 0;
    for (const step& s : steps.steps) {
      value in;
      if (const auto* const product = std::get_if<matmul_step>(&s)) in = product->in;
      if (const auto* const product = std::get_if<expert_matmul_step>(&s)) in = product->in;
      if (!in) continue;
      ++products;
      columns += static_cast<double>(steps.info(in).width);
    }
    for (std::size_t d = 0; d < n_devices_; ++d) {
      const device_speed& speed = devices_[d].speed;
      const double seconds = products * speed.step_seconds + columns * speed.step_value_seconds;
      token_seconds& t = seconds_[in(k, d)];
      t.generated += seconds;
      t.prompt += seconds / part_;
      t.whole += seconds / batch_;
    }
  }
}

void cost_model::count_attention(const placement& sizes) {
  const model_definition& model = blocks_.model();
  const double context = sizes.context;
  const double prompt = std::min(options_.prompt_tokens, context);
  const double past = std::min(options_.prompt_tokens + options_.generated_tokens / 2, context);
  for (std::size_t k = 0; k < blocks_.kinds().size(); ++k) {
    if (blocks_.kinds()[k].what != block_kind::attention) continue;
    const std::int32_t index = model.blocks[blocks_.kinds()[k].first].layer;
    const kv_layer layer = model.kv(index);
    const kv_layout one{.layers = {layer}, .key = sizes.kv.key, .value = sizes.kv.value};
    const auto bytes = static_cast<double>(one.bytes_per_token());
    const double macs =
        static_cast<double>(model.hp.layers[static_cast<std::size_t>(index)].n_head) *
        static_cast<double>(layer.key_length + layer.value_length);
    std::vector<bool> there(sizes.kv.layers.size(), false);
    there[static_cast<std::size_t>(index)] = true;
    const kv_layout alone = layers_of(sizes.kv, there);
    for (std::size_t d = 0; d < n_devices_; ++d) {
      kv_bytes_[in(k, d)] = devices_[d].sizes->cache_bytes(alone, sizes.kv_pages);
      const device_speed& speed = devices_[d].speed;
      const kv_speed key = speed.of(sizes.kv.key), value = speed.of(sizes.kv.value);
      const double reading = bytes / std::min(key.bytes_per_second, value.bytes_per_second);
      const double counting = macs / std::min(key.macs_per_second, value.macs_per_second);
      const double prompt_rate = std::min(key.prompt_macs_per_second, value.prompt_macs_per_second);
      token_seconds& t = seconds_[in(k, d)];
      t.generated += speed.attend_seconds + seen_of(past, layer) * (reading + counting);
      const double looking = seen_of(prompt / 2, layer) * macs / prompt_rate;
      t.prompt += speed.attend_seconds / part_ + looking;
      t.whole += speed.attend_seconds / batch_ + looking;
    }
  }
}

// A program of several blocks takes more than each of them alone, so a block counts with the most
// that programs with it may take: that of all layers, or with the head of the whole model.
void cost_model::count_workspaces(const placement& sizes) {
  const std::size_t n = blocks_.model().blocks.size();
  const program_limits limits = sizes.segment_limits();
  for (std::size_t d = 0; d < n_devices_; ++d) {
    try {
      const workspace_size of_layers = blocks_.workspace(1, n - 1, d, limits);
      const workspace_size of_all = blocks_.workspace(0, n, d, limits);
      for (std::size_t k = 0; k < blocks_.kinds().size(); ++k) {
        const block_catalogue::kind& kind = blocks_.kinds()[k];
        workspace_size size = blocks_.workspace(kind.first, kind.first + 1, d, limits);
        if (kind.what == block_kind::head) {
          size.shared = of_all.shared;
        } else if (kind.what != block_kind::embedding) {
          size.shared = of_layers.shared;
        }
        workspaces_[in(k, d)] = size;
      }
    } catch (const error& e) {
      if (e.code() != errc::unsupported) throw;
      why_[d] = e.what();
    }
  }
}

double cost_model::way_seconds(std::size_t device, double values) const {
  const device_speed& speed = devices_[device].speed;
  if (speed.link_bytes_per_second <= 0) return 0;
  return values * sizeof(float) / speed.link_bytes_per_second;
}

token_seconds cost_model::crossing(std::size_t from, std::size_t to) const {
  if (from == to) return {};
  const double fixed = devices_[from].speed.link_seconds + devices_[to].speed.link_seconds +
                       devices_[to].speed.run_seconds;
  const double moving = way_seconds(from, n_embd_) + way_seconds(to, n_embd_);
  return {fixed / part_ + moving, fixed / batch_ + moving, fixed + moving};
}

token_seconds cost_model::entering(std::size_t device) const {
  const double fixed = devices_[device].speed.link_seconds + devices_[device].speed.run_seconds;
  return {fixed / part_, fixed / batch_, fixed};
}

token_seconds cost_model::leaving(std::size_t device) const {
  const double fixed = devices_[device].speed.link_seconds + way_seconds(device, n_vocab_);
  const double once = fixed / std::max(options_.prompt_tokens, 1.0);
  return {once, once, fixed};
}

// As if all experts were used equally often: those used again soon make it more.
double cost_model::in_memory(const placement& p, std::size_t device) const {
  const expert_cache& cache = p.devices[device].experts;
  std::int64_t needed = 0;
  for (std::size_t b = 0; b < p.blocks.size(); ++b) {
    const bool here = static_cast<std::size_t>(p.blocks[b].device) == device;
    if (here && p.blocks[b].on_demand > 0) needed += n_expert_;
  }
  return needed > 0 ? std::min(1.0, static_cast<double>(cache.slots) / static_cast<double>(needed))
                    : 0;
}

predicted_speed cost_model::predict(const placement& p) const {
  const bool in_parts = p.part < p.limits.max_tokens;
  std::vector<double> prompt(n_devices_, 0);
  double generated = 0;
  std::vector<double> kept;  // shares of experts
  for (std::size_t d = 0; d < n_devices_; ++d) kept.push_back(in_memory(p, d));
  const auto add = [&](std::size_t device, const token_seconds& t) {
    prompt[device] += in_parts ? t.prompt : t.whole;
    generated += t.generated;
  };
  for (std::size_t b = 0; b < p.blocks.size(); ++b) {
    const auto d = static_cast<std::size_t>(p.blocks[b].device);
    const auto before = b > 0 ? static_cast<std::size_t>(p.blocks[b - 1].device) : d;
    const token_seconds hit = hit_seconds_[at(b, d)];
    const double hits = -kept[d];
    add(d, of(b, d));
    add(d, {hits * hit.prompt, hits * hit.whole, hits * hit.generated});
    add(d, b > 0 ? crossing(before, d) : entering(d));
    if (b + 1 == p.blocks.size()) add(d, leaving(d));
  }
  double sum = 0, greatest = 0;
  for (const double seconds : prompt) {
    sum += seconds;
    greatest = std::max(greatest, seconds);
  }
  // while one part is on one device, the next is on another
  const double parts = std::max(1.0, static_cast<double>(p.limits.max_tokens) / p.part);
  return {.prompt = 1 / (greatest + (sum - greatest) / parts), .generation = 1 / generated};
}

std::vector<std::uint64_t> cost_model::common_ends() const {
  std::vector<std::uint64_t> bytes;
  if (!blocks_.tied() || !blocks_.table()) return bytes;
  for (std::size_t d = 0; d < n_devices_; ++d) {
    bytes.push_back(blocks_.weight_bytes(*blocks_.table(), d));
  }
  return bytes;
}

}  // namespace nibble::inline NIBBLE_ABI
