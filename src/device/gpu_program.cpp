#include "device/gpu_program.hpp"

#include <algorithm>
#include <cstring>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

#include "device/gpu_backend.hpp"
#include "device/gpu_step_maker.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr auto queue = gpu::queue_id::compute;
// Batches of up to so many tokens are replayed as graphs.
constexpr std::int64_t graph_tokens = gpu::max_matvec_tokens;

}  // namespace

gpu::cache_layer gpu_run::layer(std::int32_t i) const {
  gpu::cache_layer layer = cache->layer(i);
  const auto at = std::find(groups->begin(), groups->end(), layer.group);
  layer.group = static_cast<std::int32_t>(at - groups->begin());
  return layer;
}

gpu_program::gpu_program(const gpu_backend& owner, std::shared_ptr<gpu_device> device,
                         activation_type activations, recording steps, program_limits limits,
                         std::shared_ptr<const gpu_workspace> space)
    : owner_(owner),
      device_(std::move(device)),
      recording_(std::move(steps)),
      needs_(find_needs(recording_, limits)),
      space_(std::move(space)) {
  const auto lay_out = [&](const gpu_program_bases& at) {
    return lay_out_gpu_program(recording_, limits, activations, device_->facts(), at);
  };
  const workspace_size size = lay_out({}).size;
  own_ = gpu_memory(device_, gpu_memory::kind::workspace, size.own, "what a program keeps");
  pinned_step_ = gpu_memory(device_, gpu_memory::kind::host, size.host_own, "what a batch brings");
  memory_ = lay_out({space_->device.data(), own_.data(), space_->host.data()});
  lay_out_step(memory_.step_sizes, pinned_step_.data(), host_step_);
  const auto lock = device_->lock();
  // what a kernel reads before it was written is to show
  device_->fill(queue, space_->device.data(), 0xff, size.shared);
  device_->fill(queue, reinterpret_cast<std::byte*>(memory_.attend_counters), 0,
                static_cast<std::size_t>(memory_.n_counters) * sizeof(std::uint32_t));
  for (const gpu_rope_table& table : memory_.ropes) {
    const std::size_t bytes = table.spec->frequencies.size() * sizeof(double);
    const gpu_memory staging(device_, gpu_memory::kind::host, bytes, "frequencies");
    std::memcpy(staging.data(), table.spec->frequencies.data(), bytes);
    device_->upload(queue, reinterpret_cast<std::byte*>(table.frequencies), staging.data(), bytes);
    device_->finish(queue);
  }
  device_->finish(gpu::queue_id::copy);  // the weights have arrived
  launches_ = gpu_step_maker(recording_, activations, device_->facts(), memory_).make_all();
}

gpu_program::~gpu_program() {
  forget_graphs();
}

std::byte* gpu_program::place_of(value v) const {
  return memory_.base + memory_.values.offset[static_cast<std::size_t>(v.id)];
}

std::span<float> gpu_program::input() {
  if (!recording_.input) return {};
  const value_info& info = recording_.info(recording_.input);
  return {reinterpret_cast<float*>(memory_.host_input),
          value_bytes(info, needs_.limits) / sizeof(float)};
}

std::span<const float> gpu_program::output() {
  if (!recording_.output) return {};
  const value_info& info = recording_.info(recording_.output);
  const std::int64_t rows = info.rows == value_rows::per_token ? tokens_ : outputs_;
  return {reinterpret_cast<const float*>(memory_.host_output),
          static_cast<std::size_t>(rows * info.width)};
}

void gpu_program::submit(const batch& work) {
  check_batch(work, needs_, &owner_);
  const auto lock = device_->lock();
  if (running_) device_->finish(queue);  // the pinned block is still being read
  running_ = false;
  use_cache(work);
  make_room(sizes_for(work));
  write_step(work);
  tokens_ = static_cast<std::int64_t>(work.tokens.size());
  outputs_ = static_cast<std::int64_t>(work.outputs.size());
  running_ = true;
  std::byte* const step_base = more_step_.data() ? more_step_.data() : memory_.step_base;
  device_->upload(queue, step_base, pinned_step_.data(), memory_.step_bytes);
  if (recording_.input) {
    const auto width = static_cast<std::size_t>(recording_.info(recording_.input).width);
    device_->upload(queue, place_of(recording_.input), memory_.host_input,
                    static_cast<std::size_t>(tokens_) * width * sizeof(float));
  }
  const gpu_step_block& block = memory_.step;
  const gpu_run run{.kernels = device_->kernels(),
                    .target = device_->target(),
                    .tokens = tokens_,
                    .outputs = outputs_,
                    .run_tokens = tokens_ / static_cast<std::int64_t>(work.chunks.size()),
                    .output_tokens = block.outputs,
                    .cache = cache_,
                    .step = {block.ids, block.chunk, block.index, block.place},
                    .pages = {block.sequences, memory_.step_sizes.sequences, block.page_numbers},
                    .groups = &groups_};
  if (tokens_ <= graph_tokens) {
    launch_graph(run);
  } else {
    launch_all(run);
  }
  device_->download(queue, memory_.host_output,
                    recording_.output ? place_of(recording_.output) : nullptr,
                    output().size_bytes());
}

void gpu_program::wait() {
  if (!running_) return;
  const auto lock = device_->lock();
  running_ = false;
  device_->finish(queue);
}

