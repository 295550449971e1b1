// Arithmetic on sizes that come from files: overflow is a result, never a wrap.
#pragma once

#include <cstdint>
#include <limits>
#include <nibble/base/config.hpp>
#include <optional>

namespace nibble::inline NIBBLE_ABI {

[[nodiscard]] constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  if (b > std::numeric_limits<std::uint64_t>::max() - a) return std::nullopt;
  return a + b;
}

[[nodiscard]] constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) {
  if (a != 0 && b > std::numeric_limits<std::uint64_t>::max() / a) return std::nullopt;
  return a * b;
}

// The smallest multiple of `alignment` (a power of two) that is >= n.
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_align(std::uint64_t n,
                                                                   std::uint64_t alignment) {
  const auto sum = checked_add(n, alignment - 1);
  if (!sum) return std::nullopt;
  return *sum & ~(alignment - 1);
}

// The same for sizes of our own making, which cannot overflow.
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t n, std::uint64_t alignment) {
  return (n + alignment - 1) & ~(alignment - 1);
}

}  // namespace nibble::inline NIBBLE_ABI
