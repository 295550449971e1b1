#include "device/gpu_backend.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/gpu.hpp>
#include <utility>

#include "device/gpu_kv_cache.hpp"
#include "device/gpu_program.hpp"
#include "device/workspace_check.hpp"

namespace nibble::inline NIBBLE_ABI {

gpu_backend::gpu_backend(std::shared_ptr<gpu_device> device, activation_type activations)
    : device_(std::move(device)),
      sizes_(device_->info(), device_->facts(), activations),
      uploads_(device_) {}

void gpu_backend::reserve_weights(std::size_t bytes) {
  room_.reserve(bytes, info().name);
  weights_ = gpu_memory(device_, gpu_memory::kind::weights, bytes, "weights");
}

weight gpu_backend::place_weight(const tensor_view& tensor) {
  weight w;
  w.format = tensor.format;
  w.shape = tensor.shape;
  w.data = weights_.data() + room_.take(gpu_weight_bytes(tensor), info().name);
  w.matrix_bytes = gpu_matrix_bytes(tensor);
  return w;
}

void gpu_backend::fill_weight(const weight& placed, row_range rows, const std::byte* from) {
  check_part(placed, rows, info().name);
  uploads_.fill(placed, rows, from);
}

std::unique_ptr<kv_cache> gpu_backend::make_cache(const kv_layout& layout,
                                                  std::span<const std::int32_t> pages) {
  return std::make_unique<gpu_kv_cache>(device_, layout, pages, this);
}

void gpu_backend::reserve_workspace(const workspace_size& size) {
  if (workspace_) throw_workspace_twice(info().name);
  workspace_ = std::make_shared<const gpu_workspace>(device_, size);
}

std::unique_ptr<program> gpu_backend::make_program(recording steps, program_limits limits) {
  check_recording(steps);
  if (limits.max_tokens < 1 || limits.max_outputs < 0) {
    throw error(errc::invalid_argument, concat("a program for ", limits.max_tokens, " tokens and ",
                                               limits.max_outputs, " outputs cannot be made"));
  }
  uploads_.finish();
  const workspace_size size = workspace_of(steps, limits);
  auto space = workspace_;
  if (!space) space = std::make_shared<const gpu_workspace>(device_, size);
  check_workspace(size.shared, space->device.bytes(), info().name);
  check_workspace(size.host_shared, space->host.bytes(), info().name);
  return std::make_unique<gpu_program>(*this, device_, sizes_.activations(), std::move(steps),
                                       limits, std::move(space));
}

std::unique_ptr<backend> make_gpu_backend(gpu::module& from, std::int32_t index,
                                          const gpu_options& options) {
  return std::make_unique<gpu_backend>(std::make_shared<gpu_device>(from, index),
                                       options.activations);
}

}  // namespace nibble::inline NIBBLE_ABI
