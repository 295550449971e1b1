#include "device/stream_tensor.hpp"

#include <algorithm>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {

const stream_file& stream_files::open(const gguf::opened_part& part) {
  for (const auto& file : files_) {
    if (file->part().path == part.path) return *file;
  }
  return *files_.emplace_back(std::make_unique<stream_file>(part));
}

stream_tensor::stream_tensor(const weight& placed, const stored_tensor& stored,
                             const stream_file& file, const weight_packing& packing)
    : placed_(placed),
      matrices_(static_cast<std::int64_t>(placed.shape.rows() / placed.shape.extent[1])),
      rows_(static_cast<std::int64_t>(placed.shape.extent[1])),
      row_bytes_(row_bytes(placed.format, placed.shape.columns())),
      matrix_bytes_(placed.matrix_bytes),
      file_(file),
      offset_(stored.offset),
      name_(stored.name),
      packing_(packing) {
  const auto end = checked_add(stored.offset, stored.bytes);
  const std::uint64_t wanted = row_bytes_ * placed.shape.rows();
  if (end && *end <= stored.part.bytes && stored.bytes == wanted) return;
  throw error(errc::invalid_argument,
              concat("its ", wanted, " bytes were said to be ", stored.bytes,
                     " of a file that has ", stored.part.bytes),
              {.file = stored.part.path.string(), .offset = stored.offset, .tensor = stored.name});
}

std::vector<row_range> stream_tensor::pieces(std::int64_t count) const {
  std::vector<row_range> found;
  const auto fitting = static_cast<std::int64_t>(stream_piece_bytes / row_bytes_);
  const std::int64_t all = count * rows_;
  if (fitting >= rows_) {
    const std::int64_t some = fitting / rows_ * rows_;
    for (std::int64_t row = 0; row < all; row += some) {
      found.push_back({row, std::min(some, all - row)});
    }
    return found;
  }
  const std::int64_t together = packing_.rows_together(placed_.format);
  const std::int64_t some = fitting / together * together;
  if (some == 0) {
    throw error(
        errc::unsupported,
        concat("its rows have ", row_bytes_, " bytes each; matrices that stay on disk may have ",
               stream_piece_bytes / static_cast<std::size_t>(together)),
        {.file = file_.part().path.string(), .offset = offset_, .tensor = name_});
  }
  for (std::int64_t first = 0; first < all; first += rows_) {
    for (std::int64_t row = 0; row < rows_; row += some) {
      found.push_back({first + row, std::min(some, rows_ - row)});
    }
  }
  return found;
}

void stream_tensor::fill(std::int64_t matrix, row_range piece, std::byte* to,
                         std::span<std::byte> staging) const {
  const auto first = static_cast<std::uint64_t>(matrix * rows_ + piece.first);
  const std::byte* const from =
      file_.read(offset_ + first * row_bytes_, static_cast<std::size_t>(piece.count) * row_bytes_,
                 staging, name_);
  packing_.pack(placed_, piece, from, to);
}

}  // namespace nibble::inline NIBBLE_ABI
