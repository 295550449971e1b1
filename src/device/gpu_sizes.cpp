#include "device/gpu_sizes.hpp"

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/sizes.hpp>
#include <variant>

#include "device/gpu_kv_cache.hpp"
#include "device/gpu_program_memory.hpp"
#include "device/gpu_weights.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// What kernels for GPUs do not take, besides what no device does.
void check_heads(const recording& steps, const std::string& device) {
  for (const step& s : steps.steps) {
    const auto* const attend = std::get_if<attend_step>(&s);
    if (!attend) continue;
    const std::int32_t length = std::max(attend->spec.key_length, attend->spec.value_length);
    if (length <= gpu::longest_head) continue;
    throw error(errc::unsupported,
                concat("layer ", attend->layer, " has heads of ", length, " values; GPUs take ",
                       gpu::longest_head, " at most. The CPU can run this model."),
                {.device = device});
  }
}

}  // namespace

std::size_t gpu_sizes::weight_bytes(const tensor_view& tensor) const {
  return gpu_weight_bytes(tensor);
}

std::size_t gpu_sizes::cache_bytes(const kv_layout& layout,
                                   std::span<const std::int32_t> pages) const {
  return kv_page_layout(layout, pages).bytes();
}

std::size_t gpu_sizes::cache_host_bytes(const kv_layout& layout) const {
  return greatest_page(group_layers(layout));
}

workspace_size gpu_sizes::workspace_of(const recording& steps, program_limits limits) const {
  check_recording(steps);
  check_heads(steps, info_.name);
  return lay_out_gpu_program(steps, limits, activations_, facts_).size;
}

std::unique_ptr<device_sizes> make_gpu_sizes(const device_info& info, std::int32_t multiprocessors,
                                             activation_type activations) {
  gpu::device_facts facts{};
  facts.multiprocessors = std::max(multiprocessors, 1);
  return std::make_unique<gpu_sizes>(info, facts, activations);
}

}  // namespace nibble::inline NIBBLE_ABI
