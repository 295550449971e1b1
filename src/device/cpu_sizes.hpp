// What a model takes on the CPU.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <utility>

#include "cpu/kernel_table.hpp"
#include "device/cpu_weights.hpp"

namespace nibble::inline NIBBLE_ABI {

class cpu_sizes final : public device_sizes {
 public:
  cpu_sizes(device_info info, const cpu::kernel_table& kernels, activation_type activations)
      : info_(std::move(info)), activations_(activations), packing_(kernels, activations) {}

  const device_info& info() const noexcept override { return info_; }
  std::size_t weight_bytes(const tensor_view& tensor) const override;
  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override;
  workspace_size workspace_of(const recording& steps, program_limits limits) const override;

  activation_type activations() const noexcept { return activations_; }
  const weight_packing& packing() const noexcept { return packing_; }

 private:
  device_info info_;
  activation_type activations_;
  weight_packing packing_;
};

}  // namespace nibble::inline NIBBLE_ABI
