// Hands out parts of one block of memory, or only counts when there is none: the code that answers
// "how many bytes" is the code that hands them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/checked.hpp>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI {

class carver {
 public:
  // Parts are aligned to `alignment` bytes, if `base` is.
  carver(std::byte* base, std::size_t alignment) : base_(base), alignment_(alignment) {}

  template <typename T>
  T* take(std::int64_t count) {
    T* const at = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ = align_up(used_ + static_cast<std::size_t>(count) * sizeof(T), alignment_);
    return at;
  }

  std::size_t used() const noexcept { return used_; }

 private:
  std::byte* base_;
  std::size_t alignment_;
  std::size_t used_ = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
