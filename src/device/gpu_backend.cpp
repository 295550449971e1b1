#include "device/gpu_backend.hpp"

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/gpu.hpp>
#include <utility>
#include <variant>

#include "device/gpu_kv_cache.hpp"
#include "device/gpu_program.hpp"
#include "device/gpu_program_memory.hpp"

namespace nibble::inline NIBBLE_ABI {
gpu_backend::gpu_backend(std::shared_ptr<gpu_device> device, activation_type activations)
    : device_(std::move(device)), activations_(activations), uploads_(device_) {
  info_.kind = device_kind_of(device_->kind());
  info_.id = device_->id();
  info_.name = device_->name();
  info_.total_bytes = device_->facts().total_bytes;
  info_.free_bytes = device_->free_bytes();
}

std::size_t gpu_backend::weight_bytes(const tensor_view& tensor) const {
  return gpu_weight_bytes(tensor);
}

void gpu_backend::reserve_weights(std::size_t bytes) {
  room_.reserve(bytes, info_.name);
  weights_ = gpu_memory(device_, gpu_memory::kind::device, bytes, "weights");
}

weight gpu_backend::place_weight(const tensor_view& tensor) {
  weight w;
  w.format = tensor.format;
  w.shape = tensor.shape;
  w.data = weights_.data() + room_.take(gpu_weight_bytes(tensor), info_.name);
  w.matrix_bytes = gpu_matrix_bytes(tensor);
  return w;
}

void gpu_backend::fill_weight(const weight& placed, row_range rows, const std::byte* from) {
  check_part(placed, rows, info_.name);
  uploads_.fill(placed, rows, from);
}

std::size_t gpu_backend::cache_bytes(const kv_layout& layout,
                                     std::span<const std::int32_t> pages) const {
  return kv_page_layout(layout, pages).bytes();
}

std::unique_ptr<kv_cache> gpu_backend::make_cache(const kv_layout& layout,
                                                  std::span<const std::int32_t> pages) {
  return std::make_unique<gpu_kv_cache>(device_, layout, pages, this);
}

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

std::size_t gpu_backend::workspace_bytes(const recording& steps, program_limits limits) const {
  check_recording(steps);
  check_heads(steps, info_.name);
  return lay_out_gpu_program(steps, limits, activations_, device_->facts(), nullptr).bytes;
}

std::unique_ptr<program> gpu_backend::make_program(recording steps, program_limits limits) {
  check_recording(steps);
  check_heads(steps, info_.name);
  if (limits.max_tokens < 1 || limits.max_outputs < 0) {
    throw error(errc::invalid_argument, concat("a program for ", limits.max_tokens, " tokens and ",
                                               limits.max_outputs, " outputs cannot be made"));
  }
  uploads_.finish();
  return std::make_unique<gpu_program>(*this, device_, activations_, std::move(steps), limits);
}

std::unique_ptr<backend> make_gpu_backend(gpu::module& from, std::int32_t index,
                                          const gpu_options& options) {
  return std::make_unique<gpu_backend>(std::make_shared<gpu_device>(from, index),
                                       options.activations);
}

}  // namespace nibble::inline NIBBLE_ABI
