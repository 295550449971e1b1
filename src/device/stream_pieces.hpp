// The matrices of blocks that pass through a ring: in which pieces they are read.
#pragma once

#include <cstddef>
#include <nibble/base/config.hpp>
#include <span>
#include <vector>

#include "device/stream_tensor.hpp"

namespace nibble::inline NIBBLE_ABI {

class stream_pieces {
 public:
  explicit stream_pieces(std::size_t blocks) : blocks_(blocks) {}

  // It lies at `to` while its block is in its buffer.
  void add(stream_tensor tensor, std::byte* to, std::size_t of_block);

  // Of each block.
  std::vector<std::size_t> counts() const;
  // Reads one and packs it. Different ones may be filled at once, each with staging of its own.
  void fill(std::size_t of_block, std::size_t index, std::span<std::byte> staging) const;

 private:
  struct placed_tensor {
    stream_tensor tensor;
    std::byte* to;
  };
  struct piece {
    std::size_t tensor;
    row_range rows;
  };
  struct block {
    std::vector<placed_tensor> tensors;
    std::vector<piece> pieces;
  };

  std::vector<block> blocks_;
};

}  // namespace nibble::inline NIBBLE_ABI
