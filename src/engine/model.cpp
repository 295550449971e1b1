#include <nibble/engine/model.hpp>

#include <algorithm>
#include <chrono>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/fingerprint.hpp>
#include <nibble/device/probe.hpp>
#include <nibble/device/stream.hpp>
#include <utility>

#include "base/memory_for.hpp"
#include "engine/device_choice.hpp"
#include "engine/importer.hpp"
#include "engine/state.hpp"
#include "plan/counting.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Of what was planned on a device, so many tenths are tried after its memory was not enough.
constexpr std::uint64_t less_of_ten = 8;

[[noreturn]] void throw_no_device() {
  throw error(errc::invalid_argument,
              "a model needs devices; one that was given is null, or none was.");
}

void check_given(const std::vector<std::unique_ptr<backend>>& devices) {
  const bool all =
      std::all_of(devices.begin(), devices.end(), [](const auto& d) { return d != nullptr; });
  if (devices.empty() || !all) throw_no_device();
}

// Which model it is: what the tensors are called, how they look, and how their data begin.
std::string fingerprint_of(const gguf::file& file) {
  nibble::fingerprint print;
  std::vector<std::byte> buffer;
  for (const gguf::tensor_info& tensor : file.tensors()) {
    print.add(tensor.name);
    print.add(static_cast<std::uint64_t>(tensor.view.format));
    for (const std::uint64_t n : tensor.view.shape.extent) print.add(n);
    print.add(file.read(tensor, 0, std::min<std::size_t>(tensor.bytes, 64), buffer));
  }
  return print.text();
}

// Whose memory is the host's; "" if the plan does without.
std::string name_of_cpu(const placement& plan) {
  for (const device_use& use : plan.devices) {
    if (use.device.kind == device_kind::cpu) return use.device.name;
  }
  return {};
}

// Of the blocks on one device, the how manieth this one is, from 0.
std::size_t turn_of(const placement& plan, std::size_t block) {
  const auto end = plan.blocks.begin() + static_cast<std::ptrdiff_t>(block);
  return static_cast<std::size_t>(
      std::count_if(plan.blocks.begin(), end,
                    [&](const placed_block& b) { return b.device == plan.blocks[block].device; }));
}

}  // namespace

void model::state::make_caches() {
  std::vector<std::unique_ptr<kv_cache>> parts;
  std::vector<std::int32_t> part_of(plan.kv.layers.size(), 0);
  for (std::size_t d = 0; d < devices.size(); ++d) {
    const std::vector<bool> there = plan.kv_layers_on(static_cast<std::int32_t>(d));
    parts.emplace_back();
    if (std::find(there.begin(), there.end(), true) == there.end()) continue;
    parts.back() = devices[d].device->make_cache(layers_of(plan.kv, there), plan.kv_pages);
    devices[d].cache = parts.back().get();
    for (std::size_t layer = 0; layer < there.size(); ++layer) {
      if (there[layer]) part_of[layer] = static_cast<std::int32_t>(d);
    }
  }
  cache = std::make_unique<split_kv_cache>(plan.kv, plan.kv_pages, std::move(parts),
                                           std::move(part_of));
  pages = std::make_unique<page_pool>(
      cache->groups(), plan.kv_pages,
      [this](std::size_t group, page_id from, page_id to) { cache->copy_page(group, from, to); });
}

void model::state::import_weights(const gguf::file& file, const model_definition& definition,
                                  const std::function<void(double)>& progress) {
  for (std::size_t d = 0; d < devices.size(); ++d) {
    backend& device = *devices[d].device;
    if (weight_stream* const stream = device.stream()) {
      stream->reserve_blocks(plan.streamed_on(static_cast<std::int32_t>(d)),
                             plan.devices[d].experts);
    }
    device.reserve_weights(plan.devices[d].weights);
    devices[d].table.layers.resize(static_cast<std::size_t>(hp.n_layer));
    loading.weight_bytes += plan.devices[d].weights;
  }
  importer work(file);
  for (const tensor_need& need : definition.needs) {
    if (!need.found) continue;
    std::int32_t before = -1;
    for (const std::size_t reader : readers_of(definition, need)) {
      const std::int32_t at = plan.blocks[reader].device;
      if (at == before) continue;
      before = at;
      placed_device& to = devices[static_cast<std::size_t>(at)];
      set_slot(to.table, need, work.place(need, *to.device, to.weights, turn_of(plan, reader)));
    }
  }
  work.run(progress);
}

