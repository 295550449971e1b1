// Mixture of experts: the router's choice, and products with the chosen experts' matrices.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "device/cpu_product.hpp"
#include "device/cpu_step_maker.hpp"
#include "device/work_queue.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// x -> softmax(x) in place
void softmax(float* x, std::int64_t n) {
  const float greatest = *std::max_element(x, x + n);
  float sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - greatest);
  for (std::int64_t i = 0; i < n; ++i) x[i] /= sum;
}

// Indices of the n_used greatest, in order; the lower index first at a tie. Always valid indices,
// whatever the logits are.
void choose(const float* logits, std::int64_t n, std::int64_t n_used, std::int32_t* chosen) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t at = count;
    while (at > 0 && logits[i] > logits[chosen[at - 1]]) --at;
    if (at == n_used) continue;
    count = std::min(count + 1, n_used);
    for (std::int64_t j = count - 1; j > at; --j) chosen[j] = chosen[j - 1];
    chosen[at] = static_cast<std::int32_t>(i);
  }
}

class cpu_route final : public cpu_step {
 public:
  cpu_route(const route_step& s, cpu_buffer<float> logits, cpu_buffer<std::int32_t> selection,
            cpu_buffer<float> weights, const cpu_program_memory& memory)
      : kind_(s.kind),
        normalise_(s.normalise),
        scale_(s.scale),
        logits_(logits),
        selection_(selection),
        weights_(weights),
        memory_(memory) {}

  void run(const cpu_run& state, int thread) const override {
    const index_range rows = share(state.rows(logits_.rows), thread, state.threads(), 1);
    float* const scratch = memory_.threads[static_cast<std::size_t>(thread)].row;
    for (std::int64_t t = rows.begin; t < rows.end; ++t) route(t, scratch);
  }

 private:
  void route(std::int64_t t, float* p) const {
    const std::int64_t n = logits_.width, n_used = weights_.width;
    const float* const logits = logits_.row(t);
    std::int32_t* const chosen = selection_.row(t);
    float* const w = weights_.row(t);
    choose(logits, n, n_used, chosen);
    std::copy_n(logits, n, p);
    if (kind_ == route_kind::softmax_then_top) softmax(p, n);
    for (std::int64_t i = 0; i < n_used; ++i) w[i] = p[chosen[i]];
    if (kind_ == route_kind::top_then_softmax) softmax(w, n_used);
    float sum = 1;
    if (normalise_) {
      sum = 0;
      for (std::int64_t i = 0; i < n_used; ++i) sum += w[i];
      // chosen experts may all have underflowed
      sum = std::max(sum, std::numeric_limits<float>::min());
    }
    for (std::int64_t i = 0; i < n_used; ++i) w[i] *= scale_ / sum;
  }

  route_kind kind_;
  bool normalise_;
  float scale_;
  cpu_buffer<float> logits_;
  cpu_buffer<std::int32_t> selection_;
  cpu_buffer<float> weights_;
  const cpu_program_memory& memory_;
};

struct expert_product {
  cpu_matrix matrix;
  cpu_buffer<float> out;
};

// A pair is a token and one of its slots. With many tokens the pairs are put in order of their
// expert, so that each expert's rows are read once; with one token each slot is a product of its
// own.
class cpu_expert_matmul final : public cpu_step {
 public:
  cpu_expert_matmul(const cpu::kernel_table& kernels, cpu_buffer<float> in, bool in_per_slot,
                    cpu_buffer<std::int32_t> selection, std::vector<expert_product> products,
                    std::int64_t n_expert, const q8_buffer& q8, const cpu_program_memory& memory)
      : kernels_(kernels),
        in_(in),
        in_per_slot_(in_per_slot),
        selection_(selection),
        products_(std::move(products)),
        n_expert_(n_expert),
        q8_(q8),
        experts_(products_[0].matrix.experts()),
        memory_(memory),
        columns_(in_per_slot ? in.width / selection.width : in.width) {
    for (const expert_product& p : products_) {
      (p.matrix.takes_q8() ? needs_q8_ : needs_f32_) = true;
    }
    if (experts_) wanted_.reserve(static_cast<std::size_t>(n_expert));
  }

