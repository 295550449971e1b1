// Shows what enters matrix products to an observer. These steps exist only where there is one.
#include <optional>
#include <variant>
#include <vector>

#include "device/cpu_step_maker.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

std::vector<const weight*> matrices_of(const std::vector<linear>& outputs) {
  std::vector<const weight*> matrices;
  for (const linear& l : outputs) matrices.push_back(l.matrix);
  return matrices;
}

// One thread does it all, and so in one order. That is little work beside a product, which goes
// over each row's input once for each of its own rows.
class cpu_observation final : public cpu_step {
 public:
  cpu_observation(matmul_observer& observer, std::vector<const weight*> matrices,
                  cpu_buffer<float> in)
      : observer_(observer), matrices_(std::move(matrices)), in_(in) {}

  void normalise(cpu_norm norm, const cpu::kernel_table& kernels, float* scratch) {
    norm_ = norm;
    kernels_ = &kernels;
    scratch_ = scratch;
  }
  void select(cpu_buffer<std::int32_t> selection, bool in_per_slot) {
    selection_ = selection;
    in_per_slot_ = in_per_slot;
  }

  void run(const cpu_run& state, int thread) const override {
    if (thread != 0) return;
    for (std::int64_t t = 0; t < state.rows(in_.rows); ++t) {
      if (selection_.data) {
        show_experts(t);
      } else {
        show(0, input(t), in_.width);
      }
    }
  }

 private:
  const float* input(std::int64_t t) const {
    if (!norm_) return in_.row(t);
    kernels_->rms_norm(in_.row(t), norm_->gain, norm_->epsilon, in_.width, scratch_);
    return scratch_;
  }

  void show_experts(std::int64_t t) const {
    const std::int64_t slots = selection_.width;
    const std::int64_t columns = in_per_slot_ ? in_.width / slots : in_.width;
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      const float* const x = in_.row(t) + (in_per_slot_ ? slot * columns : 0);
      show(selection_.row(t)[slot], x, columns);
    }
  }

  void show(std::int64_t which, const float* x, std::int64_t columns) const {
    for (const weight* matrix : matrices_) {
      observer_.observe(*matrix, which, {x, static_cast<std::size_t>(columns)});
    }
  }

  matmul_observer& observer_;
  std::vector<const weight*> matrices_;
  cpu_buffer<float> in_;
  std::optional<cpu_norm> norm_;
  const cpu::kernel_table* kernels_ = nullptr;
  float* scratch_ = nullptr;
  cpu_buffer<std::int32_t> selection_;  // of experts; null: the product has none
  bool in_per_slot_ = false;
};

}  // namespace

cpu_step_maker::made cpu_step_maker::make_observation(const step& s,
                                                      matmul_observer& observer) const {
  if (const auto* product = std::get_if<matmul_step>(&s)) {
    auto observation = std::make_unique<cpu_observation>(observer, matrices_of(product->outputs),
                                                         buffer(product->in));
    if (product->norm)
      observation->normalise(norm(*product->norm), kernels_, memory_.threads[0].row);
    return observation;
  }
  if (const auto* product = std::get_if<expert_matmul_step>(&s)) {
    auto observation = std::make_unique<cpu_observation>(observer, matrices_of(product->outputs),
                                                         buffer(product->in));
    observation->select(buffer<std::int32_t>(product->selection), product->in_per_slot);
    return observation;
  }
  return nullptr;
}

}  // namespace nibble::inline NIBBLE_ABI