void model::state::make_pipeline(const model_definition& definition) {
  std::vector<workspace_size> sizes(devices.size());
  std::vector<recording> recordings;
  const auto placed = plan.segments();
  for (const placed_segment& s : placed) {
    const auto d = static_cast<std::size_t>(s.device);
    recordings.push_back(definition.record(devices[d].table, s.first, s.last));
    sizes[d].add(devices[d].device->workspace_of(recordings.back(), plan.segment_limits()));
  }
  std::vector<pipeline::device> on;
  for (std::size_t d = 0; d < devices.size(); ++d) {
    devices[d].device->reserve_workspace(sizes[d]);
    on.push_back(
        {.cache = devices[d].cache, .waits = !computes_on_cpu(devices[d].device->info().kind)});
  }
  std::vector<pipeline::segment> segments;
  for (std::size_t i = 0; i < placed.size(); ++i) {
    const auto d = static_cast<std::size_t>(placed[i].device);
    segments.push_back(
        {.steps = devices[d].device->make_program(std::move(recordings[i]), plan.segment_limits()),
         .device = d,
         .head_only = definition.blocks[placed[i].first].kind == block_kind::head});
  }
  steps = std::make_unique<pipeline>(std::move(segments), std::move(on), pipeline_sizes(hp, plan));
}

void model::state::load_as_planned(const gguf::file& file, const model_definition& definition,
                                   const model_options& options) {
  check_plan(definition);
  make_caches();
  import_weights(file, definition, options.progress);
  make_pipeline(definition);
  if (options.on_memory) options.on_memory(memory());
}

void model::state::load_anywhere(const gguf::file& file, const model_definition& definition,
                                 const devices::hardware& found, const model_options& options) {
  device_choice choice(found, options);
  std::string first_failure;
  for (bool again = false;; again = true) {
    plan = choice.plan(file, definition);
    if (again) {
      plan.reasons.insert(plan.reasons.begin(), concat("The first plan could not be carried out (",
                                                       first_failure, "); this one takes less."));
    }
    std::string failed;  // the device
    std::uint64_t planned = 0;
    try {
      auto opened = choice.open_used(plan);
      devices.clear();
      for (auto& device : opened) devices.emplace_back().device = std::move(device);
      return load_as_planned(file, definition, options);
    } catch (const error& e) {
      if (again || e.code() != errc::out_of_memory) throw;
      first_failure = e.what();
      failed = e.device().empty() ? name_of_cpu(plan) : e.device();
      if (failed.empty()) throw;
      for (const device_use& use : plan.devices) {
        // a disk's blocks work in the CPU's memory
        const bool shares = use.device.kind == device_kind::disk && failed == name_of_cpu(plan);
        if (use.device.name == failed || shares) planned += use.total();
      }
    }
    steps.reset();
    pages.reset();
    cache.reset();
    devices.clear();
    loading = {};
    choice.limit(failed,
                 planned / 10 * less_of_ten);  // by what is free, now that all is given back
  }
}

