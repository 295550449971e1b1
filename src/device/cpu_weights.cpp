#include "device/cpu_weights.hpp"

#include <algorithm>
#include <cstring>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {

bool takes_q8(format_id format, activation_type activations) {
  return activations == activation_type::int8 &&
         with_format(format, []<typename F>(F) { return block_format<F>; });
}

std::uint64_t weight_packing::stored_rows(const tensor_view& tensor) const {
  const std::uint64_t rows = tensor.shape.extent[1];
  if (!takes_q8(tensor.format, activations_)) return rows;
  return align_up(rows, static_cast<std::uint64_t>(kernels_.strip_rows));
}

std::size_t weight_packing::bytes(const tensor_view& tensor) const {
  if (!has_format(tensor.format)) throw_unsupported(tensor.format);
  const shape& s = tensor.shape;
  if (s.elements() == 0) {
    throw error(errc::invalid_argument, concat("a weight of shape ", to_text(s), " is empty"));
  }
  const std::uint64_t matrices = s.rows() / s.extent[1];
  const auto rows = checked_mul(stored_rows(tensor), matrices);
  const auto bytes = rows ? checked_mul(row_bytes(tensor.format, s.columns()), *rows) : rows;
  if (!bytes) {
    throw error(errc::invalid_argument,
                concat("a weight of shape ", to_text(s), " has more bytes than can be counted"));
  }
  return align_up(*bytes, weight_alignment);
}

std::size_t weight_packing::matrix_bytes(const tensor_view& tensor) const {
  return row_bytes(tensor.format, tensor.shape.columns()) * stored_rows(tensor);
}

void weight_packing::pack(const weight& tensor, row_range rows, const std::byte* from,
                          std::byte* to) const {
  const auto in_matrix = static_cast<std::int64_t>(tensor.shape.extent[1]);
  const auto columns = static_cast<std::int64_t>(tensor.shape.columns());
  const std::size_t bytes = row_bytes(tensor.format, tensor.shape.columns());
  const auto pack_rows =
      takes_q8(tensor.format, activations_) ? kernels_.pack[*format_index(tensor.format)] : nullptr;
  while (rows.count > 0) {
    const std::int64_t row = rows.first % in_matrix;
    const std::int64_t n = std::min(rows.count, in_matrix - row);
    std::byte* const out = to +
                           static_cast<std::size_t>(rows.first / in_matrix) * tensor.matrix_bytes +
                           static_cast<std::size_t>(row) * bytes;
    const std::size_t some = static_cast<std::size_t>(n) * bytes;
    if (pack_rows) {
      pack_rows(from, n, columns, out);
    } else {
      std::memcpy(out, from, some);
    }
    from += some;
    rows = {rows.first + n, rows.count - n};
  }
}

}  // namespace nibble::inline NIBBLE_ABI
