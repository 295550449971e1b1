// Byte counts as people write them: 6_GiB in code, "6.0 GiB" in reports.
#pragma once

#include <cstdint>
#include <cstdio>
#include <nibble/base/config.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

inline namespace literals {
constexpr std::uint64_t operator""_KiB(unsigned long long n) {
  return n << 10;
}
constexpr std::uint64_t operator""_MiB(unsigned long long n) {
  return n << 20;
}
constexpr std::uint64_t operator""_GiB(unsigned long long n) {
  return n << 30;
}
}  // namespace literals

// "512 B", "1.5 KiB", "4.3 GiB".
inline std::string to_text(std::uint64_t bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024.0 && unit < 6) {
    value /= 1024.0;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

}  // namespace nibble::inline NIBBLE_ABI
