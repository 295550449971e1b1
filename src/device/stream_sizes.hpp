// What a model takes whose matrices stay on disk.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/device/stream.hpp>

#include "device/cpu_sizes.hpp"

namespace nibble::inline NIBBLE_ABI {

// Throws error (invalid_argument).
void check_disk_options(const disk_options& options);

// The disk of a machine whose CPU is this one.
device_info describe_disk(device_info cpu, const disk_options& options);

// Those of the CPU, and the ring.
class stream_sizes final : public device_sizes {
 public:
  stream_sizes(cpu_sizes cpu, const disk_options& options)
      : cpu_(std::move(cpu)),
        ring_{.slots = options.slots},
        staging_bytes_(disk_staging_bytes(options)) {}

  const device_info& info() const noexcept override { return cpu_.info(); }
  std::size_t weight_bytes(const tensor_view& tensor) const override {
    return cpu_.weight_bytes(tensor);
  }
  weight_ring ring() const noexcept override { return ring_; }
  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override {
    return cpu_.cache_bytes(layout, pages);
  }
  workspace_size workspace_of(const recording& steps, program_limits limits) const override;

  const weight_packing& packing() const noexcept { return cpu_.packing(); }
  std::uint64_t staging_bytes() const noexcept { return staging_bytes_; }

 private:
  cpu_sizes cpu_;
  weight_ring ring_;
  std::uint64_t staging_bytes_;
};

}  // namespace nibble::inline NIBBLE_ABI
