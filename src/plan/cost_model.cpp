#include "plan/cost_model.hpp"

#include <algorithm>
#include <map>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>
#include <tuple>
#include <variant>

#include "plan/counting.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Tokens that a layer's attention sees of so many.
double seen_of(double tokens, const kv_layer& layer) {
  return layer.window > 0 ? std::min<double>(tokens, layer.window) : tokens;
}

// What decides how large a block's workspace is: where that is the same, so is the workspace.
using block_shape = std::tuple<block_kind, std::int32_t, std::vector<std::uint64_t>>;

std::vector<block_shape> shapes_of(const model_definition& model) {
  std::vector<block_shape> shapes;
  for (const block_id& b : model.blocks) {
    const auto layer = static_cast<std::size_t>(b.layer);
    const bool attends = b.kind == block_kind::attention;
    shapes.emplace_back(b.kind, attends ? model.hp.layers[layer].window : 0,
                        std::vector<std::uint64_t>{});
  }
  for (const tensor_need& need : model.needs) {
    if (!need.found) continue;
    for (const std::size_t reader : readers_of(model, need)) {
      auto& numbers = std::get<2>(shapes[reader]);
      const tensor_view view = need.stored_view();
      numbers.push_back(static_cast<std::uint64_t>(view.format));
      numbers.insert(numbers.end(), view.shape.extent.begin(), view.shape.extent.end());
    }
  }
  return shapes;
}

}  // namespace

cost_model::cost_model(const model_definition& model, std::span<const offered_device> devices,
                       const plan_options& options, const placement& sizes)
    : devices_(devices),
      options_(options),
      n_devices_(devices.size()),
      part_(sizes.part),
      batch_(sizes.limits.max_tokens),
      n_embd_(model.hp.n_embd),
      n_vocab_(model.hp.n_vocab),
      n_expert_(model.hp.n_expert),
      tied_(model.tied()),
      bytes_(model.blocks.size() * n_devices_),
      streamed_(bytes_.size()),
      kv_bytes_(bytes_.size()),
      table_bytes_(n_devices_),
      least_experts_(bytes_.size()),
      hit_seconds_(bytes_.size()),
      seconds_(bytes_.size()),
      workspaces_(bytes_.size()),
      why_(n_devices_) {
  if (model.hp.n_expert > 0) {
    share_of_experts_ = static_cast<double>(model.hp.n_expert_used) / model.hp.n_expert;
  }
  const stand_in_weights weights(model);
  std::vector<recording> recordings;
  for (std::size_t b = 0; b < model.blocks.size(); ++b) {
    recordings.push_back(model.record(weights.table(), b, b + 1));
  }
  count_products(model, sizes);
  count_steps(model, recordings);
  count_attention(model, sizes);
  count_workspaces(model, weights.table(), recordings, sizes);
}

void cost_model::count_products(const model_definition& model, const placement& sizes) {
  for (const tensor_need& need : model.needs) {
    if (!need.found) continue;
    const tensor_view view = need.stored_view();
    const bool experts = need.block.kind == block_kind::experts;
    const double share = experts ? share_of_experts_ : 1;
    const auto macs = static_cast<double>(view.shape.elements()) * share;
    const std::vector<std::size_t> readers = readers_of(model, need);
    for (std::size_t d = 0; d < n_devices_; ++d) {
      const std::uint64_t bytes = devices_[d].sizes->weight_bytes(view);
      const bool from_disk = is_streamed(need, *devices_[d].sizes);
      if (is_on_demand(need, *devices_[d].sizes)) {
        expert_cache& least = least_experts_[readers.back() * n_devices_ + d];
        least.slots = least_expert_slots(model.hp, sizes.limits);
        least.slot_bytes += expert_bytes(need, *devices_[d].sizes);
      } else {
        auto& counted = from_disk ? streamed_ : bytes_;
        for (const std::size_t reader : readers) counted[reader * n_devices_ + d] += bytes;
      }
      if (need.as_float) continue;
      const bool table = need.block.kind == block_kind::embedding;
      if (table) table_bytes_[d] = bytes;
      if (table && !tied_) continue;  // a row is looked up
      const format_speed speed = devices_[d].speed.of(view.format);
      const double reading = static_cast<double>(bytes) / speed.bytes_per_second;
      token_seconds& t = seconds_[readers.back() * n_devices_ + d];
      t.generated += reading * share;
      const bool head = readers.back() + 1 == model.blocks.size();
      const auto of_prompt = [&](double all, double together) {
        // of a prompt only the last token's logits are wanted
        if (head) return all / std::max(options_.prompt_tokens, 1.0);
        // tokens may go to different experts, and all of those are read
        const double read = std::min(1.0, share * together);
        return std::max(macs / speed.macs_per_second, all * read / together);
      };
      t.prompt += of_prompt(reading, from_disk ? batch_ : part_);
      t.whole += of_prompt(reading, batch_);
      if (!experts || !from_disk) continue;
      const double from_memory =
          std::min(reading, static_cast<double>(bytes) / host_bytes_per_second(view.format, speed));
      token_seconds& hit = hit_seconds_[readers.back() * n_devices_ + d];
      hit.generated += (reading - from_memory) * share;
      hit.prompt += of_prompt(reading, batch_) - of_prompt(from_memory, batch_);
      hit.whole = hit.prompt;
    }
  }
}

