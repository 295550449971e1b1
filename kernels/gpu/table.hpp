// All kernels of a kind of device.
#pragma once

#include <nibble/base/config.hpp>

#include "gpu/kernel_table.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

const gpu::kernel_table& kernels();

}  // namespace nibble::inline NIBBLE_ABI::kernels
