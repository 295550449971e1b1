// Walks over the header of a GGUF file. Every read is bounded; an error names file, byte and the
// entry that was being read.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <nibble/gguf/value.hpp>
#include <span>
#include <string>
#include <string_view>

#include "gguf/limits.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {

static_assert(std::endian::native == std::endian::little,
              "GGUF files are little-endian and are read in place");

// Thrown where a file goes on behind the bytes that a cursor has of it: not an error.
struct more_bytes_needed {};

class cursor {
 public:
  // `bytes` begin a file of `size` bytes, whose name is `file`, which outlives the cursor.
  cursor(std::span<const std::byte> bytes, std::uint64_t size, const std::string& file) noexcept
      : bytes_(bytes), size_(size), limit_(std::min(size, max_header_bytes)), file_(file) {}

  std::uint64_t position() const noexcept { return position_; }
  std::uint64_t remaining() const noexcept { return limit_ - position_; }
  const std::string& file() const noexcept { return file_; }

  // What the next errors are about: "the header", "key" + name, "tensor" + name.
  void about(const char* kind, std::string_view name = {}) noexcept {
    kind_ = kind;
    name_ = name;
  }

  template <typename T>
  T number(const char* what) {
    const std::byte* from = take(sizeof(T), what).data();
    T result;
    std::memcpy(&result, from, sizeof(T));
    return result;
  }

  std::span<const std::byte> take(std::uint64_t size, const char* what) {
    if (size > remaining()) fail_short(size, what);
    if (size > bytes_.size() - position_) throw more_bytes_needed();
    const auto result = bytes_.subspan(position_, size);
    position_ += size;
    return result;
  }

  std::string_view string(std::uint64_t max_bytes, const char* what);

  // That `count` entries of at least `each` bytes can still follow.
  void expect_room(std::uint64_t count, std::uint64_t each, const char* what) const;

  // `offset`: of the offending bytes, where they begin.
  [[noreturn]] void fail(errc code, const std::string& sentence, std::uint64_t offset) const;

 private:
  [[noreturn]] void fail_short(std::uint64_t size, const char* what) const;

  std::span<const std::byte> bytes_;
  std::uint64_t size_, limit_;
  std::uint64_t position_ = 0;
  const std::string& file_;
  const char* kind_ = "the header";
  std::string_view name_;
};

}  // namespace nibble::inline NIBBLE_ABI::gguf
