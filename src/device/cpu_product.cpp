#include "device/cpu_product.hpp"

#include <algorithm>
#include <nibble/formats/list.hpp>

#include "device/cpu_weights.hpp"

namespace nibble::inline NIBBLE_ABI {

activation_rows activation_rows::from(std::int64_t row) const {
  activation_rows out = *this;
  if (q8.q) out.q8 = rows_from(q8, row);
  if (f32) out.f32 = f32 + row * columns;
  return out;
}

cpu::q8_matrix rows_from(const cpu::q8_matrix& x, std::int64_t row) {
  const std::int64_t skipped = row * x.columns;
  return {x.q + skipped, x.scale + skipped / 32, x.sum + skipped / 16, x.columns};
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
      strip_rows_(kernels.strip_rows),
      bias_(l.bias ? reinterpret_cast<const float*>(l.bias->data) : nullptr),
      scale_(l.scale ? reinterpret_cast<const float*>(l.scale->data) : nullptr) {
  const auto index = static_cast<std::size_t>(*format_index(l.matrix->format));
  q8_ = nibble::takes_q8(l.matrix->format, activations) ? kernels.matmul_q8[index] : nullptr;
  f32_ = kernels.matmul_f32[index];
}

void cpu_matrix::multiply_q8(const std::byte* matrix, index_range range, const cpu::q8_matrix& x,
                             std::int64_t tokens, cpu::product_output to,
                             std::byte* scratch) const {
  const auto strip_at = [&](std::int64_t row) {
    return matrix + static_cast<std::size_t>(row) * row_bytes_;
  };
  // rows that start inside a strip: of the experts of one token, where their rows are no multiple
  if (const std::int64_t before = range.begin % strip_rows_; before > 0) {
    const std::int64_t strip = range.begin - before;
    const std::int64_t end = std::min(strip + strip_rows_, range.end);
    for (std::int64_t t = 0; t < tokens; ++t) {
      float some[cpu::max_strip_rows];
      q8_({strip_at(strip), end - strip}, rows_from(x, t), 1, {some, 0, false}, scratch);
      float* const out = to.data + t * to.stride;
      for (std::int64_t r = range.begin; r < end; ++r) {
        float& result = out[r - range.begin];
        result = some[r - strip] + (to.accumulate ? result : 0.0f);
      }
    }
    to.data += end - range.begin;
    range.begin = end;
  }
  if (range.size() > 0) q8_({strip_at(range.begin), range.size()}, x, tokens, to, scratch);
}

void cpu_matrix::multiply(std::int64_t which, index_range range, const activation_rows& x,
                          std::int64_t tokens, cpu::product_output to,
                          const thread_scratch& scratch) const {
  const std::byte* const matrix = data_ + static_cast<std::size_t>(which) * matrix_bytes_;
  const std::int64_t n = range.size();
  // what is scaled, and what a kernel cannot add, waits in the tile
  const bool aside = to.accumulate && (scale_ || !q8_);
  const cpu::product_output out = aside ? cpu::product_output{scratch.tile, n, false} : to;
  if (q8_) {
    multiply_q8(matrix, range, x.q8, tokens, out, scratch.product);
  } else {
    const std::byte* const first = matrix + static_cast<std::size_t>(range.begin) * row_bytes_;
    f32_({first, row_bytes_, n, columns_}, x.f32, x.columns, tokens, out.data, out.stride);
  }
  const float* const bias = bias_ ? bias_ + which * rows_ + range.begin : nullptr;
  if (!aside && !scale_ && !bias) return;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* const from = out.data + t * out.stride;
    float* const result = to.data + t * to.stride;
    for (std::int64_t i = 0; i < n; ++i) {
      float value = from[i];
      if (scale_) value *= *scale_;
      if (bias) value += bias[i];
      result[i] = aside ? result[i] + value : value;
    }
  }
}

}  // namespace nibble::inline NIBBLE_ABI
