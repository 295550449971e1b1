// A file that appears under its name only when it is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nibble/base/config.hpp>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

class output_file {
 public:
  // Throws error(io) if this name belongs to something that is no regular file: a folder could not
  // be replaced, and a device should not be.
  static void check_name(const std::filesystem::path& path);

  // Creates "<path>.<random>.part" in the same folder, so that the renaming is atomic. Where the
  // path is a link, what it leads to is meant.
  explicit output_file(std::filesystem::path path);
  output_file(output_file&& other) noexcept;
  output_file& operator=(output_file&&) = delete;
  ~output_file();  // removes the file unless it was published

  // All throw error(io) that names the path and says how much had been written.
  void write(std::span<const std::byte> bytes);
  void finish();   // everything is on the disk
  void publish();  // gives the file its name

  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  void flush();
  void write_through(std::span<const std::byte> bytes);
  [[noreturn]] void fail(const char* action, int code) const;

  std::filesystem::path path_;    // as given
  std::filesystem::path target_;  // links followed
  std::filesystem::path temporary_;
  std::vector<std::byte> buffer_;
  std::uint64_t written_ = 0;
  int fd_ = -1;
};

}  // namespace nibble::inline NIBBLE_ABI::gguf
