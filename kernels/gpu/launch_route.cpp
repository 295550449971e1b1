#include "gpu/launchers.hpp"
#include "gpu/route.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

void launch_route(const gpu::launch_target& target, const gpu::route_args& args) {
  if (args.rows == 0) return;
  const std::int64_t rows_of_block = route_threads / target.facts->warp;
  const std::int64_t blocks = (args.rows + rows_of_block - 1) / rows_of_block;
  launch<route_rows>(target, {static_cast<std::uint32_t>(blocks)}, route_threads, 0, args);
}

void launch_group_pairs(const gpu::launch_target& target, const gpu::group_pairs_args& args) {
  launch<group_pairs>(target, {}, group_threads, group_pairs_shared(args.n_expert), args);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
