#include "device/weight_room.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI {

void weight_room::reserve(std::size_t bytes, const std::string& device) {
  if (reserved_) {
    throw error(errc::invalid_argument, "memory for weights was reserved already",
                {.device = device});
  }
  reserved_ = true;
  bytes_ = bytes;
}

std::size_t weight_room::take(std::size_t bytes, const std::string& device) {
  std::size_t at = used_.load();
  do {
    if (bytes <= bytes_ - at) continue;
    throw error(errc::invalid_argument,
                concat("a weight of ", bytes, " bytes does not fit: ", at, " of ", bytes_,
                       " reserved bytes are used"),
                {.device = device});
  } while (!used_.compare_exchange_weak(at, at + bytes));
  return at;
}

void check_part(const weight& placed, row_range rows, const std::string& device) {
  const auto all = static_cast<std::int64_t>(placed.shape.rows());
  const auto in_matrix = static_cast<std::int64_t>(placed.shape.extent[1]);
  const bool inside =
      rows.first >= 0 && rows.count >= 0 && rows.first <= all && rows.count <= all - rows.first;
  const auto is_border = [&](std::int64_t row) { return row % in_matrix % part_rows == 0; };
  if (inside && is_border(rows.first) && is_border(rows.first + rows.count)) return;
  throw error(errc::invalid_argument,
              concat(rows.count, " rows from row ", rows.first, " on, of ", all,
                     ", are no parts of a weight; those have ", part_rows,
                     " rows, the last of a matrix what is left"),
              {.tensor = placed.name, .device = device});
}

}  // namespace nibble::inline NIBBLE_ABI
