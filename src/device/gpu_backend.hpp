// A GPU as a backend: weights in one arena of its memory, kernels launched by gpu_program.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>

#include "device/gpu_device.hpp"
#include "device/gpu_sizes.hpp"
#include "device/gpu_weights.hpp"
#include "device/weight_room.hpp"

namespace nibble::inline NIBBLE_ABI {

struct gpu_workspace;

class gpu_backend final : public backend {
 public:
  gpu_backend(std::shared_ptr<gpu_device> device, activation_type activations);

  const device_info& info() const noexcept override { return sizes_.info(); }

  std::size_t weight_bytes(const tensor_view& tensor) const override {
    return sizes_.weight_bytes(tensor);
  }
  void reserve_weights(std::size_t bytes) override;
  weight place_weight(const tensor_view& tensor) override;
  void fill_weight(const weight& placed, row_range rows, const std::byte* from) override;

  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override {
    return sizes_.cache_bytes(layout, pages);
  }
  std::unique_ptr<kv_cache> make_cache(const kv_layout& layout,
                                       std::span<const std::int32_t> pages) override;

  std::size_t cache_host_bytes(const kv_layout& layout) const override {
    return sizes_.cache_host_bytes(layout);
  }
  workspace_size workspace_of(const recording& steps, program_limits limits) const override {
    return sizes_.workspace_of(steps, limits);
  }
  void reserve_workspace(const workspace_size& size) override;
  std::unique_ptr<program> make_program(recording steps, program_limits limits) override;

  memory_use allocated() const override { return device_->tally()->use(); }
  memory_use peak() const override { return device_->tally()->peak(); }

 private:
  std::shared_ptr<gpu_device> device_;
  gpu_sizes sizes_;
  gpu_memory weights_;
  weight_room room_;
  weight_uploads uploads_;
  std::shared_ptr<const gpu_workspace> workspace_;  // null: each program has its own
};

}  // namespace nibble::inline NIBBLE_ABI
