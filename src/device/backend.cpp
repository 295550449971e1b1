#include <nibble/device/backend.hpp>

#include <algorithm>
#include <limits>
#include <nibble/base/checked.hpp>
#include <optional>

namespace nibble::inline NIBBLE_ABI {

void workspace_size::add(const workspace_size& other) {
  shared = std::max(shared, other.shared);
  own += other.own;
  host_shared = std::max(host_shared, other.host_shared);
  host_own += other.host_own;
}

std::uint64_t weight_ring::bytes(std::uint64_t greatest) const noexcept {
  const auto slot = checked_align(greatest, slot_alignment);
  const auto all = slot ? checked_mul(*slot, static_cast<std::uint64_t>(slots)) : slot;
  return all.value_or(std::numeric_limits<std::uint64_t>::max());
}

std::uint64_t expert_cache::bytes() const noexcept {
  const auto all = slots >= 0 ? checked_mul(slot_bytes, static_cast<std::uint64_t>(slots))
                              : std::optional<std::uint64_t>{};
  return all.value_or(std::numeric_limits<std::uint64_t>::max());
}

weight backend::import_weight(const tensor_view& tensor) {
  weight placed = place_weight(tensor);
  fill_weight(placed, {0, static_cast<std::int64_t>(tensor.shape.rows())}, tensor.data);
  return placed;
}

}  // namespace nibble::inline NIBBLE_ABI
