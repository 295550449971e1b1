#include "device/stream_pieces.hpp"

#include <utility>

namespace nibble::inline NIBBLE_ABI {

void stream_pieces::add(stream_tensor tensor, std::byte* to, std::size_t of_block) {
  block& of = blocks_[of_block];
  for (const row_range rows : tensor.pieces(tensor.matrices())) {
    of.pieces.push_back({of.tensors.size(), rows});
  }
  of.tensors.push_back({std::move(tensor), to});
}

std::vector<std::size_t> stream_pieces::counts() const {
  std::vector<std::size_t> found;
  for (const block& b : blocks_) found.push_back(b.pieces.size());
  return found;
}

void stream_pieces::fill(std::size_t of_block, std::size_t index,
                         std::span<std::byte> staging) const {
  const block& b = blocks_[of_block];
  const piece& p = b.pieces[index];
  const placed_tensor& t = b.tensors[p.tensor];
  t.tensor.fill(0, p.rows, t.to, staging);
}

}  // namespace nibble::inline NIBBLE_ABI
