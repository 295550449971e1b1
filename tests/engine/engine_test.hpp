// What the engine's tests share: models by name, references.
#pragma once

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nibble/nibble.hpp>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "catch.hpp"
#include "errors.hpp"
#include "run_model.hpp"
#include "test_data.hpp"

namespace test {

inline std::ifstream open_for_reading(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot be read: " + path.string());
  return in;
}

inline std::vector<nibble::token> read_tokens(const std::filesystem::path& path) {
  auto in = open_for_reading(path);
  std::vector<nibble::token> tokens;
  for (nibble::token id = 0; in >> id;) tokens.push_back(id);
  if (tokens.empty() || !in.eof()) throw std::runtime_error("no token ids: " + path.string());
  return tokens;
}

// Raw little-endian floats.
inline std::vector<float> read_floats(const std::filesystem::path& path) {
  std::vector<float> values(std::filesystem::file_size(path) / sizeof(float));
  auto in = open_for_reading(path);
  in.read(reinterpret_cast<char*>(values.data()),
          static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!in) throw std::runtime_error("cannot be read: " + path.string());
  return values;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  auto in = open_for_reading(path);
  return nlohmann::json::parse(in);
}

}  // namespace test
