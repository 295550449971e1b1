#include "gguf/mapping.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/gguf/value.hpp>
#include <system_error>
#include <utility>

#include "base/modification_time.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

[[noreturn]] void fail_to(const std::filesystem::path& path, const char* action, int code) {
  throw error(code == ENOMEM ? errc::out_of_memory : errc::io,
              concat("the file cannot be ", action, ": ", std::system_category().message(code)),
              {.file = path.string()});
}

std::uint64_t page_size() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

mapping::mapping(const std::filesystem::path& path) : path_(path) {
  // without waiting: a pipe would have to be opened by its writer first
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail_to(path, "opened", errno);
  try {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) fail_to(path, "examined", errno);
    if (!S_ISREG(status.st_mode)) {
      throw error(errc::io, "this is not a regular file, and only those can be mapped",
                  {.file = path.string()});
    }
    modified_ = modification_time(status);
    const auto size = static_cast<std::size_t>(status.st_size);
    if (size == 0) return;  // cannot be mapped; the reader says what is wrong with an empty file
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_, 0);
    if (address == MAP_FAILED) fail_to(path, "mapped", errno);
    bytes_ = {static_cast<const std::byte*>(address), size};
  } catch (...) {  // no destructor follows
    ::close(fd_);
    throw;
  }
}

mapping::mapping(mapping&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      header_(std::move(other.header_)),
      path_(std::move(other.path_)),
      modified_(other.modified_),
      fd_(std::exchange(other.fd_, -1)) {}

mapping::~mapping() {
  if (fd_ < 0) return;
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  ::close(fd_);
}

void mapping::fail(const std::string& sentence, std::uint64_t offset,
                   std::string_view tensor) const {
  throw error(errc::io, sentence,
              {.file = path_.string(), .offset = offset, .tensor = printable(tensor)});
}

void mapping::check_unchanged(std::uint64_t offset, std::string_view tensor) const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail_to(path_, "examined", errno);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size != bytes_.size()) {
    fail(concat("the file had ", bytes_.size(), " bytes when it was opened, and has ", size,
                " now; it must stay as it is while it is read"),
         offset, tensor);
  }
  if (modification_time(status) != modified_) {
    fail("the file was written to since it was opened; it must stay as it is while it is read",
         offset, tensor);
  }
}

std::size_t mapping::read_at(std::uint64_t offset, std::span<std::byte> to,
                             std::string_view tensor) const {
#if defined(POSIX_FADV_WILLNEED)
  // all of it at once: several threads that read by turns look like one that reads at random
  (void)::posix_fadvise(fd_, static_cast<::off_t>(offset), static_cast<::off_t>(to.size()),
                        POSIX_FADV_WILLNEED);
#endif
  std::size_t found = 0;
  while (found < to.size()) {
    const ::ssize_t n =
        ::pread(fd_, to.data() + found, to.size() - found, static_cast<::off_t>(offset + found));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      fail(concat("the file cannot be read: ", std::system_category().message(errno)),
           offset + found, tensor);
    }
    if (n == 0) break;
    found += static_cast<std::size_t>(n);
  }
  return found;
}

std::span<const std::byte> mapping::read_header(std::uint64_t size) {
  const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(size, bytes_.size()));
  if (fd_ < 0) return bytes_.first(wanted);
  header_.resize(wanted);
  if (read_at(0, header_, {}) < wanted) {
    check_unchanged(0, {});
    fail("the file was cut off while it was read", 0, {});
  }
  return header_;
}

std::span<const std::byte> mapping::read(std::uint64_t offset, std::size_t size,
                                         std::vector<std::byte>& buffer,
                                         std::string_view tensor) const {
  if (fd_ < 0) return bytes_.subspan(offset, size);
  buffer.resize(size);
  const std::size_t found = read_at(offset, buffer, tensor);
  check_unchanged(offset, tensor);  // says more than what follows from it
  if (found < size) fail("the file was cut off while it was read", offset + found, tensor);
  return buffer;
}

void mapping::prefetch(std::uint64_t offset, std::uint64_t size) const noexcept {
  if (fd_ < 0 || size == 0) return;
  const std::uint64_t begin = offset & ~(page_size() - 1);
  ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, offset + size - begin, MADV_WILLNEED);
}

void mapping::release(std::uint64_t offset, std::uint64_t size) const noexcept {
  if (fd_ < 0) return;
  const std::uint64_t begin = align_up(offset, page_size());
  const std::uint64_t end = (offset + size) & ~(page_size() - 1);
  if (begin >= end) return;
  ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
