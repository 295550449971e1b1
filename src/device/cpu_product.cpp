#include "device/cpu_product.hpp"

#include <algorithm>
#include <nibble/formats/dot.hpp>
#include <nibble/formats/list.hpp>

#include "device/cpu_weights.hpp"

namespace nibble::inline NIBBLE_ABI {

static_assert(cpu::q8_stretch == activation_stretch);

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

void quantise_part(const cpu::kernel_table& kernels, const float* x, std::int64_t rows,
                   std::int64_t columns, int thread, int threads, const q8_buffer& to) {
  const std::int64_t stretches = (columns + cpu::q8_stretch - 1) / cpu::q8_stretch;
  const index_range mine = share(rows * stretches, thread, threads, 1);
  for (std::int64_t i = mine.begin; i < mine.end; ++i) {
    const std::int64_t column = i % stretches * cpu::q8_stretch;
    const std::int64_t n = std::min(cpu::q8_stretch, columns - column);
    const std::int64_t at = i / stretches * columns + column;
    kernels.quantise_q8(x + at, n, to.q + at, to.scale + at / 32, to.sum + at / 16);
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
      experts_(l.matrix->experts),
      in_expert_(l.matrix->in_expert),
      row_bytes_(row_bytes(l.matrix->format, l.matrix->shape.columns())),
      matrix_bytes_(l.matrix->matrix_bytes),
      rows_(static_cast<std::int64_t>(l.matrix->shape.extent[1])),
      columns_(static_cast<std::int64_t>(l.matrix->shape.columns())),
      bias_(l.bias ? reinterpret_cast<const float*>(l.bias->data) : nullptr),
      scale_(l.scale ? reinterpret_cast<const float*>(l.scale->data) : nullptr) {
  const auto index = static_cast<std::size_t>(*format_index(l.matrix->format));
  q8_ = nibble::takes_q8(l.matrix->format, activations) ? kernels.matmul_q8[index] : nullptr;
  f32_ = kernels.matmul_f32[index];
}

part_size cpu_matrix::part(std::int64_t tokens) const noexcept {
  if (tokens > cpu::few_tokens) return takes_q8() ? q8_part : f32_part;
  // rows are read once anyway
  const auto rows = static_cast<std::int64_t>(few_tokens_bytes / row_bytes_);
  return {std::clamp(rows / share_unit, std::int64_t{1}, q8_part.rows / share_unit) * share_unit,
          cpu::few_tokens};
}

void cpu_matrix::multiply(std::int64_t which, index_range range, const activation_rows& x,
                          std::int64_t tokens, cpu::product_output to,
                          const thread_scratch& scratch) const {
  const std::int64_t n = range.size();
  // what is scaled, and what a kernel cannot add, waits in the tile
  const bool aside = to.accumulate && (scale_ || !q8_);
  const cpu::product_output out = aside ? cpu::product_output{scratch.tile, n, false} : to;
  const std::byte* const first = matrix(which) + static_cast<std::size_t>(range.begin) * row_bytes_;
  if (q8_) {
    q8_({first, n}, x.q8, tokens, out, scratch.product);
  } else {
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
