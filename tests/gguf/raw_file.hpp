// Builds GGUF files byte by byte from the specification, independently of nibble's writer, so that
// every field can be wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nibble/base/error.hpp>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace test {

using blob = std::vector<std::byte>;

template <typename T>
void put(blob& out, T number) {
  const auto* from = reinterpret_cast<const std::byte*>(&number);
  out.insert(out.end(), from, from + sizeof(T));
}

inline void put_raw(blob& out, std::string_view text) {
  const auto* from = reinterpret_cast<const std::byte*>(text.data());
  out.insert(out.end(), from, from + text.size());
}

inline void put_string(blob& out, std::string_view text) {
  put(out, std::uint64_t{text.size()});
  put_raw(out, text);
}

inline void pad(blob& out, std::size_t alignment) {
  while (out.size() % alignment != 0) out.push_back(std::byte{0});
}

inline void put_header(blob& out, std::uint32_t version, std::uint64_t tensors,
                       std::uint64_t keys) {
  put_raw(out, "GGUF");
  put(out, version);
  put(out, tensors);
  put(out, keys);
}

// Ids of the specification, written down here once more on purpose.
namespace id {
enum : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64,
  end
};
}

inline std::size_t number_size(std::uint32_t type) {
  constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return sizes[type];
}

inline std::string random_text(std::mt19937& rng, std::size_t longest) {
  std::string text(rng() % (longest + 1), ' ');
  for (char& c : text) c = static_cast<char>(rng());
  return text;
}

// The value alone, without its type; arrays nest up to `depth` more times.
inline void put_random_value(blob& out, std::mt19937& rng, std::uint32_t type, int depth) {
  if (type == id::string) {
    put_string(out, random_text(rng, 63));
  } else if (type == id::array) {
    std::uint32_t element = static_cast<std::uint32_t>(rng() % id::end);
    if (element == id::array && depth == 0) element = id::u8;
    put(out, element);
    const std::uint64_t count = rng() % 17;
    put(out, count);
    for (std::uint64_t i = 0; i < count; ++i) put_random_value(out, rng, element, depth - 1);
  } else {
    const std::size_t size = number_size(type);
    for (std::size_t i = 0; i < size; ++i) {
      const auto byte = static_cast<unsigned char>(rng());
      out.push_back(static_cast<std::byte>(type == id::boolean ? byte % 2 : byte));
    }
  }
}

inline void save(const blob& content, const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(content.data()),
            static_cast<std::streamsize>(content.size()));
}

inline blob load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  blob out;
  put_raw(out, text);
  return out;
}

// Whether the sentence has all these parts.
template <typename... Parts>
bool says(std::string_view sentence, const Parts&... parts) {
  return (... && (sentence.find(parts) != std::string_view::npos));
}

// The error that `f` throws, if it throws one.
template <typename Function>
std::optional<nibble::error> error_of(Function&& f) {
  try {
    f();
  } catch (const nibble::error& e) {
    return e;
  }
  return std::nullopt;
}

}  // namespace test
