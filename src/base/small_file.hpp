// Small files of text, such as those in which a system tells about itself.
#pragma once

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nibble/base/config.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

// The first bytes, at most so many; "" if there is no such file. Streams would take a lack of
// memory for the end of the file; this throws std::bad_alloc.
inline std::string read_small_file(const std::filesystem::path& path, std::size_t most = 1 << 16) {
  struct closer {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, closer> file(std::fopen(path.c_str(), "re"));
  std::string text;
  char part[4096];
  for (std::size_t n = 0; file && text.size() < most; text.append(part, n)) {
    n = std::fread(part, 1, std::min(sizeof part, most - text.size()), file.get());
    if (n == 0) break;
  }
  return text;
}

}  // namespace nibble::inline NIBBLE_ABI
