#include "device/cpu_product.hpp"

#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {

activation_rows activation_rows::from(std::int64_t row) const {
  activation_rows out = *this;
  const std::int64_t skipped = row * columns;
  if (q8.q) {
    out.q8 = {q8.q + skipped, q8.scale + skipped / 32, q8.sum + skipped / 16, columns};
  }
  if (f32) out.f32 = f32 + skipped;
  return out;
}

void quantise_columns(const cpu::kernel_table& kernels, const float* x, std::int64_t rows,
                      std::int64_t columns, index_range range, const q8_buffer& to) {
  if (range.size() == 0) return;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t at = i * columns + range.begin;
    kernels.quantise_q8(x + at, range.size(), to.q + at, to.scale + at / 32, to.sum + at / 16);
  }
}

void quantise_row(const cpu::kernel_table& kernels, const float* x, std::int64_t columns,
                  const q8_buffer& to, std::int64_t row) {
  const std::int64_t at = row * columns;
  kernels.quantise_q8(x, columns, to.q + at, to.scale + at / 32, to.sum + at / 16);
}

cpu_matrix::cpu_matrix(const linear& l, const cpu::kernel_table& kernels,
                       activation_type activations)
    : data_(l.matrix->data),
      row_bytes_(row_bytes(l.matrix->format, l.matrix->shape.columns())),
      matrix_bytes_(l.matrix->matrix_bytes),
      rows_(static_cast<std::int64_t>(l.matrix->shape.extent[1])),
      columns_(static_cast<std::int64_t>(l.matrix->shape.columns())),
      bias_(l.bias ? reinterpret_cast<const float*>(l.bias->data) : nullptr),
      scale_(l.scale ? reinterpret_cast<const float*>(l.scale->data) : nullptr) {
  const auto index = static_cast<std::size_t>(*format_index(l.matrix->format));
  q8_ = nibble::takes_q8(*l.matrix, activations) ? kernels.matmul_q8[index] : nullptr;
  f32_ = kernels.matmul_f32[index];
}

void cpu_matrix::multiply(std::int64_t which, index_range range, const activation_rows& x,
                          std::int64_t tokens, float* to, std::int64_t stride) const {
  const std::byte* const first = data_ + static_cast<std::size_t>(which) * matrix_bytes_ +
                                 static_cast<std::size_t>(range.begin) * row_bytes_;
  const cpu::weight_rows rows{first, row_bytes_, range.size(), columns_};
  if (q8_) {
    q8_(rows, x.q8, tokens, to, stride);
  } else {
    f32_(rows, x.f32, x.columns, tokens, to, stride);
  }
  if (!scale_) return;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t i = 0; i < range.size(); ++i) to[t * stride + i] *= *scale_;
  }
}

}  // namespace nibble::inline NIBBLE_ABI
