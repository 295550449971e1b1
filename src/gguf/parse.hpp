// Header, metadata and tensor directory of one GGUF file or one part of a split one.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/gguf/file.hpp>
#include <span>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

struct part {
  std::uint32_t version = 0;
  std::uint64_t alignment = 0;
  std::vector<key_value> metadata;
  std::vector<tensor_info> tensors;  // all of part `index`
  std::uint64_t absent_bytes = 0;    // of tensor data, see file::absent_bytes
};

// Views into `header`, the first bytes of the file, but for those of tensor data, which point into
// all its `bytes`: they are not touched. `name` stands for the file. Throws error (bad_file,
// unsupported), and more_bytes_needed.
part parse_part(std::span<const std::byte> header, std::span<const std::byte> bytes,
                const std::string& name, std::uint32_t index, const open_options& options);

}  // namespace nibble::inline NIBBLE_ABI::gguf
