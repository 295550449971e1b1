// What this process has read from disks.
#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

namespace common {

// Bytes, with those that went beside the system's cache and without those that came from it; where
// the system tells (Linux).
inline std::optional<std::uint64_t> disk_bytes_read() {
  std::ifstream in("/proc/self/io");
  std::string name;
  for (std::uint64_t value = 0; in >> name >> value;) {
    if (name == "read_bytes:") return value;
  }
  return std::nullopt;
}

}  // namespace common
