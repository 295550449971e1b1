// A GPU as a backend: weights in one arena of its memory, kernels launched by gpu_program.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>

#include "device/gpu_device.hpp"
#include "device/gpu_weights.hpp"
#include "device/weight_room.hpp"

namespace nibble::inline NIBBLE_ABI {

class gpu_backend final : public backend {
 public:
  gpu_backend(std::shared_ptr<gpu_device> device, activation_type activations);

  const device_info& info() const noexcept override { return info_; }
  activation_type activations() const noexcept { return activations_; }

  std::size_t weight_bytes(const tensor_view& tensor) const override;
  void reserve_weights(std::size_t bytes) override;
  weight place_weight(const tensor_view& tensor) override;
  void fill_weight(const weight& placed, row_range rows, const std::byte* from) override;

  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override;
  std::unique_ptr<kv_cache> make_cache(const kv_layout& layout,
                                       std::span<const std::int32_t> pages) override;

  std::size_t workspace_bytes(const recording& steps, program_limits limits) const override;
  std::unique_ptr<program> make_program(recording steps, program_limits limits) override;

 private:
  std::shared_ptr<gpu_device> device_;
  activation_type activations_;
  device_info info_;
  gpu_memory weights_;
  weight_room room_;
  weight_uploads uploads_;
};

}  // namespace nibble::inline NIBBLE_ABI
