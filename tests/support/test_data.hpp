// Where the tests' real models, vocabularies and reference outputs lie, if they are here at all.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>

namespace test {

// The model that comes with the project.
inline const std::filesystem::path tales =
    std::filesystem::path(NIBBLE_SOURCE_DIR) / "examples/models/nibble-tales-q8_0.gguf";

// NIBBLE_TEST_DATA, or the folder `shared` beside the project.
inline std::filesystem::path data_root() {
  if (const char* root = std::getenv("NIBBLE_TEST_DATA")) return root;
  return std::filesystem::path(NIBBLE_SOURCE_DIR).parent_path() / "shared";
}

// The path of a data file or folder; if it is absent says so, for ctest to count the case as
// skipped.
inline std::optional<std::filesystem::path> data(const std::string& relative) {
  const auto path = data_root() / relative;
  if (std::filesystem::exists(path)) return path;
  std::cout << "[skipped] test data is absent: " << path << " (set NIBBLE_TEST_DATA)\n";
  return std::nullopt;
}

}  // namespace test
