#include "gpu/table.hpp"

#include "gpu/launchers.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

const gpu::kernel_table& kernels() {
  static constexpr gpu::kernel_table table = {
      .quantise = launch_quantise,
      .transform = launch_transform,
      .matvec_fits = matvec_fits,
      .matvec = launch_matvec,
      .matmul = launch_matmul,
      .matmul_f32 = launch_matmul_f32,
      .expert_matmul = launch_expert_matmul,
      .group_pairs = launch_group_pairs,
      .embed = launch_embed,
      .add = launch_add,
      .route = launch_route,
      .combine = launch_combine,
      .select = launch_select,
      .softcap = launch_softcap,
      .rope = launch_rope,
      .attend_prepare = launch_attend_prepare,
      .attend = launch_attend,
  };
  return table;
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
