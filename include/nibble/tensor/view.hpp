// A tensor that somebody else owns: format, shape, pointer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/formats/format_id.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

// Extents as GGUF states them: extent[0] is the length of a row (contiguous in memory), then rows,
// then matrices (experts). Unused ones are 1.
struct shape {
  std::array<std::uint64_t, 4> extent{1, 1, 1, 1};

  constexpr std::uint64_t columns() const { return extent[0]; }
  // Checked by whoever read the shape from a file: the products fit.
  constexpr std::uint64_t rows() const { return extent[1] * extent[2] * extent[3]; }
  constexpr std::uint64_t elements() const { return columns() * rows(); }
  friend constexpr bool operator==(const shape&, const shape&) = default;
};

// "[4096, 32000]": as many extents as matter.
inline std::string to_text(const shape& s) {
  std::size_t last = 3;
  while (last > 0 && s.extent[last] == 1) --last;
  std::string out = "[";
  for (std::size_t i = 0; i <= last; ++i) {
    out += (i ? ", " : "") + std::to_string(s.extent[i]);
  }
  return out + "]";
}

struct tensor_view {
  format_id format{};
  nibble::shape shape;
  const std::byte* data = nullptr;
};

}  // namespace nibble::inline NIBBLE_ABI
