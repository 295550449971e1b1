// out (+)= matrix * norm(in) + bias, for several matrices over one input.
#include <algorithm>
#include <optional>
#include <vector>

#include "device/cpu_product.hpp"
#include "device/cpu_step_maker.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Blocking for many tokens. A panel of rows is read from memory once and then stays in the outer
// caches while all tokens pass; the kernels have their own blocks inside it.
constexpr std::int64_t panel_rows = 256;

struct product {
  cpu_matrix matrix;
  cpu_buffer<float> out;
};

class cpu_matmul final : public cpu_step {
 public:
  cpu_matmul(const cpu::kernel_table& kernels, cpu_buffer<float> in, std::optional<cpu_norm> norm,
             std::vector<product> products, bool accumulate, const q8_buffer& q8,
             const cpu_program_memory& memory)
      : kernels_(kernels),
        in_(in),
        norm_(norm),
        products_(std::move(products)),
        accumulate_(accumulate),
        q8_(q8),
        memory_(memory) {
    for (const product& p : products_) (p.matrix.takes_q8() ? needs_q8_ : needs_f32_) = true;
  }

  sharing enters(bool) const override {
    return norm_ || needs_f32_ ? sharing::other : sharing::columns;
  }
  sharing leaves(bool) const override { return sharing::columns; }
  bool meets_inside(bool single) const override { return norm_ ? !single : needs_q8_; }

  void run(const cpu_run& state, int thread) const override {
    const std::int64_t tokens = state.rows(in_.rows);
    const activation_rows x = prepare(state, thread, tokens);
    const thread_scratch& mine = memory_.threads[static_cast<std::size_t>(thread)];
    for (const product& p : products_) {
      const index_range rows = share(p.matrix.rows(), thread, state.threads());
      if (tokens == 1) {
        multiply_one(p, x, rows, mine);
      } else {
        multiply_many(p, x, rows, tokens, mine);
      }
    }
  }

 private:
  activation_rows prepare(const cpu_run& state, int thread, std::int64_t tokens) const {
    if (!norm_) return quantise(state, thread, tokens);
    return state.single() ? normalise_alone(thread, tokens) : normalise(state, thread, tokens);
  }

  activation_rows quantise(const cpu_run& state, int thread, std::int64_t tokens) const {
    if (needs_q8_) {
      const index_range columns = share(in_.width, thread, state.threads());
      quantise_columns(kernels_, in_.data, tokens, in_.width, columns, q8_);
      state.team->barrier();
    }
    return {view_of(q8_, in_.width), in_.data, in_.width};
  }

  // Every thread the same row for itself: shorter than waiting.
  activation_rows normalise_alone(int thread, std::int64_t tokens) const {
    const thread_scratch& mine = memory_.threads[static_cast<std::size_t>(thread)];
    if (tokens == 1) {
      kernels_.rms_norm(in_.data, norm_->gain, norm_->epsilon, in_.width, mine.row);
      if (needs_q8_) quantise_row(kernels_, mine.row, in_.width, mine.q8, 0);
    }
    return {view_of(mine.q8, in_.width), mine.row, in_.width};
  }

  activation_rows normalise(const cpu_run& state, int thread, std::int64_t tokens) const {
    const thread_scratch& mine = memory_.threads[static_cast<std::size_t>(thread)];
    const index_range rows = share(tokens, thread, state.threads(), 1);
    for (std::int64_t t = rows.begin; t < rows.end; ++t) {
      float* const to = needs_f32_ ? memory_.normed + t * in_.width : mine.row;
      kernels_.rms_norm(in_.row(t), norm_->gain, norm_->epsilon, in_.width, to);
      if (needs_q8_) quantise_row(kernels_, to, in_.width, q8_, t);
    }
    state.team->barrier();
    return {view_of(q8_, in_.width), memory_.normed, in_.width};
  }

  void multiply_one(const product& p, const activation_rows& x, index_range rows,
                    const thread_scratch& mine) const {
    for (std::int64_t r = rows.begin; r < rows.end; r += tile_floats) {
      part(p, x, {r, std::min(r + tile_floats, rows.end)}, {0, 1}, mine);
    }
  }

  void multiply_many(const product& p, const activation_rows& x, index_range rows,
                     std::int64_t tokens, const thread_scratch& mine) const {
    const part_size size = p.matrix.part();
    for (std::int64_t panel = rows.begin; panel < rows.end; panel += panel_rows) {
      const std::int64_t panel_end = std::min(panel + panel_rows, rows.end);
      for (std::int64_t t = 0; t < tokens; t += size.tokens) {
        const index_range some{t, std::min(t + size.tokens, tokens)};
        for (std::int64_t r = panel; r < panel_end; r += size.rows) {
          part(p, x, {r, std::min(r + size.rows, panel_end)}, some, mine);
        }
      }
    }
  }

  void part(const product& p, const activation_rows& x, index_range rows, index_range tokens,
            const thread_scratch& mine) const {
    float* const out = p.out.row(tokens.begin) + rows.begin;
    p.matrix.multiply(0, rows, x.from(tokens.begin), tokens.size(), {out, p.out.width, accumulate_},
                      mine);
  }

  const cpu::kernel_table& kernels_;
  cpu_buffer<float> in_;
  std::optional<cpu_norm> norm_;
  std::vector<product> products_;
  bool accumulate_;
  bool needs_q8_ = false, needs_f32_ = false;
  q8_buffer q8_;
  const cpu_program_memory& memory_;
};

}  // namespace

cpu_step_maker::made cpu_step_maker::make(const matmul_step& s) {
  std::vector<product> products;
  for (const linear& l : s.outputs) {
    products.push_back({cpu_matrix(l, kernels_, activations_), buffer(l.out)});
  }
  std::optional<cpu_norm> normed;
  if (s.norm) normed = norm(*s.norm);
  return std::make_unique<cpu_matmul>(kernels_, buffer(s.in), normed, std::move(products),
                                      s.accumulate, next_q8(), memory_);
}

}  // namespace nibble::inline NIBBLE_ABI
