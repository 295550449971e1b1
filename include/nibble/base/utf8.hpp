// UTF-8 read one code point at a time. What is ill-formed, and how long it is, follows the Unicode
// Standard, chapter 3, table 3-7 and "maximal subparts": the same bytes always give the same
// result, on whichever border they were cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <string>
#include <string_view>

namespace nibble::inline NIBBLE_ABI {

enum class utf8_state : std::uint8_t {
  valid,
  invalid,    // no continuation could make it well-formed
  truncated,  // the text ends inside a sequence that is well-formed so far
};

struct utf8_code_point {
  char32_t value = 0xfffd;  // U+FFFD unless valid
  std::uint8_t size = 1;    // bytes taken, 1 to 4; of an ill-formed sequence its maximal subpart
  utf8_state state = utf8_state::invalid;
};

// Reads the code point at `position`, which must be less than text.size().
inline utf8_code_point decode_utf8(std::string_view text, std::size_t position) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[position + i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, utf8_state::valid};
  if (lead < 0xc2 || lead > 0xf4) return {};
  const std::uint8_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // the second byte's range excludes overlong forms, surrogates and values above U+10FFFF
  std::uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  std::uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  char32_t value = lead & (0x7fu >> size);
  for (std::uint8_t i = 1; i < size; ++i, low = 0x80, high = 0xbf) {
    if (position + i == text.size()) return {0xfffd, i, utf8_state::truncated};
    if (byte(i) < low || byte(i) > high) return {0xfffd, i, utf8_state::invalid};
    value = value << 6 | (byte(i) & 0x3fu);
  }
  return {value, size, utf8_state::valid};
}

// Appends the UTF-8 form of a Unicode scalar value.
inline void append_utf8(std::string& out, char32_t value) {
  const auto put = [&](char32_t bits) { out.push_back(static_cast<char>(bits)); };
  if (value < 0x80) return put(value);
  if (value < 0x800) {
    put(0xc0 | value >> 6);
  } else if (value < 0x10000) {
    put(0xe0 | value >> 12);
    put(0x80 | (value >> 6 & 0x3f));
  } else {
    put(0xf0 | value >> 18);
    put(0x80 | (value >> 12 & 0x3f));
    put(0x80 | (value >> 6 & 0x3f));
  }
  put(0x80 | (value & 0x3f));
}

// The text with each byte that is not part of a well-formed character as \xHH: for names of files,
// which may be any bytes, where UTF-8 is demanded.
inline std::string as_utf8(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const utf8_code_point c = decode_utf8(text, i);
    const std::string_view bytes = text.substr(i, c.size);
    i += c.size;
    if (c.state == utf8_state::valid) {
      out += bytes;
      continue;
    }
    for (const char byte : bytes) {
      const auto bits = static_cast<std::uint8_t>(byte);
      out += {'\\', 'x', digits[bits >> 4], digits[bits & 15]};
    }
  }
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI
