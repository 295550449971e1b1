#include "device/cpu_weights.hpp"

#include <cstring>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

std::size_t unpadded_bytes(const tensor_view& tensor) {
  if (!has_format(tensor.format)) throw_unsupported(tensor.format);
  const shape& s = tensor.shape;
  if (s.elements() == 0) {
    throw error(errc::invalid_argument, concat("a weight of shape ", to_text(s), " is empty"));
  }
  const auto bytes = checked_mul(row_bytes(tensor.format, s.columns()), s.rows());
  if (!bytes) {
    throw error(errc::invalid_argument,
                concat("a weight of shape ", to_text(s), " has more bytes than can be counted"));
  }
  return *bytes;
}

}  // namespace

std::size_t packed_bytes(const tensor_view& tensor) {
  return align_up(unpadded_bytes(tensor), weight_alignment);
}

void pack(const tensor_view& tensor, std::byte* to) {
  std::memcpy(to, tensor.data, unpadded_bytes(tensor));
}

std::size_t packed_matrix_bytes(const tensor_view& tensor) {
  return row_bytes(tensor.format, tensor.shape.columns()) * tensor.shape.extent[1];
}

}  // namespace nibble::inline NIBBLE_ABI