void gpu_program::launch_all(const gpu_run& run) {
  for (const gpu_launch& launch : launches_) {
    launch.run(run);
    device_->check_launches(launch.name);
  }
}

void gpu_program::launch_graph(const gpu_run& run) {
  const auto key = std::pair(run.tokens, run.outputs);
  const auto [found, is_new] = graphs_.try_emplace(key, 0);
  if (is_new) {
    try {
      record_graph(run, found->second);
    } catch (...) {
      graphs_.erase(found);
      throw;
    }
  }
  device_->launch_graph(found->second);
}

void gpu_program::record_graph(const gpu_run& run, gpu::graph_id& graph) {
  device_->begin_graph();
  try {
    launch_all(run);
    graph = device_->end_graph();
  } catch (...) {
    device_->abandon_graph();
    throw;
  }
}

void gpu_program::forget_graphs() noexcept {
  const auto lock = device_->lock();
  for (const auto& [key, graph] : graphs_) device_->release_graph(graph);
  graphs_.clear();
}

void gpu_program::use_cache(const batch& work) {
  if (needs_.layers.empty()) return;
  for (const batch_chunk& c : work.chunks) {
    if (c.cache == work.chunks[0].cache) continue;
    throw error(errc::invalid_argument,
                "batch: its chunks use several caches; on a GPU a batch has one",
                {.device = device_->name()});
  }
  const auto* const cache = static_cast<const gpu_kv_cache*>(work.chunks[0].cache);
  if (cache == cache_) return;
  forget_graphs();
  groups_.clear();
  for (const auto& [layer, shape] : needs_.layers) {
    const std::int32_t group = cache->layer(layer).group;
    if (std::find(groups_.begin(), groups_.end(), group) == groups_.end()) groups_.push_back(group);
  }
  cache_ = cache;
}

gpu_step_sizes gpu_program::sizes_for(const batch& work) const {
  gpu_step_sizes wanted = memory_.step_sizes;
  wanted.groups = std::max(wanted.groups, static_cast<std::int32_t>(groups_.size()));
  wanted.sequences = std::max(wanted.sequences, static_cast<std::int32_t>(work.chunks.size()));
  std::size_t numbers = 0;
  if (cache_) {
    for (const batch_chunk& c : work.chunks) {
      for (const std::int32_t g : groups_) {
        const kv_table::group& pages = c.table->groups[static_cast<std::size_t>(g)];
        numbers += pages.head.size() + pages.tail.size();
      }
    }
  }
  wanted.page_numbers = std::max(wanted.page_numbers, static_cast<std::int64_t>(numbers));
  wanted.outputs = std::max(wanted.outputs, static_cast<std::int32_t>(work.outputs.size()));
  return wanted;
}

void gpu_program::make_room(const gpu_step_sizes& wanted) {
  if (wanted == memory_.step_sizes) return;
  gpu_step_sizes sizes = wanted;
  sizes.page_numbers *= 2;  // not again soon
  gpu_step_block block;
  const std::size_t bytes = lay_out_step(sizes, nullptr, block);
  gpu_memory device(device_, gpu_memory::kind::workspace, bytes, "what a batch brings");
  gpu_memory pinned(device_, gpu_memory::kind::host, bytes, "what a batch brings");
  forget_graphs();
  more_step_ = std::move(device);
  pinned_step_ = std::move(pinned);
  memory_.step_sizes = sizes;
  memory_.step_bytes = bytes;
  lay_out_step(sizes, more_step_.data(), memory_.step);
  lay_out_step(sizes, pinned_step_.data(), host_step_);
}

void gpu_program::write_step(const batch& work) {
  std::copy(work.tokens.begin(), work.tokens.end(), host_step_.ids);
  std::copy(work.outputs.begin(), work.outputs.end(), host_step_.outputs);
  for (std::size_t c = 0; c < work.chunks.size(); ++c) {
    const batch_chunk& chunk = work.chunks[c];
    for (std::int32_t i = 0; i < chunk.count; ++i) {
      const std::int64_t index = std::int64_t{chunk.n_past} + i;
      const std::int32_t t = chunk.first + i;
      host_step_.chunk[t] = static_cast<std::int32_t>(c);
      host_step_.index[t] = index;
      host_step_.place[t] = chunk.table ? chunk.table->place(index) : index;
    }
  }
  if (cache_) write_pages(work);
}

void gpu_program::write_pages(const batch& work) {
  std::int32_t at = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (std::size_t c = 0; c < work.chunks.size(); ++c) {
      const kv_table& table = *work.chunks[c].table;
      const kv_table::group& pages = table.groups[static_cast<std::size_t>(groups_[g])];
      const auto sequence = g * static_cast<std::size_t>(memory_.step_sizes.sequences) + c;
      host_step_.sequences[sequence] = {.first = at,
                                        .head = static_cast<std::int32_t>(pages.head.size()),
                                        .tail_first = pages.tail_first,
                                        .keep = table.keep,
                                        .dropped = table.dropped};
      for (const auto* part : {&pages.head, &pages.tail}) {
        std::copy(part->begin(), part->end(), host_step_.page_numbers + at);
        at += static_cast<std::int32_t>(part->size());
      }
    }
  }
}

}  // namespace nibble::inline NIBBLE_ABI
