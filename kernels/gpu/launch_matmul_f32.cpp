#include "gpu/launchers.hpp"
#include "gpu/matmul_f32.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {
namespace {

// groups, matrices: of the second and third index of the grid
void launch_rows(const gpu::launch_target& target, std::int32_t format, const float* in,
                 std::int64_t columns, const row_choice& choice, const product_set& set,
                 std::int64_t groups, std::int64_t matrices) {
  const grid_size grid{tiles_of(set), static_cast<std::uint32_t>(groups),
                       static_cast<std::uint32_t>(matrices)};
  with_format_at(format, [&]<typename F>(F) {
    launch<matmul_f32_rows<F>>(target, grid, f32_row_threads, f32_row_shared(*target.facts), in,
                               columns, choice, set);
  });
}

// token_tiles: that the blocks start with
void launch_tiles(const gpu::launch_target& target, std::int32_t format, const float* in,
                  std::int64_t columns, const row_choice& choice, const product_set& set,
                  std::int64_t token_tiles, std::int64_t matrices) {
  const grid_size grid{static_cast<std::uint32_t>(token_tiles), tiles_of(set),
                       static_cast<std::uint32_t>(matrices)};
  with_format_at(format, [&]<typename F>(F) {
    launch<matmul_f32_tile<F>>(target, grid, f32_tile_threads, sizeof(f32_stage), in, columns,
                               choice, set);
  });
}

std::int64_t token_tiles(std::int64_t tokens) {
  return (tokens + f32_tile_tokens - 1) / f32_tile_tokens;
}

}  // namespace

void launch_matmul_f32(const gpu::launch_target& target, const gpu::matmul_f32_args& args) {
  if (args.tokens == 0) return;
  const bool few = args.tokens <= 2 * f32_row_tokens;
  const row_choice choice{args.tokens, 1, nullptr, nullptr, nullptr};
  for_each_product_set(
      args.products, args.n_products, args.accumulate,
      few ? f32_rows_of_block(*target.facts) : f32_tile_rows,
      [&](std::int32_t format, const product_set& set) {
        if (few) {
          const std::int64_t groups = (args.tokens + f32_row_tokens - 1) / f32_row_tokens;
          launch_rows(target, format, args.in, args.columns, choice, set, groups, 1);
        } else {
          launch_tiles(target, format, args.in, args.columns, choice, set, token_tiles(args.tokens),
                       1);
        }
      });
}

void launch_expert_matmul_f32(const gpu::launch_target& target, const gpu::expert_args& args) {
  const row_choice choice = pairs_of(args);
  if (choice.n == 0) return;
  const bool alone = choice.selection != nullptr;
  // what an expert gets on average; blocks of those that get more go on by themselves
  const std::int64_t usual = (choice.n + args.n_expert - 1) / args.n_expert;
  for_each_product_set(args.products, args.n_products, false,
                       alone ? f32_rows_of_block(*target.facts) : f32_tile_rows,
                       [&](std::int32_t format, const product_set& set) {
                         if (alone) {
                           launch_rows(target, format, args.in_f32, args.columns, choice, set, 1,
                                       choice.n);
                         } else {
                           launch_tiles(target, format, args.in_f32, args.columns, choice, set,
                                        token_tiles(usual), args.n_expert);
                         }
                       });
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
