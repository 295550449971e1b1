#include "gpu/launchers.hpp"
#include "gpu/matvec.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

namespace {

template <block_format F, int tokens>
void launch_tokens(const gpu::launch_target& target, const matvec_input& input,
                   const product_set& set) {
  const std::int32_t warps = row_threads / target.facts->warp;
  const std::int32_t wanted = (set.end_tile[set.n - 1] + warps - 1) / warps;
  if (wanted == 0) return;
  const std::int32_t blocks = std::min(wanted, target.facts->multiprocessors);
  const std::size_t shared =
      input.in.x == nullptr ? 0 : fused_input_bytes(input.tokens, input.columns);
  launch<multiply_vectors<F, tokens>>(target, {static_cast<std::uint32_t>(blocks)}, row_threads,
                                      shared, input, set);
}

}  // namespace

bool matvec_fits(const gpu::device_facts& facts, std::int32_t tokens, std::int64_t columns) {
  return tokens <= max_fused_tokens && tokens * columns <= max_fused_values &&
         fused_input_bytes(tokens, columns) <= static_cast<std::size_t>(facts.shared_default);
}

void launch_matvec(const gpu::launch_target& target, const gpu::matvec_args& args) {
  if (args.tokens == 0) return;
  const matvec_input input{args.in, args.ready, args.tokens, args.columns};
  for_each_product_set(args.products, args.n_products, args.accumulate, task_rows,
                       [&](std::int32_t format, const product_set& set) {
                         with_format_at(format, [&]<typename F>(F) {
                           if constexpr (block_format<F>) {
                             if (input.tokens <= 1) return launch_tokens<F, 1>(target, input, set);
                             if (input.tokens <= 2) return launch_tokens<F, 2>(target, input, set);
                             if (input.tokens <= 4) return launch_tokens<F, 4>(target, input, set);
                             launch_tokens<F, 8>(target, input, set);
                           }
                         });
                       });
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
