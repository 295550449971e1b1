#include "gpu/attend_decode.hpp"
#include "gpu/attend_prefill.hpp"
#include "gpu/attend_prepare.hpp"
#include "gpu/launchers.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {
namespace {

std::uint32_t blocks_for(std::int64_t n, std::int64_t of_block) {
  return static_cast<std::uint32_t>((n + of_block - 1) / of_block);
}

// Query heads of a block. Long heads take more shared memory.
int decode_heads(const gpu::attend_shape& shape) {
  const int sharing = shape.n_head / shape.n_head_kv;
  const bool is_long = shape.key_length > 256 || shape.value_length > 256;
  return sharing == 1 ? 1 : sharing <= 4 || is_long ? 4 : 8;
}

decode_plan plan_decode(const gpu::attend_args& args, int heads) {
  constexpr int most_staged = 40 * 1024;  // so that a multiprocessor has some blocks
  const gpu::attend_shape& shape = args.shape;
  decode_plan plan{};
  plan.passes = (shape.n_head / shape.n_head_kv + heads - 1) / heads;
  plan.key = row_size::of(args.cache.key_type, shape.key_length);
  plan.value = row_size::of(args.cache.value_type, shape.value_length);
  const int bytes = plan.key.bytes() + plan.value.bytes();
  plan.tile = page_tokens;
  while (plan.tile > aligned_rows && plan.tile * bytes > most_staged) plan.tile /= 2;
  plan.query_floats = (shape.key_length + unit_values - 1) / unit_values * unit_values;
  plan.query_sets = args.q_turned != nullptr ? 2 : 1;
  const int results = (decode_threads * unit_values + heads * shape.value_length) * 4;
  plan.staged_bytes = plan.tile * bytes > results ? plan.tile * bytes : results;
  return plan;
}

template <int Heads, int Units>
void launch_decode_of(const gpu::launch_target& target, const gpu::attend_args& args) {
  const decode_plan plan = plan_decode(args, Heads);
  const grid_size grid{static_cast<std::uint32_t>(args.splits),
                       static_cast<std::uint32_t>(args.shape.n_head_kv * plan.passes),
                       static_cast<std::uint32_t>(args.tokens)};
  const auto shared = static_cast<std::size_t>(plan.staged_at(Heads) * 4 + plan.staged_bytes);
  launch<attend_decode<Heads, Units>>(target, grid, decode_threads, shared, args, plan);
}

// Queries of more columns or heads than this do not fit the registers.
void launch_decode(const gpu::launch_target& target, const gpu::attend_args& args) {
  const bool fits = args.shape.key_length <= 2 * team_lanes * unit_values;
  switch (decode_heads(args.shape)) {
    case 1:
      return fits ? launch_decode_of<1, 2>(target, args) : launch_decode_of<1, 0>(target, args);
    case 4:
      return fits ? launch_decode_of<4, 2>(target, args) : launch_decode_of<4, 0>(target, args);
    default:
      return launch_decode_of<8, 0>(target, args);
  }
}

template <int RowTiles, int ColumnTiles>
void launch_prefill_of(const gpu::launch_target& target, const gpu::attend_args& args) {
  constexpr int rows = RowTiles * tile_size;
  const gpu::attend_shape& shape = args.shape;
  const int sharing = shape.n_head / shape.n_head_kv;
  prefill_plan plan{};
  plan.heads = sharing < rows ? sharing : rows;
  plan.passes = (sharing + plan.heads - 1) / plan.heads;
  plan.tokens = rows / plan.heads;
  plan.key_columns = (shape.key_length + tile_size - 1) / tile_size * tile_size;
  plan.value_columns = (shape.value_length + tile_size - 1) / tile_size * tile_size;
  plan.key = row_size::of(args.cache.key_type, shape.key_length);
  plan.value = row_size::of(args.cache.value_type, shape.value_length);
  const grid_size grid{blocks_for(args.tokens, plan.tokens),
                       static_cast<std::uint32_t>(shape.n_head_kv * plan.passes)};
  launch<attend_prefill<RowTiles, ColumnTiles>>(
      target, grid, prefill_threads, prefill_shared<rows>::bytes(plan, shape.value_length), args,
      plan);
}

void launch_prefill(const gpu::launch_target& target, const gpu::attend_args& args) {
  const int key = args.shape.key_length, value = args.shape.value_length;
  if (key <= 192 && value <= 64) return launch_prefill_of<4, 4>(target, args);
  if (key <= 192 && value <= 128) return launch_prefill_of<4, 8>(target, args);
  if (key <= 256 && value <= 256) return launch_prefill_of<2, 8>(target, args);
  launch_prefill_of<1, 8>(target, args);
}

bool is_f32(std::int32_t type) {
  return static_cast<kv_type>(type) == kv_type::f32;
}

}  // namespace

void launch_rope(const gpu::launch_target& target, const gpu::rope_args& args) {
  if (args.tokens == 0 || args.n == 0) return;
  launch<rope_tables>(target, {blocks_for(args.tokens * args.n, rope_threads)}, rope_threads, 0,
                      args);
}

void launch_attend_prepare(const gpu::launch_target& target, const gpu::attend_prepare_args& args) {
  if (args.tokens == 0) return;
  const gpu::attend_shape& shape = args.shape;
  const int warps = prepare_threads / target.facts->warp;
  const grid_size grid{blocks_for(shape.n_head + 2 * shape.n_head_kv, warps),
                       static_cast<std::uint32_t>(args.tokens)};
  const auto shared = static_cast<std::size_t>(warps * prepared_head_floats(shape) * 4);
  launch<prepare_heads>(target, grid, prepare_threads, shared, args,
                        row_size::of(args.cache.key_type, shape.key_length),
                        row_size::of(args.cache.value_type, shape.value_length));
}

// Tiles round queries to halves, so keys and values that are floats do without them.
void launch_attend(const gpu::launch_target& target, const gpu::attend_args& args) {
  if (args.tokens == 0) return;
  const bool floats = is_f32(args.cache.key_type) || is_f32(args.cache.value_type);
  if (args.run_tokens >= prefill_run && args.tokens >= prefill_run && !floats) {
    return launch_prefill(target, args);
  }
  launch_decode(target, args);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
