// What models take on devices that are not opened, or not here.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/device/stream.hpp>
#include <optional>

namespace nibble::inline NIBBLE_ABI {

// The CPU as make_cpu_backend() would use it; with `instead`, one of that name and memory.
// Throws as make_cpu_backend().
NIBBLE_API std::unique_ptr<device_sizes> make_cpu_sizes(
    const cpu_options& options = {}, const std::optional<device_info>& instead = {});

// Disk as make_disk_backend() would use it; `instead` as above.
NIBBLE_API std::unique_ptr<device_sizes> make_disk_sizes(
    const disk_options& options = {}, const std::optional<device_info>& instead = {});

// A GPU of this kind, name and memory.
NIBBLE_API std::unique_ptr<device_sizes> make_gpu_sizes(
    const device_info& info, std::int32_t multiprocessors = 80,
    activation_type activations = activation_type::int8);

}  // namespace nibble::inline NIBBLE_ABI
