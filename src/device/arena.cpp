#include "device/arena.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <nibble/base/bytes.hpp>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <string>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
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

// The system says yes to madvise() even where an administrator has switched huge pages off.
bool huge_pages_are_off() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  return std::getline(in, line) && line.find("[never]") != std::string::npos;
}

}  // namespace

arena::arena(std::size_t bytes, const char* purpose) : bytes_(bytes) {
  if (bytes == 0) return;
  // room to move the start up to a multiple of the alignment, and whole huge pages
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw_out_of_memory(bytes, purpose);
  const std::size_t whole = align_up(bytes, alignment);
#if NIBBLE_HAS_MMAP
  mapped_ = whole + alignment;
  mapping_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw_out_of_memory(bytes, purpose);
  }
  const auto start = reinterpret_cast<std::uintptr_t>(mapping_);
  data_ = static_cast<std::byte*>(mapping_) + (align_up(start, alignment) - start);
#if defined(MADV_HUGEPAGE)
  huge_pages_ = ::madvise(data_, whole, MADV_HUGEPAGE) == 0 && !huge_pages_are_off();
#endif
#else
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
      mapped_(std::exchange(other.mapped_, 0)),
      huge_pages_(std::exchange(other.huge_pages_, false)) {}

arena& arena::operator=(arena&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    mapping_ = std::exchange(other.mapping_, nullptr);
    mapped_ = std::exchange(other.mapped_, 0);
    huge_pages_ = std::exchange(other.huge_pages_, false);
  }
  return *this;
}

}  // namespace nibble::inline NIBBLE_ABI
