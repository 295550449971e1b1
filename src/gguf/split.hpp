// Split files: names "<prefix>-00001-of-00003.gguf" and the split.* keys.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/gguf/file.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "gguf/parse.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {

// What the keys of one part say. Without them a file is whole: part 0 of 1.
struct split_keys {
  std::uint64_t number = 0;  // from 0
  std::uint64_t count = 1;
  std::optional<std::uint64_t> tensors;  // of all parts
};

// Throws error(bad_file) if they are no numbers or contradict each other.
split_keys read_split_keys(const part& p, const std::string& file_name);

// "models/x" of "models/x-00002-of-00003.gguf", if `name` is that of part `number` of `count`.
std::optional<std::string> split_prefix(std::string_view name, std::uint64_t number,
                                        std::uint64_t count);

// `number` counts from 0, the name from 1.
std::string split_name(std::string_view prefix, std::uint64_t number, std::uint64_t count);

}  // namespace nibble::inline NIBBLE_ABI::gguf
