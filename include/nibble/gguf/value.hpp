// Metadata values of a GGUF file, as views into the mapped bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

// Ids as the GGUF specification numbers them.
enum class value_type : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

// "u8", "string", ...; "type 77" for what is no type.
NIBBLE_API std::string to_text(value_type type);

// Text from a file as it may stand in a sentence or on a terminal: control characters escaped as
// \xHH, and "..." in place of what comes after `longest` bytes.
NIBBLE_API std::string printable(std::string_view text, std::size_t longest = 96);

// Bytes of one number or bool; 0 for strings and arrays, whose sizes vary.
constexpr std::uint64_t size_of(value_type type) {
  constexpr std::uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto id = static_cast<std::uint32_t>(type);
  return id < 13 ? sizes[id] : 0;
}

struct value;

// An array: numbers lie in `bytes` (little-endian, packed, maybe unaligned), strings in `strings`,
// nested arrays in `arrays`. All bounds were checked when the file was opened.
struct array_view {
  value_type element = value_type::u8;
  std::uint64_t count = 0;
  std::span<const std::byte> bytes;
  std::vector<std::string_view> strings;
  std::vector<value> arrays;
};

struct value {
  std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
               float, bool, std::string_view, std::shared_ptr<const array_view>, std::uint64_t,
               std::int64_t, double>
      data;

  // the variant's alternatives stand in the order of the ids
  value_type type() const noexcept { return static_cast<value_type>(data.index()); }
};

}  // namespace nibble::inline NIBBLE_ABI::gguf
