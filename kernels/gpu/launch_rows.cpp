#include "gpu/launchers.hpp"
#include "gpu/products.hpp"
#include "gpu/rows.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

namespace {

std::uint32_t parts_of(std::int64_t columns, std::int64_t columns_each) {
  return static_cast<std::uint32_t>((columns + columns_each - 1) / columns_each);
}

grid_size row_grid(std::int64_t rows, std::int64_t columns, std::int64_t columns_each) {
  return {static_cast<std::uint32_t>(rows), parts_of(columns, columns_each)};
}

// Columns that a block does at once: few, for few rows to keep the whole device busy.
std::int64_t columns_for(const gpu::launch_target& target, std::int64_t rows,
                         std::int64_t columns) {
  const bool many = rows >= target.facts->multiprocessors;
  return many ? std::max<std::int64_t>(columns, 1) : quantised_columns;
}

template <bool adds>
void launch_transform_rows(const gpu::launch_target& target, const gpu::input_rows& in,
                           std::int64_t rows, float* out) {
  if (rows == 0) return;
  const std::int64_t each =
      in.kind == gpu::input_kind::norm ? in.columns : columns_for(target, rows, in.columns);
  launch<transform_rows<adds>>(target, row_grid(rows, in.columns, each), row_threads,
                               sizeof(row_scratch), in, out, each);
}

}  // namespace

void launch_quantise(const gpu::launch_target& target, const gpu::quantise_args& args) {
  if (args.rows == 0) return;
  // a whole row is one part, whether or not it ends with a stretch
  const std::int64_t each = columns_for(target, args.rows, args.in.columns);
  launch<quantise_rows>(target, row_grid(args.rows, args.in.columns, each), row_threads,
                        sizeof(row_scratch), args, each);
}

void launch_transform(const gpu::launch_target& target, const gpu::transform_args& args) {
  launch_transform_rows<false>(target, args.in, args.rows, args.out);
}

void launch_add(const gpu::launch_target& target, const gpu::add_args& args) {
  launch_transform_rows<true>(target, args.in, args.rows, args.out);
}

void launch_embed(const gpu::launch_target& target, const gpu::embed_args& args) {
  if (args.rows == 0) return;
  constexpr std::int64_t columns_each = embed_threads * layout_columns;
  with_format_at(args.table.format, [&]<typename F>(F) {
    launch<embed_rows<F>>(target, row_grid(args.rows, args.table.columns, columns_each),
                          embed_threads, 0, args);
  });
}

void launch_combine(const gpu::launch_target& target, const gpu::combine_args& args) {
  if (args.rows == 0) return;
  launch<combine_rows>(target, row_grid(args.rows, args.width, simple_threads), simple_threads, 0,
                       args);
}

void launch_select(const gpu::launch_target& target, const gpu::select_args& args) {
  if (args.rows == 0) return;
  launch<select_rows>(target, row_grid(args.rows, args.width, simple_threads), simple_threads, 0,
                      args);
}

void launch_softcap(const gpu::launch_target& target, const gpu::softcap_args& args) {
  if (args.n == 0) return;
  launch<softcap_values>(target, {parts_of(args.n, simple_threads)}, simple_threads, 0, args);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
