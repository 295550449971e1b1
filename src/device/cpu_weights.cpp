#include "device/cpu_weights.hpp"

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

void weight_packing::pack(const tensor_view& tensor, std::byte* to) const {
  const std::uint64_t rows = tensor.shape.extent[1];
  const std::size_t in_bytes = row_bytes(tensor.format, tensor.shape.columns()) * rows;
  const std::size_t out_bytes = matrix_bytes(tensor);
  const auto pack_rows =
      takes_q8(tensor.format, activations_) ? kernels_.pack[*format_index(tensor.format)] : nullptr;
  const std::byte* from = tensor.data;
  for (std::uint64_t m = 0; m < tensor.shape.rows() / rows; ++m) {
    if (pack_rows) {
      pack_rows(from, static_cast<std::int64_t>(rows),
                static_cast<std::int64_t>(tensor.shape.columns()), to);
    } else {
      std::memcpy(to, from, in_bytes);
    }
    from += in_bytes;
    to += out_bytes;
  }
}

}  // namespace nibble::inline NIBBLE_ABI
