// Parts of matrix products: a thread's rows times a group of tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/steps.hpp>

#include "cpu/kernel_table.hpp"
#include "device/cpu_program_memory.hpp"
#include "device/cpu_step.hpp"
#include "device/expert_source.hpp"

namespace nibble::inline NIBBLE_ABI {

// Rows of activations, in either or both forms.
struct activation_rows {
  cpu::q8_matrix q8{};
  const float* f32 = nullptr;
  std::int64_t columns = 0;

  activation_rows from(std::int64_t row) const;
};
// Row `row` and those after it.
cpu::q8_matrix rows_from(const cpu::q8_matrix& x, std::int64_t row);

inline cpu::q8_matrix view_of(const q8_buffer& b, std::int64_t columns) {
  return {b.q, b.scale, b.sum, columns};
}

// Quantises a thread's part of x, [rows, columns], into `to`.
void quantise_part(const cpu::kernel_table& kernels, const float* x, std::int64_t rows,
                   std::int64_t columns, int thread, int threads, const q8_buffer& to);
// Quantises one row of x into row `row` of `to`.
void quantise_row(const cpu::kernel_table& kernels, const float* x, std::int64_t columns,
                  const q8_buffer& to, std::int64_t row);

// One or more matrices of a weight, and how to multiply by them.
class cpu_matrix {
 public:
  cpu_matrix(const linear& l, const cpu::kernel_table& kernels, activation_type activations);

  std::int64_t rows() const noexcept { return rows_; }
  bool takes_q8() const noexcept { return q8_ != nullptr; }
  // What is best computed at a time of a product with so many tokens.
  part_size part(std::int64_t tokens) const noexcept;

  // Has the matrices of these experts brought, if they are not always in memory.
  expert_source* experts() const noexcept { return experts_; }

  // to.data[t * to.stride + r - range.begin] = scale * matrix[which] * x[t] + bias, or that is
  // added to what is there. At most tile_floats
  // results; range.begin is a multiple of share_unit.
  void multiply(std::int64_t which, index_range range, const activation_rows& x,
                std::int64_t tokens, cpu::product_output to, const thread_scratch& scratch) const;

 private:
  const std::byte* matrix(std::int64_t which) const {
    if (experts_) return experts_->wait(which) + in_expert_;
    return data_ + static_cast<std::size_t>(which) * matrix_bytes_;
  }

  const std::byte* data_;
  expert_source* experts_;
  std::size_t in_expert_;
  std::size_t row_bytes_, matrix_bytes_;
  std::int64_t rows_, columns_;
  const float* bias_;   // [matrices, rows] or null
  const float* scale_;  // one factor for the whole weight, or null
  cpu::matmul_q8_fn q8_;
  cpu::matmul_f32_fn f32_;
};

}  // namespace nibble::inline NIBBLE_ABI
