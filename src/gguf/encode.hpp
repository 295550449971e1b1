// Metadata as bytes of a GGUF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/gguf/value.hpp>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

using byte_vector = std::vector<std::byte>;

void append(byte_vector& out, std::span<const std::byte> bytes);

template <typename T>
requires(std::is_arithmetic_v<T> || std::is_enum_v<T>) void append(byte_vector& out, T number) {
  append(out, std::as_bytes(std::span<const T, 1>(&number, 1)));
}

void append(byte_vector& out, std::string_view text);

// Type id and value. Throws error(invalid_argument) if an array contradicts itself.
void append(byte_vector& out, const value& v);

}  // namespace nibble::inline NIBBLE_ABI::gguf
