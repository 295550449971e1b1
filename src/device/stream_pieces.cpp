#include "device/stream_pieces.hpp"

#include <algorithm>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {

const stream_file* stream_pieces::open(const gguf::opened_part& part) {
  for (const auto& file : files_) {
    if (file->part().path == part.path) return file.get();
  }
  return files_.emplace_back(std::make_unique<stream_file>(part)).get();
}

void stream_pieces::add(const weight& placed, const stored_tensor& stored, std::byte* to,
                        std::size_t of_block) {
  const auto end = checked_add(stored.offset, stored.bytes);
  const std::uint64_t wanted =
      row_bytes(placed.format, placed.shape.columns()) * placed.shape.rows();
  if (!end || *end > stored.part.bytes || stored.bytes != wanted) {
    throw error(
        errc::invalid_argument,
        concat("its ", wanted, " bytes were said to be ", stored.bytes, " of a file that has ",
               stored.part.bytes),
        {.file = stored.part.path.string(), .offset = stored.offset, .tensor = stored.name});
  }
  block& of = blocks_[of_block];
  of.tensors.push_back({placed, to, open(stored.part), stored.offset, stored.name});
  cut(stored, of);
}

// Whole matrices (experts) if several fit into a piece, else rows of one that are packed together.
void stream_pieces::cut(const stored_tensor& stored, block& to) const {
  const weight& w = to.tensors.back().placed;
  const std::size_t bytes = row_bytes(w.format, w.shape.columns());
  const auto fitting = static_cast<std::int64_t>(stream_piece_bytes / bytes);
  const auto in_matrix = static_cast<std::int64_t>(w.shape.extent[1]);
  const auto all = static_cast<std::int64_t>(w.shape.rows());
  const std::size_t index = to.tensors.size() - 1;
  if (fitting >= in_matrix) {
    const std::int64_t some = fitting / in_matrix * in_matrix;
    for (std::int64_t row = 0; row < all; row += some) {
      to.pieces.push_back({index, {row, std::min(some, all - row)}});
    }
    return;
  }
  const std::int64_t together = packing_.rows_together(w.format);
  const std::int64_t some = fitting / together * together;
  if (some == 0) {
    throw error(
        errc::unsupported,
        concat("its rows have ", bytes, " bytes each; matrices that stay on disk may have ",
               stream_piece_bytes / static_cast<std::size_t>(together)),
        {.file = stored.part.path.string(), .offset = stored.offset, .tensor = stored.name});
  }
  for (std::int64_t matrix = 0; matrix < all; matrix += in_matrix) {
    for (std::int64_t row = 0; row < in_matrix; row += some) {
      to.pieces.push_back({index, {matrix + row, std::min(some, in_matrix - row)}});
    }
  }
}

std::vector<std::size_t> stream_pieces::counts() const {
  std::vector<std::size_t> found;
  for (const block& b : blocks_) found.push_back(b.pieces.size());
  return found;
}

void stream_pieces::fill(std::size_t of_block, std::size_t index,
                         std::span<std::byte> staging) const {
  const block& b = blocks_[of_block];
  const row_range rows = b.pieces[index].rows;
  const tensor& t = b.tensors[b.pieces[index].tensor];
  const std::size_t bytes = row_bytes(t.placed.format, t.placed.shape.columns());
  const std::byte* const from =
      t.file->read(t.offset + static_cast<std::uint64_t>(rows.first) * bytes,
                   static_cast<std::size_t>(rows.count) * bytes, staging, t.name);
  packing_.pack(t.placed, rows, from, t.to);
}

}  // namespace nibble::inline NIBBLE_ABI
