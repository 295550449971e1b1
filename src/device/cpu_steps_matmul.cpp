// out (+)= matrix * norm(in) + bias, for several matrices over one input.
#include <algorithm>
#include <optional>
#include <vector>

#include "device/cpu_product.hpp"
#include "device/cpu_step_maker.hpp"
#include "device/work_queue.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

struct product {
  cpu_matrix matrix;
  cpu_buffer<float> out;
};

// The pieces of a product. With many tokens a part of the rows comes with one part of the tokens
// after another, so that it is read from memory once; the kernels have blocks of their own inside.
struct product_pieces {
  part_size part;
  std::int64_t rows, token_parts, count;

  product_pieces(const cpu_matrix& m, std::int64_t tokens)
      : part(m.part(tokens)),
        rows(m.rows()),
        token_parts((tokens + part.tokens - 1) / part.tokens),
        count((rows + part.rows - 1) / part.rows * token_parts) {}

  index_range rows_of(std::int64_t piece) const {
    const std::int64_t first = piece / token_parts * part.rows;
    return {first, std::min(first + part.rows, rows)};
  }
  index_range tokens_of(std::int64_t piece, std::int64_t tokens) const {
    const std::int64_t first = piece % token_parts * part.tokens;
    return {first, std::min(first + part.tokens, tokens)};
  }
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

  bool meets_inside(bool single) const override { return norm_ ? !single : needs_q8_; }

  void begin() override { queue_.reset(); }

  void run(const cpu_run& state, int thread) const override {
    const std::int64_t tokens = state.rows(in_.rows);
    const activation_rows x = prepare(state, thread, tokens);
    const thread_scratch& mine = memory_.threads[static_cast<std::size_t>(thread)];
    std::int64_t pieces = 0;
    for (const product& p : products_) pieces += product_pieces(p.matrix, tokens).count;
    queue_.take(pieces, thread, state.threads(), [&](std::int64_t piece) {
      for (const product& p : products_) {
        const product_pieces of(p.matrix, tokens);
        if (piece < of.count) {
          return multiply(p, x, of.rows_of(piece), of.tokens_of(piece, tokens), mine);
        }
        piece -= of.count;
      }
    });
  }

 private:
  activation_rows prepare(const cpu_run& state, int thread, std::int64_t tokens) const {
    if (!norm_) return quantise(state, thread, tokens);
    return state.single() ? normalise_alone(thread, tokens) : normalise(state, thread, tokens);
  }

  activation_rows quantise(const cpu_run& state, int thread, std::int64_t tokens) const {
    if (needs_q8_) {
      quantise_part(kernels_, in_.data, tokens, in_.width, thread, state.threads(), q8_);
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

  void multiply(const product& p, const activation_rows& x, index_range rows, index_range tokens,
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
  mutable work_queue queue_;
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
