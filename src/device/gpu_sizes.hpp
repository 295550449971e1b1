// What a model takes on a GPU.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <utility>

#include "gpu/module.hpp"

namespace nibble::inline NIBBLE_ABI {

class gpu_sizes final : public device_sizes {
 public:
  gpu_sizes(device_info info, const gpu::device_facts& facts, activation_type activations)
      : info_(std::move(info)), facts_(facts), activations_(activations) {}

  const device_info& info() const noexcept override { return info_; }
  std::size_t weight_bytes(const tensor_view& tensor) const override;
  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override;
  std::size_t cache_host_bytes(const kv_layout& layout) const override;
  // Throws error (unsupported), too, for what kernels for GPUs do not take.
  workspace_size workspace_of(const recording& steps, program_limits limits) const override;

  activation_type activations() const noexcept { return activations_; }

 private:
  device_info info_;
  gpu::device_facts facts_;
  activation_type activations_;
};

}  // namespace nibble::inline NIBBLE_ABI
