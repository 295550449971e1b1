#include "gguf/mapping.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <system_error>
#include <utility>

#include "base/modification_time.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* action, int code) {
  throw error(errc::io,
              concat("the file cannot be ", action, ": ", std::system_category().message(code)),
              {.file = path.string()});
}

// Closes the descriptor on every way out; the mapping does not need it.
struct descriptor {
  int fd;
  ~descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::uint64_t page_size() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

mapping::mapping(const std::filesystem::path& path) {
  // without waiting: a pipe would have to be opened by its writer first
  const descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) fail(path, "opened", errno);
  struct stat status {};
  if (::fstat(file.fd, &status) != 0) fail(path, "examined", errno);
  if (!S_ISREG(status.st_mode)) {
    throw error(errc::io, "this is not a regular file, and only those can be mapped",
                {.file = path.string()});
  }
  modified_ = modification_time(status);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return;  // cannot be mapped; the reader says what is wrong with an empty file
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (address == MAP_FAILED) fail(path, "mapped", errno);
  bytes_ = {static_cast<const std::byte*>(address), size};
  owned_ = true;
}

mapping::mapping(mapping&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})),
      modified_(other.modified_),
      owned_(std::exchange(other.owned_, false)) {}

mapping::~mapping() {
  if (owned_) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void mapping::prefetch(std::uint64_t offset, std::uint64_t size) const noexcept {
  if (!owned_ || size == 0) return;
  const std::uint64_t begin = offset & ~(page_size() - 1);
  ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, offset + size - begin, MADV_WILLNEED);
}

void mapping::release(std::uint64_t offset, std::uint64_t size) const noexcept {
  if (!owned_) return;
  const std::uint64_t begin = align_up(offset, page_size());
  const std::uint64_t end = (offset + size) & ~(page_size() - 1);
  if (begin >= end) return;
  ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
