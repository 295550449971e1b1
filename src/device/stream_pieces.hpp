// The matrices of blocks on disk: in which pieces they are read, and where they are packed to.
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

// Of a tensor that are read together, at most. Long enough for a disk's full speed, and short
// enough to stay in the processor's cache between reading and packing.
inline constexpr std::size_t stream_piece_bytes = std::size_t{1} << 20;

class stream_pieces {
 public:
  stream_pieces(const weight_packing& packing, std::size_t blocks)
      : packing_(packing), blocks_(blocks) {}

  // `placed` lies at `to` while its block is in its buffer. Throws error as
  // weight_stream::place_stored().
  void add(const weight& placed, const stored_tensor& stored, std::byte* to, std::size_t of_block);

  // Of each block.
  std::vector<std::size_t> counts() const;
  // Reads one and packs it. Different ones may be filled at once, each with staging of its own.
  void fill(std::size_t of_block, std::size_t index, std::span<std::byte> staging) const;

 private:
  struct tensor {
    weight placed;
    std::byte* to;
    const stream_file* file;
    std::uint64_t offset;
    std::string name;
  };
  struct piece {
    std::size_t tensor;
    row_range rows;
  };
  struct block {
    std::vector<tensor> tensors;
    std::vector<piece> pieces;
  };

  const stream_file* open(const gguf::opened_part& part);
  void cut(const stored_tensor& stored, block& to) const;

  const weight_packing& packing_;
  std::vector<std::unique_ptr<stream_file>> files_;  // each once
  std::vector<block> blocks_;
};

}  // namespace nibble::inline NIBBLE_ABI
