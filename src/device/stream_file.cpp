#include "device/stream_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <system_error>
#include <utility>

#include "base/modification_time.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

int open_for_reading(const std::filesystem::path& path, int flags) noexcept {
  // without waiting: a pipe may have taken the name
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
}

// Until there is enough, the file ends or an error comes: errno, or 0. The system may give fewer
// bytes than are asked for. A direct read goes on only where it may begin.
int read_at(int fd, std::uint64_t begin, std::size_t enough, std::span<std::byte> to,
            std::size_t grain, std::size_t& found) noexcept {
  while (found < enough && found % grain == 0) {
    const ::ssize_t n =
        ::pread(fd, to.data() + found, to.size() - found, static_cast<::off_t>(begin + found));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) break;
    found += static_cast<std::size_t>(n);
  }
  return 0;
}

}  // namespace

stream_file::stream_file(gguf::opened_part part) : part_(std::move(part)) {
  cached_ = open_for_reading(part_.path, 0);
  if (cached_ < 0) {
    throw error(errc::io,
                concat("the file cannot be opened to be read while the model runs: ",
                       std::system_category().message(errno)),
                {.file = part_.path.string()});
  }
  try {
    check_unchanged(0, "");
  } catch (...) {
    close();
    throw;
  }
#if defined(O_DIRECT)
  direct_ = open_for_reading(part_.path, O_DIRECT);
#endif
  // of a name, not of a descriptor: it may belong to another file by now
  struct stat a {
  }, b{};
  use_direct_ = direct_ >= 0 && ::fstat(cached_, &a) == 0 && ::fstat(direct_, &b) == 0 &&
                a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

stream_file::~stream_file() {
  close();
}

void stream_file::close() noexcept {
  for (const int fd : {cached_, direct_}) {
    if (fd >= 0) ::close(fd);
  }
}

void stream_file::fail(const std::string& sentence, std::uint64_t offset,
                       const std::string& tensor) const {
  throw error(errc::io, sentence,
              {.file = part_.path.string(), .offset = offset, .tensor = tensor});
}

void stream_file::check_unchanged(std::uint64_t offset, const std::string& tensor) const {
  struct stat status {};
  if (::fstat(cached_, &status) != 0) {
    fail(concat("the file cannot be examined: ", std::system_category().message(errno)), offset,
         tensor);
  }
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (bytes != part_.bytes) {
    fail(concat("the file had ", part_.bytes, " bytes when it was opened, and has ", bytes,
                " now; what is read while a model runs must stay as it is"),
         offset, tensor);
  }
  if (modification_time(status) != part_.modified) {
    fail(
        "the file was written to since it was opened; what is read while a model runs must stay as "
        "it is",
        offset, tensor);
  }
}

int stream_file::read_direct(std::uint64_t begin, std::size_t enough, std::span<std::byte> to,
                             std::size_t& found) const {
  return read_at(direct_, begin, enough, to, alignment, found);
}

int stream_file::read_cached(std::uint64_t begin, std::span<std::byte> to,
                             std::size_t& found) const {
  const int code = read_at(cached_, begin, to.size(), to, 1, found);
#if defined(POSIX_FADV_DONTNEED)
  // a refusal leaves the pages in the cache, and nothing worse
  (void)::posix_fadvise(cached_, static_cast<::off_t>(begin), static_cast<::off_t>(to.size()),
                        POSIX_FADV_DONTNEED);
#endif
  return code;
}

const std::byte* stream_file::read(std::uint64_t offset, std::size_t bytes,
                                   std::span<std::byte> staging, const std::string& tensor) const {
  const auto end = checked_add(offset, bytes);
  if (!end || *end > part_.bytes || staging_bytes(bytes) > staging.size()) {
    throw error(errc::invalid_argument,
                concat(bytes, " bytes are not to be had there, or not in one piece"),
                {.file = part_.path.string(), .offset = offset, .tensor = tensor});
  }
  std::size_t skipped = 0, found = 0;
  int code = EINVAL;
  if (use_direct_) {
    skipped = offset % alignment;
    // the system reads whole units, and of the last one what there is
    const auto length = static_cast<std::size_t>(align_up(skipped + bytes, alignment));
    code = read_direct(offset - skipped, skipped + bytes, staging.first(length), found);
    if (code == EINVAL) use_direct_ = false;
  }
  if (code == EINVAL) {
    skipped = found = 0;
    code = read_cached(offset, staging.first(bytes), found);
  }
  check_unchanged(offset, tensor);  // says more than what follows from it
  if (code != 0) {
    fail(concat("the file cannot be read: ", std::system_category().message(code)), offset, tensor);
  }
  if (found < skipped + bytes) {
    fail(concat("the file ends after ", offset - skipped + found, " bytes, and ", part_.bytes,
                " were there when it was opened"),
         offset, tensor);
  }
  return staging.data() + skipped;
}

}  // namespace nibble::inline NIBBLE_ABI
