#include "device/arena.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <nibble/base/bytes.hpp>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <string>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define NIBBLE_HAS_MMAP 1
#else
#include <new>
#endif

namespace nibble::inline NIBBLE_ABI {
namespace {

[[noreturn]] void throw_out_of_memory(std::size_t bytes, const char* purpose) {
  throw error(errc::out_of_memory, concat("cannot allocate ", bytes, " bytes (",
                                          to_text(std::uint64_t{bytes}), ") for ", purpose));
}

#if NIBBLE_HAS_MMAP
// From here on a huge page that is not filled costs little beside the others.
constexpr std::size_t rounded_up_from = 32 * arena::alignment;

std::size_t page_size() {
  return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// Gives back a part of a mapping; if the system refuses, it stays a part.
bool give_back(std::byte* from, std::size_t bytes) {
  return bytes == 0 || ::munmap(from, bytes) == 0;
}
#endif

}  // namespace

arena::arena(std::size_t bytes, const char* purpose) : bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw_out_of_memory(bytes, purpose);
#if NIBBLE_HAS_MMAP
  const std::size_t whole = align_up(bytes, bytes < rounded_up_from ? page_size() : alignment);
  // room to move the start up to a multiple of the alignment; the rest goes back
  mapped_ = whole + alignment;
  void* const mapping =
      ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw_out_of_memory(bytes, purpose);
  mapping_ = mapping;
  auto* const start = static_cast<std::byte*>(mapping);
  const std::size_t before = align_up(reinterpret_cast<std::uintptr_t>(start), alignment) -
                             reinterpret_cast<std::uintptr_t>(start);
  data_ = start + before;
  if (give_back(data_ + whole, alignment - before)) mapped_ -= alignment - before;
  if (give_back(start, before)) {
    mapping_ = data_;
    mapped_ -= before;
  }
#if defined(MADV_HUGEPAGE)
  // what is not a whole huge page is not rounded up to one: a plan counts bytes
  const std::size_t huge = whole / alignment * alignment;
  if (huge > 0) (void)::madvise(data_, huge, MADV_HUGEPAGE);
#endif
#else
  const std::size_t whole = align_up(bytes, alignment);
  mapped_ = whole;
  mapping_ = ::operator new (whole, std::align_val_t{alignment}, std::nothrow);
  if (!mapping_) throw_out_of_memory(bytes, purpose);
  data_ = static_cast<std::byte*>(mapping_);
  std::memset(data_, 0, whole);
#endif
}

void arena::release() noexcept {
  if (!mapping_) return;
#if NIBBLE_HAS_MMAP
  ::munmap(mapping_, mapped_);
#else
  ::operator delete (mapping_, std::align_val_t{alignment});
#endif
}

arena::~arena() {
  release();
}

arena::arena(arena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_(std::exchange(other.mapped_, 0)) {}

arena& arena::operator=(arena&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    mapping_ = std::exchange(other.mapping_, nullptr);
    mapped_ = std::exchange(other.mapped_, 0);
  }
  return *this;
}

}  // namespace nibble::inline NIBBLE_ABI