void model::state::load(const gguf::file& file, const devices::hardware* found,
                        const model_options& options) {
  const auto start = std::chrono::steady_clock::now();
  if (!file.has_data()) {
    throw error(errc::invalid_argument,
                "the file was opened for its header only; a model needs the data of its tensors.",
                {.file = file.name()});
  }
  const model_definition definition(file);
  hp = definition.hp;
  if (nibble::has_tokenizer(file)) tokenizer.emplace(file);
  fingerprint = fingerprint_of(file);
  if (devices.empty()) {
    const auto all = found ? *found : nibble::devices::probe(options.cpu);
    load_anywhere(file, definition, all, options);
  } else {
    if (plan.blocks.empty()) plan = nibble::plan(definition, *devices[0].device, options.plan);
    load_as_planned(file, definition, options);
  }
  loading.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void model::state::check_plan(const model_definition& definition) const {
  const bool same_blocks = std::equal(
      plan.blocks.begin(), plan.blocks.end(), definition.blocks.begin(), definition.blocks.end(),
      [](const placed_block& p, const block_id& b) { return p.block == b; });
  const auto n = static_cast<std::int32_t>(devices.size());
  const bool known = std::all_of(plan.blocks.begin(), plan.blocks.end(),
                                 [&](const auto& b) { return b.device >= 0 && b.device < n; });
  const bool all_there = std::all_of(devices.begin(), devices.end(),
                                     [](const placed_device& d) { return d.device != nullptr; });
  if (!same_blocks || !known || !all_there || plan.devices.size() != devices.size()) {
    throw error(
        errc::invalid_argument,
        concat("the plan has ", plan.blocks.size(), " blocks on ", plan.devices.size(),
               " devices; the model has ", definition.blocks.size(), ", and ", devices.size(),
               " devices were given. Plan with this file and these devices."));
  }
  const kv_layout own = definition.kv(plan.kv.key, plan.kv.value);
  const bool same_layers = std::equal(
      own.layers.begin(), own.layers.end(), plan.kv.layers.begin(), plan.kv.layers.end(),
      [](const kv_layer& a, const kv_layer& b) {
        return a.n_head_kv == b.n_head_kv && a.key_length == b.key_length &&
               a.value_length == b.value_length && a.window == b.window && a.kind == b.kind;
      });
  const program_limits& l = plan.limits;
  const bool experts_fit =
      std::all_of(plan.devices.begin(), plan.devices.end(), [&](const auto& d) {
        return d.experts.slot_bytes == 0 ||
               (d.experts.slots >= least_expert_slots(definition.hp, l) &&
                d.experts.bytes() <= d.weights);
      });
  const bool counts = experts_fit && l.max_tokens >= 1 && l.max_outputs >= 1 &&
                      l.max_outputs <= l.max_tokens && l.max_context == plan.context &&
                      plan.context >= l.max_tokens && plan.part >= 1 && plan.part <= l.max_tokens &&
                      plan.sessions >= 1;
  if (same_layers && counts &&
      plan.kv_pages ==
          pages_of_sessions(group_layers(plan.kv), plan.context, l.max_tokens, plan.sessions)) {
    return;
  }
  throw error(
      errc::invalid_argument,
      "the plan's sizes do not belong together, or not to this model; make it with plan().");
}

namespace {

void check_same_sizes(const placement& before, const placement& now) {
  const auto& a = before.kv;
  const auto& b = now.kv;
  const bool same_kv = a.key == b.key && a.value == b.value && a.rotate_key == b.rotate_key &&
                       a.rotate_value == b.rotate_value && before.kv_pages == now.kv_pages;
  const bool same = same_kv && before.context == now.context && before.sessions == now.sessions &&
                    before.limits.max_tokens == now.limits.max_tokens &&
                    before.limits.max_outputs == now.limits.max_outputs;
  if (same) return;
  throw error(errc::invalid_argument,
              concat("a model with a context of ", before.context, " tokens for ", before.sessions,
                     " sessions and batches of ", before.limits.max_tokens,
                     " cannot move to a plan of another context, other sessions or batches, or "
                     "other types of keys and values; plan with the same."));
}

// False if what a device held could not be read.
bool copy_pages(const kv_cache& from, kv_cache& to) {
  std::vector<std::byte> bytes;
  for (std::size_t g = 0; g < from.groups().size(); ++g) {
    bytes.resize(from.groups()[g].page_bytes());
    for (page_id page = 0; page < from.pages(g); ++page) {
      try {
        from.read_page(g, page, kv_page_tokens, bytes.data());
      } catch (const error& e) {
        if (e.code() != errc::device) throw;
        return false;
      }
      to.write_page(g, page, kv_page_tokens, bytes.data());
    }
  }
  return true;
}

}  // namespace

void model::state::move_to(const gguf::file& file, std::vector<std::unique_ptr<backend>> to,
                           const placement& planned, const model_options& options) {
  const auto start = std::chrono::steady_clock::now();
  check_given(to);
  const model_definition definition(file);
  if (!file.has_data() || fingerprint_of(file) != fingerprint) {
    throw error(errc::invalid_argument, "the file is not the one that the model was loaded from.",
                {.file = file.name()});
  }
  check_same_sizes(plan, planned);
  state next;
  next.hp = hp;
  next.plan = planned;
  for (auto& device : to) next.devices.emplace_back().device = std::move(device);
  next.load_as_planned(file, definition, options);
  const std::lock_guard lock(running);
  const bool kept = copy_pages(*cache, *next.cache);
  std::swap(steps, next.steps);
  std::swap(cache, next.cache);
  std::swap(devices, next.devices);
  std::swap(plan, next.plan);
  next.steps.reset();  // before the devices, which it runs on
  loading.weight_bytes = next.loading.weight_bytes;
  loading.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (kept) return;
  pages->forget_contents();
  ++losses;
}

void model::move_to(const gguf::file& file, std::vector<std::unique_ptr<backend>> devices,
                    const placement& plan, const model_options& options) {
  with_memory_for("the model", [&] { state_->move_to(file, std::move(devices), plan, options); });
}

model::model(const gguf::file& file, const model_options& options) {
  with_memory_for("the model", [&] {
    state_ = std::make_shared<state>();
    state_->load(file, nullptr, options);
  });
}

model::model(const gguf::file& file, const devices::hardware& found, const model_options& options) {
  with_memory_for("the model", [&] {
    state_ = std::make_shared<state>();
    state_->load(file, &found, options);
  });
}

placement plan(const gguf::file& file, const devices::hardware& found,
               const model_options& options) {
  return with_memory_for(
      "the plan", [&] { return device_choice(found, options).plan(file, model_definition(file)); });
}

model::model(const gguf::file& file, const devices::hardware& found, const placement& plan,
             const model_options& options) {
  with_memory_for("the model", [&] {
    model_options planned = options;
    planned.device.clear();
    for (const device_use& use : plan.devices) {
      planned.device += (planned.device.empty() ? "" : ",") + use.device.id;
    }
    state_ = std::make_shared<state>();
    state_->plan = plan;
    for (auto& device : device_choice(found, planned).open_used(state_->plan)) {
      state_->devices.emplace_back().device = std::move(device);
    }
    state_->load(file, nullptr, options);
  });
}

model::model(const gguf::file& file, std::unique_ptr<backend> device,
             const model_options& options) {
  with_memory_for("the model", [&] {
    if (!device) throw_no_device();
    state_ = std::make_shared<state>();
    state_->devices.emplace_back().device = std::move(device);
    state_->load(file, nullptr, options);
  });
}

model::model(const gguf::file& file, std::vector<std::unique_ptr<backend>> devices,
             const placement& plan, const model_options& options) {
  with_memory_for("the model", [&] {
    check_given(devices);
    state_ = std::make_shared<state>();
    for (auto& device : devices) state_->devices.emplace_back().device = std::move(device);
    state_->plan = plan;
    state_->load(file, nullptr, options);
  });
}

std::vector<device_memory> model::state::memory() const {
  std::vector<device_memory> all;
  for (const auto& d : devices) {
    all.push_back({d.device->info(), d.device->allocated(), d.device->peak()});
  }
  return all;
}

std::vector<device_memory> model::memory() const {
  return state_->memory();
}

const nibble::hparams& model::hparams() const noexcept {
  return state_->hp;
}
const placement& model::plan() const noexcept {
  return state_->plan;
}
const load_report& model::loading() const noexcept {
  return state_->loading;
}
bool model::has_tokenizer() const noexcept {
  return state_->tokenizer.has_value();
}

const nibble::tokenizer& model::tokenizer() const {
  return state_->need_tokenizer();
}

const nibble::tokenizer& model::state::need_tokenizer() const {
  if (!tokenizer) {
    throw error(errc::unsupported,
                "the model's file has no vocabulary, so text cannot be turned into tokens; give "
                "token ids instead.");
  }
  return *tokenizer;
}

}  // namespace nibble::inline NIBBLE_ABI
