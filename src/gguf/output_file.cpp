#include "gguf/output_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/replace.hpp>
#include <random>
#include <system_error>
#include <utility>

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

constexpr std::size_t buffer_bytes = 1 << 18;

}  // namespace

void output_file::check_name(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw error(errc::io, "this is no regular file, and only those are replaced",
                {.file = path.string()});
  }
}

output_file::output_file(std::filesystem::path path) : path_(std::move(path)), target_(path_) {
  check_name(path_);
  std::error_code broken;  // a link that leads nowhere is replaced itself
  const auto followed = std::filesystem::canonical(path_, broken);
  if (!broken) target_ = followed;
  std::random_device random;
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = target_;
    temporary_ += concat(".", random(), ".part");
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && (errno != EEXIST || attempt == 16)) {
      const int code = errno;
      temporary_.clear();
      fail("created", code);
    }
  }
  try {
    keep_permissions(target_, temporary_);
    buffer_.reserve(buffer_bytes);
  } catch (...) {  // no destructor follows
    ::close(fd_);
    ::unlink(temporary_.c_str());
    throw;
  }
}

output_file::output_file(output_file&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      buffer_(std::move(other.buffer_)),
      written_(other.written_),
      fd_(std::exchange(other.fd_, -1)) {}

output_file::~output_file() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void output_file::write(std::span<const std::byte> bytes) {
  if (bytes.size() > buffer_bytes - buffer_.size()) flush();
  if (bytes.size() >= buffer_bytes) {
    write_through(bytes);
  } else {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
}

void output_file::finish() {
  flush();
  if (::fsync(fd_) != 0) fail("written", errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail("written", errno);
}

void output_file::publish() {
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("given its name", errno);
  temporary_.clear();
}

void output_file::flush() {
  write_through(buffer_);
  buffer_.clear();
}

void output_file::write_through(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    // the kernel takes at most some 2 GiB at once
    const ssize_t done = ::write(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), 1u << 30));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("written", done == 0 ? ENOSPC : errno);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    written_ += static_cast<std::uint64_t>(done);
  }
}

void output_file::fail(const char* action, int code) const {
  throw error(errc::io,
              concat("the file cannot be ", action, ": ", std::system_category().message(code),
                     " (", written_, " bytes had been written)"),
              {.file = path_.string()});
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
