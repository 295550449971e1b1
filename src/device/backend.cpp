#include <nibble/device/backend.hpp>

namespace nibble::inline NIBBLE_ABI {

weight backend::import_weight(const tensor_view& tensor) {
  weight placed = place_weight(tensor);
  fill_weight(placed, {0, static_cast<std::int64_t>(tensor.shape.rows())}, tensor.data);
  return placed;
}

}  // namespace nibble::inline NIBBLE_ABI
