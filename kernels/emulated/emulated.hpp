// The emulated device as a GPU module: no driver, no device, the same kernels.
//
// It keeps a GPU's rules more strictly than a GPU does. Work given to a queue waits until something
// waits for it, host memory is read and written as late as that, fresh memory holds garbage, and
// memory that is transferred must be pinned. Failures can be asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "emulated/simt.hpp"
#include "gpu/module.hpp"

namespace nibble::inline v0::gpu {

// What the device takes after: width of warps, fragments of matrix instructions, shared memory.
enum class emulated_target : std::int32_t {
  cuda,  // 32 lanes, mma.sync
  rdna,  // 32 lanes, WMMA
  cdna   // 64 lanes, MFMA
};
// Those that are built.
inline constexpr emulated_target emulated_targets[] = {
    emulated_target::cuda,
#if !defined(NIBBLE_FEWER_TARGETS)
    emulated_target::rdna,
    emulated_target::cdna,
#endif
};

struct emulated_options {
  emulated_target target = emulated_target::cuda;
  std::uint64_t memory = std::uint64_t{1} << 30;  // bytes
  std::uint64_t bandwidth = 0;                    // for device_facts::memory_bandwidth
  simt::lane_order order = simt::lane_order::ascending;
  std::uint32_t seed = 1;  // of a random order
  int os_threads = 1;      // that the blocks of a kernel are spread over
  bool eager = false;      // work is done when it is given to a queue
  // Which of a context's calls is to fail, counted from 1; 0: none.
  std::int64_t fail_allocation = 0;  // of the device's or of pinned memory: out_of_memory
  std::int64_t fail_launch = 0;      // a kernel's, when it is run: lost
  std::int64_t fail_transfer = 0;    // likewise
};

class emulated_module final : public module {
 public:
  // One device for each.
  explicit emulated_module(std::vector<emulated_options> devices);

  module_kind kind() const noexcept override;
  const char* built_for() const noexcept override;
  std::int32_t count(failure& why) noexcept override;
  bool describe(std::int32_t device, device_facts& facts, failure& why) noexcept override;
  bool open(std::int32_t device, context*& opened, failure& why) noexcept override;

 private:
  std::vector<emulated_options> devices_;
};

}  // namespace nibble::inline v0::gpu
