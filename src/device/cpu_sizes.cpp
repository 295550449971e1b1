#include "device/cpu_sizes.hpp"

#include "device/cpu_program_memory.hpp"
#include "device/kv_page_layout.hpp"

namespace nibble::inline NIBBLE_ABI {

std::size_t cpu_sizes::weight_bytes(const tensor_view& tensor) const {
  return packing_.bytes(tensor);
}

std::size_t cpu_sizes::cache_bytes(const kv_layout& layout,
                                   std::span<const std::int32_t> pages) const {
  return kv_page_layout(layout, pages).bytes();
}

workspace_size cpu_sizes::workspace_of(const recording& steps, program_limits limits) const {
  check_recording(steps);
  return {.shared = lay_out_program(steps, limits, activations_, info_.threads, nullptr).bytes};
}

}  // namespace nibble::inline NIBBLE_ABI
