// Devices of modules without a backend around them, for programs that measure kernels.
#pragma once

#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/gpu.hpp>
#include <string_view>

#include "device/gpu_device.hpp"

namespace nibble::inline NIBBLE_ABI {

// Throws as gpu_modules::open.
std::shared_ptr<gpu_device> open_gpu(const gpu_modules& modules, std::string_view id);

}  // namespace nibble::inline NIBBLE_ABI
