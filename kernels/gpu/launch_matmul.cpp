#include "gpu/experts.hpp"
#include "gpu/launchers.hpp"
#include "gpu/matmul_tile.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {
namespace {

std::int64_t divided(std::int64_t n, std::int64_t by) {
  return (n + by - 1) / by;
}

// What is multiplied, whatever the format and the shape of tiles.
struct tiled_products {
  gpu::q8_rows in;
  std::int64_t columns;
  row_choice choice;
  std::int64_t tokens;    // that a matrix usually meets
  std::int64_t matrices;  // that there are blocks for
  const gpu::product* products;
  std::int32_t n_products;
  bool accumulate;
};

template <typename Shape>
std::int64_t blocks_of(const tiled_products& what) {
  std::int64_t row_tiles = 0;
  for (std::int32_t i = 0; i < what.n_products; ++i) {
    row_tiles += divided(what.products[i].matrix.rows, Shape::rows);
  }
  return row_tiles * divided(what.tokens, Shape::tokens) * what.matrices;
}

template <typename Shape>
void launch_tiles(const gpu::launch_target& target, const tiled_products& what) {
  for_each_product_set(
      what.products, what.n_products, what.accumulate, Shape::rows,
      [&](std::int32_t format, const product_set& set) {
        const grid_size grid{static_cast<std::uint32_t>(divided(what.tokens, Shape::tokens)),
                             tiles_of(set), static_cast<std::uint32_t>(what.matrices)};
        with_format_at(format, [&]<typename F>(F) {
          if constexpr (block_format<F>) {
            launch<matmul_tiles<F, Shape>>(target, grid, matmul_threads,
                                           2 * sizeof(matmul_stage<F, Shape>), what.in,
                                           what.columns, what.choice, set);
          }
        });
      });
}

// The greatest shape that is not mostly empty and gives every multiprocessor a block.
void launch_tiles(const gpu::launch_target& target, const tiled_products& what) {
  const std::int64_t wanted = target.facts->multiprocessors;
  if (what.tokens > medium_shape::tokens && blocks_of<wide_shape>(what) >= wanted) {
    launch_tiles<wide_shape>(target, what);
  } else if (what.tokens > narrow_shape::tokens) {
    launch_tiles<medium_shape>(target, what);
  } else {
    launch_tiles<narrow_shape>(target, what);
  }
}

// Each pair alone.
void launch_pairs(const gpu::launch_target& target, const gpu::expert_args& args,
                  const row_choice& choice) {
  for_each_product_set(args.products, args.n_products, false, expert_rows_of_block(*target.facts),
                       [&](std::int32_t format, const product_set& set) {
                         const grid_size grid{tiles_of(set), static_cast<std::uint32_t>(choice.n)};
                         with_format_at(format, [&]<typename F>(F) {
                           if constexpr (block_format<F>) {
                             launch<expert_rows<F>>(target, grid, expert_threads, 0, args.in,
                                                    args.columns, choice, set);
                           }
                         });
                       });
}

}  // namespace

void launch_matmul(const gpu::launch_target& target, const gpu::matmul_args& args) {
  if (args.tokens == 0) return;
  const row_choice choice{args.tokens, 1, nullptr, nullptr, nullptr};
  launch_tiles(target, {args.in, args.columns, choice, args.tokens, 1, args.products,
                        args.n_products, args.accumulate});
}

void launch_expert_matmul(const gpu::launch_target& target, const gpu::expert_args& args) {
  if (args.in.codes == nullptr) return launch_expert_matmul_f32(target, args);
  const row_choice choice = pairs_of(args);
  if (choice.n == 0) return;
  if (choice.selection != nullptr) return launch_pairs(target, args, choice);
  // what an expert gets on average; blocks of those that get more go on by themselves
  const std::int64_t usual = divided(choice.n, args.n_expert);
  launch_tiles(target, {args.in, args.columns, choice, usual, args.n_expert, args.products,
                        args.n_products, false});
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
