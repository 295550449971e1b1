// From the types of a file to the types of a caller.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/gguf/file.hpp>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

// T as file::get allows. Throws error(bad_file) that names file, key, type found and type wanted.
template <typename T>
T convert(const key_value& kv, const std::string& file);

template <typename T>
std::vector<T> convert_array(const key_value& kv, const std::string& file);

}  // namespace nibble::inline NIBBLE_ABI::gguf
