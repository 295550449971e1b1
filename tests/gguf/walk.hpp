// Touches everything that a reader may touch in an opened file: what a damaged file must survive.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nibble/formats/decode.hpp>
#include <nibble/gguf/file.hpp>
#include <vector>

namespace test {

inline std::uint64_t touch(std::span<const std::byte> bytes) {
  std::uint64_t sum = 0;
  for (const std::byte b : bytes) sum = sum * 31 + std::to_integer<std::uint64_t>(b);
  return sum;
}

inline std::uint64_t touch(std::string_view text) {
  return touch(std::as_bytes(std::span(text)));
}

inline std::uint64_t touch(const nibble::gguf::value& v) {
  if (const auto* text = std::get_if<std::string_view>(&v.data)) return touch(*text);
  const auto* array = std::get_if<std::shared_ptr<const nibble::gguf::array_view>>(&v.data);
  if (array == nullptr) return v.data.index();
  std::uint64_t sum = touch((*array)->bytes) + (*array)->count;
  for (const std::string_view text : (*array)->strings) sum += touch(text);
  for (const nibble::gguf::value& inner : (*array)->arrays) sum += touch(inner);
  return sum;
}

template <typename T>
std::uint64_t touch_as(const nibble::gguf::file& file, std::string_view key) {
  std::uint64_t sum = 0;
  try {
    sum += file.get<T>(key).has_value();
  } catch (const nibble::error&) {
    // another type, or too large for this one
  }
  try {
    sum += file.get_array<T>(key)->size();
  } catch (const nibble::error&) {
  }
  return sum;
}

// The first values of a tensor, decoded; the last bytes, read.
inline std::uint64_t touch(const nibble::gguf::tensor_info& tensor) {
  if (tensor.bytes == 0) return 0;
  const std::byte* data = tensor.view.data;
  std::uint64_t sum = touch(std::span(data, 1)) + touch(std::span(data + tensor.bytes - 1, 1));
  const std::uint64_t columns = std::min<std::uint64_t>(tensor.view.shape.columns(), 256);
  if (nibble::has_format(tensor.view.format) &&
      nibble::checked_row_bytes(tensor.view.format, columns)) {
    std::vector<float> row(columns);
    nibble::decode_row(tensor.view.format, data, columns, row.data());
    sum += touch(std::as_bytes(std::span(row)));
  }
  return sum;
}

inline std::uint64_t walk(const nibble::gguf::file& file) {
  std::uint64_t sum = file.version() + file.alignment() + file.size_bytes() + file.part_count();
  for (const auto& [key, value] : file.metadata()) {
    sum += touch(key) + touch(value) + (file.find(key) == &value);
    sum += touch_as<bool>(file, key) + touch_as<std::int32_t>(file, key) +
           touch_as<std::uint32_t>(file, key) + touch_as<std::int64_t>(file, key) +
           touch_as<std::uint64_t>(file, key) + touch_as<float>(file, key) +
           touch_as<double>(file, key) + touch_as<std::string_view>(file, key);
  }
  for (const nibble::gguf::tensor_info& tensor : file.tensors()) {
    sum += touch(tensor) + (file.find_tensor(tensor.name) == &tensor);
    file.prefetch(tensor);
    file.release(tensor);
  }
  return sum;
}

}  // namespace test
