// A short name for data, to notice that other data are meant: FNV-1a, 64 bits. Not against people
// who want two of them to agree.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <span>
#include <string>
#include <string_view>

namespace nibble::inline NIBBLE_ABI {

class fingerprint {
 public:
  fingerprint() = default;
  // Goes on where the fingerprint with this text() was; from the beginning if that is none.
  explicit fingerprint(std::string_view text) {
    std::uint64_t state = 0;
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, state, 16);
    if (text.size() == digits && read.ec == std::errc{} && read.ptr == end) state_ = state;
  }

  void add(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) {
      state_ = (state_ ^ static_cast<std::uint64_t>(b)) * 0x100000001b3u;
    }
  }
  // With its length, so that "ab", "c" is not "a", "bc".
  void add(std::string_view text) {
    add(text.size());
    add(std::as_bytes(std::span(text)));
  }
  void add(std::uint64_t number) { add(std::as_bytes(std::span(&number, 1))); }

  // 16 hexadecimal digits.
  std::string text() const {
    char out[digits + 1];
    const auto end = std::to_chars(out, out + digits, state_, 16).ptr;
    const std::string all(out, end);
    return std::string(digits - all.size(), '0') + all;
  }

 private:
  static constexpr std::size_t digits = 16;
  std::uint64_t state_ = 0xcbf29ce484222325u;
};

}  // namespace nibble::inline NIBBLE_ABI