// Of weights in the host's memory, read by the CPU among the devices.
double cost_model::host_bytes_per_second(format_id format, const format_speed& without_cpu) const {
  for (const offered_device& device : devices_) {
    if (device.sizes->info().kind != device_kind::cpu) continue;
    return device.speed.of(format).bytes_per_second;
  }
  return without_cpu.bytes_per_second;
}

void cost_model::count_steps(const model_definition& model, std::span<const recording> recordings) {
  for (std::size_t b = 0; b < model.blocks.size(); ++b) {
    double products = 0, columns = 0;
    for (const step& s : recordings[b].steps) {
      value in;
      if (const auto* const product = std::get_if<matmul_step>(&s)) in = product->in;
      if (const auto* const product = std::get_if<expert_matmul_step>(&s)) in = product->in;
      if (!in) continue;
      ++products;
      columns += static_cast<double>(recordings[b].info(in).width);
    }
    for (std::size_t d = 0; d < n_devices_; ++d) {
      const device_speed& speed = devices_[d].speed;
      const double seconds = products * speed.step_seconds + columns * speed.step_value_seconds;
      token_seconds& t = seconds_[b * n_devices_ + d];
      t.generated += seconds;
      t.prompt += seconds / part_;
      t.whole += seconds / batch_;
    }
  }
}

void cost_model::count_attention(const model_definition& model, const placement& sizes) {
  const double context = sizes.context;
  const double prompt = std::min(options_.prompt_tokens, context);
  const double past = std::min(options_.prompt_tokens + options_.generated_tokens / 2, context);
  using kv_shape = std::pair<std::int32_t, std::int32_t>;
  std::map<kv_shape, std::size_t> known;  // the first block of each
  for (std::size_t b = 0; b < model.blocks.size(); ++b) {
    if (model.blocks[b].kind != block_kind::attention) continue;
    const kv_layer layer = model.kv(model.blocks[b].layer);
    const kv_layout one{.layers = {layer}, .key = sizes.kv.key, .value = sizes.kv.value};
    const auto bytes = static_cast<double>(one.bytes_per_token());
    const double macs =
        static_cast<double>(
            model.hp.layers[static_cast<std::size_t>(model.blocks[b].layer)].n_head) *
        static_cast<double>(layer.key_length + layer.value_length);
    const kv_shape shape{layer.n_head_kv, layer.window};
    if (!known.contains(shape)) known[shape] = b;
    std::vector<bool> there(known[shape] == b ? sizes.kv.layers.size() : 0, false);
    if (!there.empty()) there[static_cast<std::size_t>(model.blocks[b].layer)] = true;
    const kv_layout alone = there.empty() ? kv_layout{} : layers_of(sizes.kv, there);
    for (std::size_t d = 0; d < n_devices_; ++d) {
      kv_bytes_[b * n_devices_ + d] = there.empty()
                                          ? kv_bytes_[known[shape] * n_devices_ + d]
                                          : devices_[d].sizes->cache_bytes(alone, sizes.kv_pages);
      const device_speed& speed = devices_[d].speed;
      const kv_speed key = speed.of(sizes.kv.key), value = speed.of(sizes.kv.value);
      const double reading = bytes / std::min(key.bytes_per_second, value.bytes_per_second);
      const double counting = macs / std::min(key.macs_per_second, value.macs_per_second);
      const double prompt_rate = std::min(key.prompt_macs_per_second, value.prompt_macs_per_second);
      token_seconds& t = seconds_[b * n_devices_ + d];
      t.generated += speed.attend_seconds + seen_of(past, layer) * (reading + counting);
      const double looking = seen_of(prompt / 2, layer) * macs / prompt_rate;
      t.prompt += speed.attend_seconds / part_ + looking;
      t.whole += speed.attend_seconds / batch_ + looking;
    }
  }
}

// A program of several blocks takes more than each of them alone, so a block counts with the most
// that programs with it may take: that of all layers, or with the head of the whole model.
void cost_model::count_workspaces(const model_definition& model, const weight_table& weights,
                                  std::span<const recording> recordings, const placement& sizes) {
  const std::size_t n = model.blocks.size();
  const program_limits limits = sizes.segment_limits();
  const recording layers = model.record(weights, 1, n - 1), all = model.record(weights, 0, n);
  const std::vector<block_shape> shapes = shapes_of(model);
  for (std::size_t d = 0; d < n_devices_; ++d) {
    const auto size_of = [&](const recording& r) {
      return devices_[d].sizes->workspace_of(r, limits);
    };
    try {
      const workspace_size of_layers = size_of(layers), of_all = size_of(all);
      std::map<block_shape, workspace_size> known;
      for (std::size_t b = 0; b < n; ++b) {
        const auto [same, is_new] = known.try_emplace(shapes[b]);
        if (is_new) same->second = size_of(recordings[b]);
        workspace_size size = same->second;
        if (b > 0) size.shared = b + 1 < n ? of_layers.shared : of_all.shared;
        workspaces_[b * n_devices_ + d] = size;
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
    const token_seconds hit = hit_seconds_[b * n_devices_ + d];
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
  return tied_ ? table_bytes_ : std::vector<std::uint64_t>{};
}

}  // namespace nibble::inline NIBBLE_ABI
