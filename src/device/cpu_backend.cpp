#include "device/cpu_backend.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

#include "device/cpu_kv_cache.hpp"
#include "device/cpu_program.hpp"
#include "device/host_probe.hpp"
#include "device/workspace_check.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// The calling thread keeps the first core to itself; it is not ours to bind.
std::vector<int> cores_for_workers(bool pin) {
  std::vector<int> cores;
  if (pin) cores = physical_cores(allowed_cpus());
  return cores;
}

}  // namespace

device_info describe_cpu(const cpu::kernel_table& kernels, int threads) {
  const std::size_t cores = physical_cores(allowed_cpus()).size();
  const memory_state memory = read_memory();
  device_info info;
  info.kind = device_kind::cpu;
  info.id = "cpu";
  info.name = concat("CPU (", cores, cores == 1 ? " core, " : " cores, ", kernels.isa, ")");
  info.threads = threads;
  info.total_bytes = memory.total;
  info.free_bytes = memory.free;
  return info;
}

cpu_backend::cpu_backend(const cpu_options& options, const cpu::kernel_table& kernels)
    : kernels_(kernels),
      observer_(options.observer),
      team_(resolve_threads(read_thread_sources(options.threads)),
            cores_for_workers(options.pin_threads)),
      sizes_(describe_cpu(kernels, team_.size()), kernels, options.activations),
      page_lists_(static_cast<std::size_t>(team_.size())) {}

void cpu_backend::reserve_weights(std::size_t bytes) {
  room_.reserve(bytes, info().name);
  weights_ = arena(bytes, "weights");
  counted_weights_ = tally_entry(tally_, memory_tally::weights, bytes);
}

weight cpu_backend::place_weight(const tensor_view& tensor) {
  weight w;
  w.format = tensor.format;
  w.shape = tensor.shape;
  w.data = weights_.data() + room_.take(sizes_.packing().bytes(tensor), info().name);
  w.matrix_bytes = sizes_.packing().matrix_bytes(tensor);
  return w;
}

void cpu_backend::fill_weight(const weight& placed, row_range rows, const std::byte* from) {
  check_part(placed, rows,
             info().name);  // a part that ended elsewhere would fill up its last strip
  sizes_.packing().pack(placed, rows, from, weights_.data() + (placed.data - weights_.data()));
}

std::unique_ptr<kv_cache> cpu_backend::make_cache(const kv_layout& layout,
                                                  std::span<const std::int32_t> pages) {
  auto cache = std::make_unique<cpu_kv_cache>(layout, pages, this, tally_);
  // a sequence has at most all of them; ends of segments and a gap cut some in two
  std::int64_t most = 0;
  for (const std::int32_t n : pages) most = std::max<std::int64_t>(most, n);
  const std::int64_t cuts = most * kv_page_tokens / cpu::attend_segment + 2;
  const std::lock_guard lock(running_);
  for (auto& list : page_lists_) {
    list.resize(std::max(list.size(), static_cast<std::size_t>(most + cuts)));
  }
  return cache;
}

void cpu_backend::reserve_workspace(const workspace_size& size) {
  if (workspace_) throw_workspace_twice(info().name);
  workspace_ = std::make_shared<const cpu_workspace>(size.shared, tally_);
}

std::unique_ptr<program> cpu_backend::make_program(recording steps, program_limits limits) {
  check_recording(steps);
  if (limits.max_tokens < 1 || limits.max_outputs < 0) {
    throw error(errc::invalid_argument, concat("a program for ", limits.max_tokens, " tokens and ",
                                               limits.max_outputs, " outputs cannot be made"));
  }
  const std::size_t bytes = workspace_of(steps, limits).shared;
  auto space = workspace_;
  if (!space) space = std::make_shared<const cpu_workspace>(bytes, tally_);
  check_workspace(bytes, space->memory.bytes(), info().name);
  return std::make_unique<cpu_program>(*this, kernels_, sizes_.activations(), observer_,
                                       std::move(steps), limits, std::move(space));
}

void cpu_backend::run(const std::vector<std::unique_ptr<cpu_step>>& steps,
                      const std::vector<bool>& barriers, cpu_run state) {
  const std::lock_guard lock(running_);
  state.team = &team_;
  state.page_lists = &page_lists_;
  for (const auto& s : steps) s->begin();
  team_.run([&](int thread) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (barriers[i]) team_.barrier();
      steps[i]->run(state, thread);
    }
  });
}

}  // namespace nibble::inline NIBBLE_ABI
