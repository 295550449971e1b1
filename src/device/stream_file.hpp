// A file that is read beside the system's cache: what is read once for every token would only push
// out what others need.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/stream.hpp>
#include <span>
#include <string>

namespace nibble::inline NIBBLE_ABI {

// May be used by several threads.
class stream_file {
 public:
  // Of offsets, lengths and addresses of direct reads: that of no file system is greater.
  static constexpr std::size_t alignment = 4096;
  // A read of n bytes takes up to so many bytes of staging.
  static constexpr std::size_t staging_bytes(std::size_t n) { return n + 2 * alignment; }

  // Throws error (io) if it cannot be opened, or is no longer what it was.
  explicit stream_file(gguf::opened_part part);
  stream_file(const stream_file&) = delete;
  stream_file& operator=(const stream_file&) = delete;
  ~stream_file();

  const gguf::opened_part& part() const noexcept { return part_; }

  // Reads into `staging`, which is aligned, and returns where in it the bytes lie. Throws error
  // (io), with the tensor's name, if they are not there or the file was written to since it was
  // opened.
  const std::byte* read(std::uint64_t offset, std::size_t bytes, std::span<std::byte> staging,
                        const std::string& tensor) const;

 private:
  [[noreturn]] void fail(const std::string& sentence, std::uint64_t offset,
                         const std::string& tensor) const;
  void check_unchanged(std::uint64_t offset, const std::string& tensor) const;
  // errno, or 0. `enough`: with fewer bytes the file is too short.
  int read_direct(std::uint64_t begin, std::size_t enough, std::span<std::byte> to,
                  std::size_t& found) const;
  int read_cached(std::uint64_t begin, std::span<std::byte> to, std::size_t& found) const;
  void close() noexcept;

  const gguf::opened_part part_;
  int cached_ = -1,
      direct_ = -1;  // descriptors; direct_: none if the file system has no such reads
  // Some refuse only when they are asked to read.
  mutable std::atomic<bool> use_direct_ = false;
};

}  // namespace nibble::inline NIBBLE_ABI