  bool meets_inside(bool single) const override { return !single || needs_q8_ || experts_; }

  void begin() override { queue_.reset(); }

  void run(const cpu_run& state, int thread) const override {
    if (state.single()) {
      run_single(state, thread);
    } else {
      run_grouped(state, thread);
    }
  }

 private:
  std::int64_t n_used() const { return selection_.width; }

  void run_single(const cpu_run& state, int thread) const {
    const std::int64_t rows = state.rows(in_.rows);
    if (experts_ && thread == 0) {
      experts_->ask({selection_.data, static_cast<std::size_t>(rows * n_used())}, false);
    }
    if (needs_q8_) {
      const std::int64_t n = rows * (in_per_slot_ ? n_used() : 1);
      quantise_part(kernels_, in_.data, n, columns_, thread, state.threads(), q8_);
    }
    if (needs_q8_ || experts_) state.team->barrier();
    if (rows == 0) return;
    const activation_rows x{view_of(q8_, columns_), in_.data, columns_};
    const thread_scratch& mine = memory_.threads[static_cast<std::size_t>(thread)];
    take_pieces(state, thread, n_used(), 1,
                [&](const expert_product& p, std::int64_t slot, index_range some) {
                  float* const out = p.out.data + slot * p.matrix.rows() + some.begin;
                  p.matrix.multiply(selection_.data[slot], some, x.from(in_per_slot_ ? slot : 0), 1,
                                    {out, p.out.width, false}, mine);
                });
  }

  void run_grouped(const cpu_run& state, int thread) const {
    const std::int64_t pairs = state.rows(in_.rows) * n_used();
    if (thread == 0) {
      group(pairs);
      if (experts_) ask_for_grouped(pairs);
    }
    state.team->barrier();
    gather(share(pairs, thread, state.threads(), 1));
    state.team->barrier();
    const activation_rows x{view_of(q8_, columns_), memory_.normed, columns_};
    const thread_scratch& mine = memory_.threads[static_cast<std::size_t>(thread)];
    take_pieces(state, thread, n_expert_, pairs,
                [&](const expert_product& p, std::int64_t expert, index_range rows) {
                  multiply_expert(p, x, expert, rows, mine);
                });
  }

  // f(product, matrix, rows) for the pieces of this thread; `matrices`: slots of one token, or all
  // experts; tokens: that all of them get together.
  template <typename F>
  void take_pieces(const cpu_run& state, int thread, std::int64_t matrices, std::int64_t tokens,
                   F&& f) const {
    const auto parts = [&](const expert_product& p) {
      const std::int64_t rows = p.matrix.part(tokens).rows;
      return (p.matrix.rows() + rows - 1) / rows;
    };
    std::int64_t pieces = 0;
    for (const expert_product& p : products_) pieces += matrices * parts(p);
    queue_.take(pieces, thread, state.threads(), [&](std::int64_t piece) {
      for (const expert_product& p : products_) {
        const std::int64_t n = parts(p);
        if (piece < matrices * n) {
          const std::int64_t first = piece % n * p.matrix.part(tokens).rows;
          const std::int64_t end = std::min(first + p.matrix.part(tokens).rows, p.matrix.rows());
          return f(p, piece / n, index_range{first, end});
        }
        piece -= matrices * n;
      }
    });
  }

