// How tests run the kernels of probes.cpp.
#pragma once

#include <algorithm>
#include <string_view>

#include "gpu_test.hpp"
#include "probes.hpp"

namespace nibble::inline emulated_cuda::kernels {
std::span<const gpu::probe> probes();
}
namespace nibble::inline emulated_rdna::kernels {
std::span<const gpu::probe> probes();
}
namespace nibble::inline emulated_cdna::kernels {
std::span<const gpu::probe> probes();
}
namespace nibble::inline probes_nvidia::kernels {
std::span<const gpu::probe> probes();
}

namespace test {

// Empty if there are none for this kind of device.
inline std::span<const gpu::probe> probes_of(const gpu_device& device) {
#if defined(NIBBLE_PROBES_NVIDIA)
  if (device.kind == gpu::module_kind::cuda) return nibble::probes_nvidia::kernels::probes();
#endif
  if (!device.emulated) return {};
  switch (*device.emulated) {
    case gpu::emulated_target::cuda:
      return nibble::emulated_cuda::kernels::probes();
#if !defined(NIBBLE_FEWER_TARGETS)
    case gpu::emulated_target::rdna:
      return nibble::emulated_rdna::kernels::probes();
    case gpu::emulated_target::cdna:
      return nibble::emulated_cdna::kernels::probes();
#endif
    default:
      break;
  }
  return {};
}

inline void launch_probe(gpu_device& device, std::string_view name, const gpu::probe_args& args) {
  const auto all = probes_of(device);
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const gpu::probe& p) { return p.name == name; });
  INFO(name);
  REQUIRE(found != all.end());
  found->launch(device.context->target(), args);
}

inline void run_probe(gpu_device& device, std::string_view name, const gpu::probe_args& args) {
  INFO(name);
  run(device, [&](const gpu::launch_target&) { launch_probe(device, name, args); });
}

// Calls f(device) for each kind of emulated device and each order of threads.
template <typename Function>
void for_each_order(Function f) {
  using nibble::simt::lane_order;
  for (const gpu::emulated_target target : gpu::emulated_targets) {
    for (const lane_order order :
         {lane_order::ascending, lane_order::descending, lane_order::random}) {
      gpu::emulated_options options;
      options.target = target;
      options.order = order;
      gpu_device device = open_emulated(options);
      INFO(device.name << ", order " << static_cast<int>(order));
      f(device);
    }
  }
}

// Calls f(device) as for_each_order() does, and for the real devices that there are.
template <typename Function>
void for_each_device(Function f) {
  for_each_order(f);
  for (gpu_device& device : gpu_devices()) {
    if (device.emulated || probes_of(device).empty()) continue;
    INFO(device.name);
    f(device);
  }
}

}  // namespace test
