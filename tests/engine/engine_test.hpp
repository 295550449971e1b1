// What the engine's tests share: models by name, logits, references.
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
#include "test_data.hpp"

namespace test {

// The model that comes with the project.
inline const std::filesystem::path tales =
    std::filesystem::path(NIBBLE_SOURCE_DIR) / "examples/models/nibble-tales-q8_0.gguf";

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

// What references are compared with: no rounding in the KV cache.
inline nibble::model_options exact_options(nibble::activation_type activations,
                                           std::int32_t threads) {
  nibble::model_options options;
  options.cpu.activations = activations;
  options.cpu.threads = threads;
  options.plan.key = options.plan.value = nibble::kv_type::f32;
  return options;
}

// The logits of every position, [tokens, n_vocab].
inline std::vector<float> all_logits(const nibble::model& model,
                                     std::span<const nibble::token> tokens) {
  std::vector<float> all;
  nibble::session session(model);
  session.append(tokens, [&](std::size_t first, std::span<const float> logits) {
    REQUIRE(first * static_cast<std::size_t>(model.hparams().n_vocab) == all.size());
    all.insert(all.end(), logits.begin(), logits.end());
  });
  return all;
}

// sqrt(sum (a - b)^2 / sum b^2); not a number if either holds one that is none.
inline double relative_rms(std::span<const float> found, std::span<const float> reference) {
  REQUIRE(found.size() == reference.size());
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double d = static_cast<double>(found[i]) - reference[i];
    difference += d * d;
    size += static_cast<double>(reference[i]) * reference[i];
  }
  return std::sqrt(difference / size);
}

// The error that `work` throws; its code and sentence are then compared.
template <typename F>
nibble::error thrown(F&& work) {
  try {
    work();
  } catch (const nibble::error& e) {
    return e;
  }
  FAIL("nothing was thrown");
  throw std::logic_error("unreachable");
}

inline void check_error(const nibble::error& e, nibble::errc code,
                        std::initializer_list<const char*> parts) {
  INFO(e.what());
  CHECK(e.code() == code);
  for (const char* part : parts) {
    INFO("expected in it: " << part);
    CHECK(std::string(e.what()).find(part) != std::string::npos);
  }
}

}  // namespace test