  // Counting sort of the pairs by expert.
  void group(std::int64_t pairs) const {
    std::int32_t* const start = memory_.pair_start;
    std::fill_n(start, n_expert_ + 1, 0);
    for (std::int64_t i = 0; i < pairs; ++i) ++start[selection_.data[i] + 1];
    for (std::int64_t e = 0; e < n_expert_; ++e) start[e + 1] += start[e];
    for (std::int64_t i = 0; i < pairs; ++i) {
      memory_.pair_order[start[selection_.data[i]]++] = static_cast<std::int32_t>(i);
    }
    // each start has moved to its end, which is the next one's start
    for (std::int64_t e = n_expert_; e > 0; --e) start[e] = start[e - 1];
    start[0] = 0;
  }

  // In the order in which they are multiplied.
  void ask_for_grouped(std::int64_t pairs) const {
    const bool passing = pairs > n_expert_;
    wanted_.clear();
    for (std::int32_t e = 0; e < n_expert_; ++e) {
      if (memory_.pair_start[e] < memory_.pair_start[e + 1]) wanted_.push_back(e);
    }
    experts_->ask(wanted_, passing);
  }

  // Brings the inputs of pairs at [range] of the order together.
  void gather(index_range range) const {
    for (std::int64_t i = range.begin; i < range.end; ++i) {
      const std::int64_t pair = memory_.pair_order[i];
      const float* const from = in_.data + (in_per_slot_ ? pair : pair / n_used()) * columns_;
      if (needs_q8_) quantise_row(kernels_, from, columns_, q8_, i);
      if (needs_f32_) std::copy_n(from, columns_, memory_.normed + i * columns_);
    }
  }

  void multiply_expert(const expert_product& p, const activation_rows& x, std::int64_t expert,
                       index_range rows, const thread_scratch& mine) const {
    const std::int64_t end = memory_.pair_start[expert + 1];
    const std::int64_t part = p.matrix.part(end - memory_.pair_start[expert]).tokens;
    for (std::int64_t i = memory_.pair_start[expert]; i < end; i += part) {
      const index_range some{i, std::min(i + part, end)};
      p.matrix.multiply(expert, rows, x.from(i), some.size(), {mine.tile, rows.size(), false},
                        mine);
      scatter(p, rows, some, mine.tile);
    }
  }

  void scatter(const expert_product& p, index_range rows, index_range pairs,
               const float* tile) const {
    for (std::int64_t i = pairs.begin; i < pairs.end; ++i) {
      const float* const from = tile + (i - pairs.begin) * rows.size();
      float* const to = p.out.data + memory_.pair_order[i] * p.matrix.rows() + rows.begin;
      std::copy_n(from, rows.size(), to);
    }
  }

  const cpu::kernel_table& kernels_;
  cpu_buffer<float> in_;
  bool in_per_slot_;
  cpu_buffer<std::int32_t> selection_;
  std::vector<expert_product> products_;
  std::int64_t n_expert_;
  bool needs_q8_ = false, needs_f32_ = false;
  q8_buffer q8_;
  expert_source* experts_;
  const cpu_program_memory& memory_;
  std::int64_t columns_;
  mutable work_queue queue_;
  mutable std::vector<std::int32_t> wanted_;  // room for all, if they are asked for
};

}  // namespace

cpu_step_maker::made cpu_step_maker::make(const route_step& s) {
  return std::make_unique<cpu_route>(s, buffer(s.logits), buffer<std::int32_t>(s.selection),
                                     buffer(s.weights), memory_);
}

cpu_step_maker::made cpu_step_maker::make(const expert_matmul_step& s) {
  std::vector<expert_product> products;
  for (const linear& l : s.outputs) {
    products.push_back({cpu_matrix(l, kernels_, activations_), buffer(l.out)});
  }
  const auto n_expert = static_cast<std::int64_t>(s.outputs[0].matrix->shape.extent[2]);
  return std::make_unique<cpu_expert_matmul>(kernels_, buffer(s.in), s.in_per_slot,
                                             buffer<std::int32_t>(s.selection), std::move(products),
                                             n_expert, next_q8(), memory_);
}

}  // namespace nibble::inline NIBBLE_ABI
