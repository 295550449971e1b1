#include <algorithm>
#include <nibble/device/probe.hpp>

namespace nibble::inline NIBBLE_ABI::devices {

hardware probe(const cpu_options& cpu) {
  hardware found;
  auto modules = std::make_shared<gpu_modules>();
  found.all = modules->devices();
  found.notes = modules->notes();
  std::stable_sort(
      found.all.begin(), found.all.end(),
      [](const device_info& a, const device_info& b) { return a.free_bytes > b.free_bytes; });
  found.all.push_back(describe_cpu(cpu));
  found.modules = std::move(modules);
  return found;
}

}  // namespace nibble::inline NIBBLE_ABI::devices
