// The bytes of one file: mapped read-only, or lent by the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nibble/base/config.hpp>
#include <span>

namespace nibble::inline NIBBLE_ABI::gguf {

// The size is taken once, when the file is mapped, and every later check is against it. A file that
// somebody truncates while it is mapped cannot be guarded against: the system then raises SIGBUS at
// the first touch of a page beyond the new end.
class mapping {
 public:
  // Throws error(io) if the file cannot be opened or mapped, or is not a regular file.
  explicit mapping(const std::filesystem::path& path);
  explicit mapping(std::span<const std::byte> borrowed) noexcept : bytes_(borrowed) {}
  mapping(mapping&& other) noexcept;
  mapping& operator=(mapping&&) = delete;
  ~mapping();

  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  // When the file had been written to last, as it was mapped; see modification_time().
  std::int64_t modified() const noexcept { return modified_; }

  // Advice only: failures are ignored. Borrowed bytes are left alone.
  void prefetch(std::uint64_t offset, std::uint64_t size) const noexcept;
  // Only pages that lie wholly inside the range are given up: their neighbours keep theirs.
  void release(std::uint64_t offset, std::uint64_t size) const noexcept;

 private:
  std::span<const std::byte> bytes_;
  std::int64_t modified_ = 0;
  bool owned_ = false;
};

}  // namespace nibble::inline NIBBLE_ABI::gguf
