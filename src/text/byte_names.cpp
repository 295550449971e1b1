// Two ways in which vocabularies spell bytes.
#include <array>
#include <nibble/base/utf8.hpp>
#include <nibble/text/byte_names.hpp>
#include <text/vocabulary.hpp>

namespace nibble::inline NIBBLE_ABI {

std::string byte_level_name(std::string_view bytes) {
  std::string name;
  for (const char c : bytes) append_utf8(name, text::byte_character(static_cast<std::uint8_t>(c)));
  return name;
}

namespace text {
namespace {

// Printable bytes stand for themselves; the other 68 follow each other from U+0100.
constexpr bool is_printable(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

struct alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<std::int16_t, 0x144> of_character{};  // -1: none

  constexpr alphabet() {
    for (auto& byte : of_character) byte = -1;
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      of_byte[byte] = is_printable(byte) ? byte : next++;
      of_character[of_byte[byte]] = static_cast<std::int16_t>(byte);
    }
  }
};
constexpr alphabet gpt2_alphabet;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

char32_t byte_character(std::uint8_t byte) {
  return gpt2_alphabet.of_byte[byte];
}

std::optional<std::string> bytes_of_characters(std::string_view name) {
  std::string bytes;
  for (std::size_t i = 0; i < name.size();) {
    const utf8_code_point c = decode_utf8(name, i);
    if (c.state != utf8_state::valid || c.value >= gpt2_alphabet.of_character.size()) return {};
    const int byte = gpt2_alphabet.of_character[c.value];
    if (byte < 0) return {};
    bytes.push_back(static_cast<char>(byte));
    i += c.size;
  }
  return bytes;
}

std::optional<std::uint8_t> parse_byte_name(std::string_view name) {
  if (name.size() != 6 || !name.starts_with("<0x") || name.back() != '>') return {};
  const int high = hex_digit(name[3]), low = hex_digit(name[4]);
  if (high < 0 || low < 0) return {};
  return static_cast<std::uint8_t>(high * 16 + low);
}

}  // namespace text
}  // namespace nibble::inline NIBBLE_ABI
