// The tokens that attention looks at, as pieces of pages.
#pragma once

#include "gpu/kv_rows.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// Indices [begin, end) of a sequence; see kv_table.hpp.
struct token_range {
  std::int64_t begin, end;
};

// What a token sees.
NIBBLE_DEVICE token_range seen_by(std::int64_t index, std::int32_t window) {
  const std::int64_t begin = window > 0 ? index + 1 - window : 0;
  return {begin > 0 ? begin : 0, index + 1};
}

// Tokens of one page that are worked on at once: rows [row, row + n).
struct token_piece {
  std::int64_t index;  // of the first
  std::int64_t page;   // of the sequence, by places
  int row, n;          // n is 0 behind the last piece
  bool before_gap;     // queries are turned back

  // Rows are brought to shared memory from here on.
  NIBBLE_DEVICE int first_row() const { return row / aligned_rows * aligned_rows; }
  NIBBLE_DEVICE std::int64_t next() const { return index + n; }
};

// The piece that begins at a token. No piece has rows of two tiles; `tile` divides a page.
NIBBLE_DEVICE token_piece piece_at(const gpu::sequence_pages& sequence, std::int64_t index,
                                   std::int64_t end, int tile) {
  const bool before_gap = sequence.dropped > 0 && index < sequence.keep;
  if (before_gap && end > sequence.keep) end = sequence.keep;
  const std::int64_t place = index < sequence.keep ? index : index + sequence.dropped;
  const int row = static_cast<int>(place % page_tokens);
  const int most = tile - row % tile;
  const std::int64_t left = end > index ? end - index : 0;
  return {index, place / page_tokens, row, left < most ? static_cast<int>(left) : most, before_gap};
}

// Part `split` of `splits` of a range. Parts end where indices are multiples of a page.
NIBBLE_DEVICE token_range part_of(token_range range, int split, int splits) {
  const std::int64_t first = range.begin / page_tokens;
  const std::int64_t n = (range.end + page_tokens - 1) / page_tokens - first;
  const std::int64_t begin = (first + n * split / splits) * page_tokens;
  const std::int64_t end = (first + n * (split + 1) / splits) * page_tokens;
  return {begin > range.begin ? begin : range.begin, end < range.end ? end : range.end};
}

// The rows of a piece and what fills them up to whole 16 bytes: from global to shared memory, as
// bytes, asynchronously. part: see rows_of_head(). to: codes [tile rows], scales [tile rows]. All
// threads of a block.
template <int threads>
NIBBLE_DEVICE void fetch_rows(std::byte* part, row_size size, int head, const token_piece& piece,
                              int tile, std::byte* to) {
  const int first = piece.first_row();
  const int rows = (piece.row + piece.n - first + aligned_rows - 1) / aligned_rows * aligned_rows;
  const head_rows from = rows_of_head(part, size, head, first);
  for (int i = thread_index() * 16; i < rows * size.codes; i += threads * 16) {
    copy16_async(to + i, from.codes + i);
  }
  std::byte* const scales = to + tile * size.codes;
  for (int i = thread_index() * 16; i < rows * size.scales; i += threads * 16) {
    copy16_async(scales + i, from.scales + i);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
