// From floats to the blocks of a weight format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/formats/format_id.hpp>
#include <span>

namespace nibble::inline NIBBLE_ABI {

// Encodes whole rows through the format's own encoder, on the calling thread, without allocating.
//   x           [rows, columns], finite values (others give valid blocks of unspecified values)
//   columns     a multiple of the format's block size, at least 1
//   importance  empty, or [columns]: how much the squared error of each column counts; finite, >= 0
//   out         rows * row_bytes(to, columns) bytes, of any alignment
// Throws error: unsupported (nibble cannot make this format), or invalid_argument for sizes and
// importances that do not fit; each says which.
NIBBLE_API void quantise_rows(format_id to, std::span<const float> x, std::int64_t columns,
                              std::span<const float> importance, std::span<std::byte> out);

}  // namespace nibble::inline NIBBLE_ABI
