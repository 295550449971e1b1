// A tensor that stays on disk, read and packed some rows at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/stream.hpp>
#include <span>
#include <string>
#include <vector>

#include "device/cpu_weights.hpp"
#include "device/stream_file.hpp"

namespace nibble::inline NIBBLE_ABI {

// What is read together, at most. Long enough for a disk's full speed, and short enough to stay in
// the processor's cache between reading and packing.
inline constexpr std::size_t stream_piece_bytes = std::size_t{1} << 20;

// Each file of a model once, open as long as this lives.
class stream_files {
 public:
  // Throws error (io).
  const stream_file& open(const gguf::opened_part& part);

 private:
  std::vector<std::unique_ptr<stream_file>> files_;
};

class stream_tensor {
 public:
  // Throws error (invalid_argument) if the bytes that are said to be stored are not the tensor's.
  stream_tensor(const weight& placed, const stored_tensor& stored, const stream_file& file,
                const weight_packing& packing);

  std::int64_t matrices() const noexcept { return matrices_; }
  std::int64_t rows() const noexcept { return rows_; }                 // of a matrix
  std::size_t matrix_bytes() const noexcept { return matrix_bytes_; }  // packed
  // In which pieces `count` matrices are read: of whole matrices if several fit into one, else of
  // rows of one that are packed together. Throws error (unsupported) if its rows are too long.
  std::vector<row_range> pieces(std::int64_t count) const;
  // Reads a piece of the matrices from `matrix` on, and packs it; the first of them lies at `to`.
  void fill(std::int64_t matrix, row_range piece, std::byte* to,
            std::span<std::byte> staging) const;

 private:
  weight placed_;
  std::int64_t matrices_, rows_;
  std::size_t row_bytes_, matrix_bytes_;
  const stream_file& file_;
  std::uint64_t offset_;
  std::string name_;
  const weight_packing& packing_;
};

}  // namespace nibble::inline NIBBLE_ABI
