// The bytes of one file: read, mapped read-only, or lent by the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nibble/base/config.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

// The size is taken once, when the file is mapped, and every later check is against it. Who touches
// the mapping of a file that somebody has truncated meets SIGBUS; so the library itself reads: that
// fails with an error. The mapping is for callers who want all bytes of a tensor at once.
class mapping {
 public:
  // Throws error(io) if the file cannot be opened or mapped, or is not a regular file.
  explicit mapping(const std::filesystem::path& path);
  explicit mapping(std::span<const std::byte> borrowed) noexcept : bytes_(borrowed) {}
  mapping(mapping&& other) noexcept;
  mapping& operator=(mapping&&) = delete;
  ~mapping();

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

  // The file's first bytes, so many or all that there are, read into memory of this object's own.
  // What was given out before is gone. Throws error (io) if they are not there any more.
  std::span<const std::byte> read_header(std::uint64_t size);
  // Bytes from there on, in `buffer` unless they are lent. They lie inside the file as it was
  // opened. Throws error (io), with the tensor's name, if the file has another size by now or was
  // written to.
  std::span<const std::byte> read(std::uint64_t offset, std::size_t size,
                                  std::vector<std::byte>& buffer, std::string_view tensor) const;
  // When the file had been written to last, as it was mapped; see modification_time().
  std::int64_t modified() const noexcept { return modified_; }

  // Advice only: failures are ignored. Borrowed bytes are left alone.
  void prefetch(std::uint64_t offset, std::uint64_t size) const noexcept;
  // Only pages that lie wholly inside the range are given up: their neighbours keep theirs.
  void release(std::uint64_t offset, std::uint64_t size) const noexcept;

 private:
  [[noreturn]] void fail(const std::string& sentence, std::uint64_t offset,
                         std::string_view tensor) const;
  void check_unchanged(std::uint64_t offset, std::string_view tensor) const;
  // Fewer bytes than asked for only where the file ends.
  std::size_t read_at(std::uint64_t offset, std::span<std::byte> to, std::string_view tensor) const;

  std::span<const std::byte> bytes_;
  std::vector<std::byte> header_;
  std::filesystem::path path_;
  std::int64_t modified_ = 0;
  int fd_ = -1;  // none of lent bytes
};

}  // namespace nibble::inline NIBBLE_ABI::gguf
