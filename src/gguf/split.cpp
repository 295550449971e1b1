#include "gguf/split.hpp"

#include <algorithm>
#include <nibble/base/concat.hpp>

#include "gguf/convert.hpp"
#include "gguf/limits.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

std::optional<std::uint64_t> number_of(const part& p, const char* key, const std::string& file) {
  for (const key_value& kv : p.metadata) {
    if (kv.key == key) return convert<std::uint64_t>(kv, file);
  }
  return std::nullopt;
}

std::string five_digits(std::uint64_t n) {
  const std::string text = std::to_string(n);
  return std::string(text.size() < 5 ? 5 - text.size() : 0, '0') + text;
}

}  // namespace

split_keys read_split_keys(const part& p, const std::string& file_name) {
  split_keys out;
  const auto count = number_of(p, split_count_key, file_name);
  if (!count || *count <= 1) return out;  // a split into one part is whole
  out.count = *count;
  out.number = number_of(p, split_no_key, file_name).value_or(0);
  out.tensors = number_of(p, split_tensors_key, file_name);
  if (out.count > max_parts || out.number >= out.count) {
    throw error(
        errc::bad_file,
        concat("the keys ", split_no_key, " and ", split_count_key, " say part ", out.number,
               " of ", out.count, "; parts count from 0, and there are at most ", max_parts),
        {.file = file_name});
  }
  return out;
}

std::optional<std::string> split_prefix(std::string_view name, std::uint64_t number,
                                        std::uint64_t count) {
  const std::string ending = split_name("", number, count);
  if (!name.ends_with(ending)) return std::nullopt;
  return std::string(name.substr(0, name.size() - ending.size()));
}

std::string split_name(std::string_view prefix, std::uint64_t number, std::uint64_t count) {
  return concat(prefix, "-", five_digits(number + 1), "-of-", five_digits(count), ".gguf");
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
