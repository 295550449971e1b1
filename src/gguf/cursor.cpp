#include "gguf/cursor.hpp"

#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>

namespace nibble::inline NIBBLE_ABI::gguf {

std::string printable(std::string_view text, std::size_t longest) {
  constexpr char digits[] = "0123456789abcdef";
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const bool cut = text.size() > longest;
  if (cut) {
    while (longest > 0 && (byte(longest) & 0xc0) == 0x80) --longest;  // not inside a character
    text = text.substr(0, longest);
  }
  std::string out;
  std::size_t escaped = 0;  // the bytes before this one belong to a control character
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (byte(i) < 0x20 || byte(i) == 0x7f) escaped = i + 1;
    // U+0080 to U+009F; terminals take U+009B for the start of a command
    const bool c1 = byte(i) == 0xc2 && i + 1 < text.size() && (byte(i + 1) & 0xe0) == 0x80;
    if (c1) escaped = i + 2;
    if (i >= escaped) {
      out += text[i];
    } else {
      out += {'\\', 'x', digits[byte(i) >> 4], digits[byte(i) & 15]};
    }
  }
  if (cut) out += "...";
  return out;
}

std::string_view cursor::string(std::uint64_t max_bytes, const char* what) {
  const std::uint64_t start = position_;
  const auto size = number<std::uint64_t>(what);
  if (size > max_bytes) {
    fail(errc::bad_file, concat(what, " has ", size, " bytes; at most ", max_bytes, " are allowed"),
         start);
  }
  const auto text = take(size, what);
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

void cursor::expect_room(std::uint64_t count, std::uint64_t each, const char* what) const {
  const auto size = checked_mul(count, each);
  if (size && *size <= remaining()) return;
  fail(errc::bad_file,
       concat(count, " ", what, " are announced; at ", each, " bytes or more each, the ",
              remaining(), " bytes that ",
              limit_ < size_ ? "the limit of 64 MiB for a header leaves" : "are left",
              " hold at most ", remaining() / each),
       position_);
}

void cursor::fail(errc code, const std::string& sentence, std::uint64_t offset) const {
  const bool tensor = !name_.empty() && std::string_view(kind_) == "tensor";
  const bool key = !name_.empty() && !tensor;
  throw error(code,
              key      ? concat(kind_, " '", printable(name_), "': ", sentence)
              : tensor ? sentence
                       : concat(kind_, ": ", sentence),
              {.file = file_, .offset = offset, .tensor = tensor ? printable(name_) : ""});
}

void cursor::fail_short(std::uint64_t size, const char* what) const {
  fail(errc::bad_file,
       concat(what, " takes ", size, " bytes, and ",
              limit_ < size_ ? "a header of at most 64 MiB has " : "the file has ", remaining(),
              " left"),
       position_);
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
