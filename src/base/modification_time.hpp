// When a file was written to, as precisely as the system says.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI {

// Nanoseconds since 1970.
inline std::int64_t modification_time(const struct stat& status) noexcept {
#if defined(__APPLE__)
  const struct timespec& at = status.st_mtimespec;
#else
  const struct timespec& at = status.st_mtim;
#endif
  return std::int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec;
}

}  // namespace nibble::inline NIBBLE_ABI
