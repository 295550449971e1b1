// How much of a device's memory a plan may take, and whether what it was given makes sense.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/plan/placement.hpp>
#include <span>

namespace nibble::inline NIBBLE_ABI {

// Throws error (invalid_argument).
void check_devices(std::span<const offered_device> devices);
void check_budget_options(const plan_options& options, std::size_t n_devices, std::int32_t n_layer);

std::uint64_t budget_of(const offered_device& device, const plan_options& options);

}  // namespace nibble::inline NIBBLE_ABI
