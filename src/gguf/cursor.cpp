#include "gguf/cursor.hpp"

#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>

namespace nibble::inline NIBBLE_ABI::gguf {

std::string printable(std::string_view text) {
  constexpr std::size_t longest = 96;
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
  }
  if (text.size() > longest) out += "...";
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
              limit_ < bytes_.size() ? "the limit of 64 MiB for a header leaves" : "are left",
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
              limit_ < bytes_.size() ? "a header of at most 64 MiB has " : "the file has ",
              remaining(), " left"),
       position_);
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
