#include "emulated/emulated.hpp"

#include <new>

#include "emulated/context.hpp"

namespace nibble::inline v0::gpu {

namespace {

bool exists(const std::vector<emulated_options>& devices, std::int32_t device, failure& why) {
  if (device >= 0 && static_cast<std::size_t>(device) < devices.size()) return true;
  tell(why, fault::invalid,
       "device " + std::to_string(device) + " of " + std::to_string(devices.size()));
  return false;
}

}  // namespace

emulated_module::emulated_module(std::vector<emulated_options> devices)
    : devices_(std::move(devices)) {}

module_kind emulated_module::kind() const noexcept {
  return module_kind::emulated;
}

const char* emulated_module::built_for() const noexcept {
  return "the emulated device, as CUDA, RDNA and CDNA";
}

std::int32_t emulated_module::count(failure& why) noexcept {
  if (devices_.empty()) tell(why, fault::no_device, "no emulated device was asked for");
  return static_cast<std::int32_t>(devices_.size());
}

bool emulated_module::describe(std::int32_t device, device_facts& facts, failure& why) noexcept {
  if (!exists(devices_, device, why)) return false;
  facts = facts_of(devices_[static_cast<std::size_t>(device)]);
  return true;
}

bool emulated_module::open(std::int32_t device, context*& opened, failure& why) noexcept {
  if (!exists(devices_, device, why)) return false;
  try {
    opened = new emulated_context(devices_[static_cast<std::size_t>(device)]);
    return true;
  } catch (const std::bad_alloc&) {
    tell(why, fault::out_of_memory, "the host has no memory left");
    return false;
  }
}

}  // namespace nibble::inline v0::gpu
