#include "device/cpu_backend.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

#include "device/cpu_kv_cache.hpp"
#include "device/cpu_program.hpp"
#include "device/cpu_program_memory.hpp"
#include "device/host_probe.hpp"

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
      activations_(options.activations),
      observer_(options.observer),
      team_(resolve_threads(read_thread_sources(options.threads)),
            cores_for_workers(options.pin_threads)),
      info_(describe_cpu(kernels, team_.size())),
      packing_(kernels, options.activations),
      page_lists_(static_cast<std::size_t>(team_.size())) {}

std::size_t cpu_backend::weight_bytes(const tensor_view& tensor) const {
  return packing_.bytes(tensor);
}

void cpu_backend::reserve_weights(std::size_t bytes) {
  room_.reserve(bytes, info_.name);
  weights_ = arena(bytes, "weights");
}

weight cpu_backend::place_weight(const tensor_view& tensor) {
  weight w;
  w.format = tensor.format;
  w.shape = tensor.shape;
  w.data = weights_.data() + room_.take(packing_.bytes(tensor), info_.name);
  w.matrix_bytes = packing_.matrix_bytes(tensor);
  return w;
}

void cpu_backend::fill_weight(const weight& placed, row_range rows, const std::byte* from) {
  check_part(placed, rows, info_.name);  // a part that ended elsewhere would fill up its last strip
  packing_.pack(placed, rows, from, weights_.data() + (placed.data - weights_.data()));
}

std::size_t cpu_backend::cache_bytes(const kv_layout& layout,
                                     std::span<const std::int32_t> pages) const {
  return kv_page_layout(layout, pages).bytes();
}

std::unique_ptr<kv_cache> cpu_backend::make_cache(const kv_layout& layout,
                                                  std::span<const std::int32_t> pages) {
  auto cache = std::make_unique<cpu_kv_cache>(layout, pages, this);
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

std::size_t cpu_backend::workspace_bytes(const recording& steps, program_limits limits) const {
  check_recording(steps);
  return lay_out_program(steps, limits, activations_, threads(), nullptr).bytes;
}

std::unique_ptr<program> cpu_backend::make_program(recording steps, program_limits limits) {
  check_recording(steps);
  if (limits.max_tokens < 1 || limits.max_outputs < 0) {
    throw error(errc::invalid_argument, concat("a program for ", limits.max_tokens, " tokens and ",
                                               limits.max_outputs, " outputs cannot be made"));
  }
  return std::make_unique<cpu_program>(*this, kernels_, activations_, observer_, std::move(steps),
                                       limits);
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
