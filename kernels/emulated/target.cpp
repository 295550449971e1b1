// Compiled for each emulated device, as the kernels are.
#include "emulated/target.hpp"

#include "gpu/dialect.hpp"
#include "gpu/table.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

gpu::emulated_target_facts emulated_target_facts() {
#if defined(NIBBLE_EMULATED_CUDA)
  return {"emulated CUDA device", "emulated_cuda", warp_size, 99 * 1024, 48 * 1024, &kernels()};
#elif defined(NIBBLE_EMULATED_RDNA)
  return {"emulated RDNA device", "emulated_rdna", warp_size, 64 * 1024, 64 * 1024, &kernels()};
#else
  return {"emulated CDNA device", "emulated_cdna", warp_size, 64 * 1024, 64 * 1024, &kernels()};
#endif
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
