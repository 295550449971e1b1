// How fast a disk gives what a ring asks of it.
#include <algorithm>
#include <chrono>
#include <nibble/base/error.hpp>

#include "device/arena.hpp"
#include "device/stream_ring.hpp"
#include "device/stream_sizes.hpp"
#include "device/stream_tensor.hpp"

namespace nibble::inline NIBBLE_ABI {

double measure_disk(const gguf::file& file, const disk_options& options, std::uint64_t bytes) {
  constexpr std::size_t each = stream_file::staging_bytes(stream_piece_bytes);
  const arena staging(disk_staging_bytes(options), "reading a file from disk");
  const stream_file from(file.opened(0));
  const std::uint64_t all = std::min(std::max<std::uint64_t>(bytes, 1), from.part().bytes);
  const std::uint64_t pieces = (all + stream_piece_bytes - 1) / stream_piece_bytes;
  std::chrono::duration<double> took{};
  {
    const auto start = std::chrono::steady_clock::now();
    // a ring of one block, which is never packed
    stream_ring ring(
        {.pieces = {static_cast<std::size_t>(pieces)},
         .slots = 1,
         .readers = static_cast<std::size_t>(options.readers)},
        [&](std::size_t, std::size_t piece, std::size_t reader) {
          const std::uint64_t at = std::uint64_t{piece} * stream_piece_bytes;
          const auto n = std::min<std::uint64_t>(stream_piece_bytes, all - at);
          from.read(at, static_cast<std::size_t>(n), {staging.data() + reader * each, each}, "");
        });
    const auto there = ring.acquire(0);
    took = std::chrono::steady_clock::now() - start;
  }
  return static_cast<double>(all) / std::max(took.count(), 1e-9);
}

}  // namespace nibble::inline NIBBLE_ABI
