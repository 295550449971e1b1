#include "gguf/encode.hpp"

#include <cstring>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

#include "gguf/limits.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

// The fields of an array_view that its element type does not use are ignored.
void check(const array_view& array, int depth) {
  std::uint64_t found = array.strings.size();
  if (array.element == value_type::array) {
    if (depth == max_array_depth) {
      throw error(errc::invalid_argument,
                  concat("arrays are nested more than ", max_array_depth, " deep"));
    }
    found = array.arrays.size();
  } else if (const std::uint64_t size = size_of(array.element); size > 0) {
    if (array.bytes.size() % size != 0)
      found = array.count + 1;
    else
      found = array.bytes.size() / size;
  }
  if (found != array.count) {
    throw error(errc::invalid_argument,
                concat("an array says that it has ", array.count, " elements of type ",
                       to_text(array.element), ", and holds another number"));
  }
}

void append_array(byte_vector& out, const array_view& array, int depth);

void append_nested(byte_vector& out, const value& v, int depth) {
  const auto* nested = std::get_if<std::shared_ptr<const array_view>>(&v.data);
  if (nested == nullptr || *nested == nullptr) {
    throw error(errc::invalid_argument, "an array of arrays holds something else");
  }
  append_array(out, **nested, depth);
}

void append_array(byte_vector& out, const array_view& array, int depth) {
  check(array, depth);
  append(out, array.element);
  append(out, array.count);
  switch (array.element) {
    case value_type::string:
      for (const std::string_view text : array.strings) append(out, text);
      break;
    case value_type::array:
      for (const value& v : array.arrays) append_nested(out, v, depth + 1);
      break;
    default:
      append(out, array.bytes);
  }
}

}  // namespace

void append(byte_vector& out, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;  // memcpy takes no null pointer
  const std::size_t size = out.size();
  out.resize(size + bytes.size());
  std::memcpy(out.data() + size, bytes.data(), bytes.size());
}

void append(byte_vector& out, std::string_view text) {
  append(out, static_cast<std::uint64_t>(text.size()));
  append(out, std::as_bytes(std::span(text)));
}

void append(byte_vector& out, const value& v) {
  append(out, v.type());
  std::visit(
      [&]<typename T>(const T& x) {
        if constexpr (std::is_same_v<T, std::shared_ptr<const array_view>>) {
          append_nested(out, v, 1);
        } else {
          append(out, x);
        }
      },
      v.data);
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
