// The encoders on real weights, against files that other programs quantised.
#include <algorithm>
#include <filesystem>
#include <map>
#include <nibble/formats/decode.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/quantise/rows.hpp>
#include <string>
#include <vector>

#include "catch.hpp"
#include "test_data.hpp"

namespace {

std::vector<float> values_of(const nibble::gguf::tensor_info& tensor) {
  std::vector<float> out(tensor.view.shape.elements());
  nibble::decode_row(tensor.view.format, tensor.view.data, out.size(), out.data());
  return out;
}

std::vector<float> recoded(nibble::format_id format, const std::vector<float>& x,
                           std::uint64_t columns) {
  std::vector<std::byte> bytes(x.size() / columns * nibble::row_bytes(format, columns));
  nibble::quantise_rows(format, x, static_cast<std::int64_t>(columns), {}, bytes);
  std::vector<float> out(x.size());
  nibble::decode_row(format, bytes.data(), x.size(), out.data());
  return out;
}

double distance(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
  return sum;
}

bool is_block_format(nibble::format_id id) {
  return nibble::has_format(id) && nibble::find_format_info(id)->block_size > 1;
}

}  // namespace

TEST_CASE("no tensor's error is above that of the program that wrote the file") {
  const auto exact_path = test::data("models/stories260K-x256-f32.gguf");
  if (!exact_path) return;
  const nibble::gguf::file exact(*exact_path);
  int tensors = 0;
  for (const char* name : {"lc-iq4_nl", "lc-iq4_xs", "lc-q2_k", "lc-q3_k_m", "q4_0", "q4_1", "q5_0",
                           "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "q4_k_m"}) {
    const auto path = test::data("models/stories260K-x256-" + std::string(name) + ".gguf");
    if (!path) return;
    const nibble::gguf::file quantised(*path);
    for (const auto& tensor : quantised.tensors()) {
      if (!is_block_format(tensor.view.format)) continue;
      const auto* const source = exact.find_tensor(tensor.name);
      REQUIRE(source != nullptr);
      INFO(name << ", " << tensor.name << ", " << nibble::format_name(tensor.view.format));
      const auto x = values_of(*source);
      const double theirs = distance(x, values_of(tensor));
      const double ours = distance(x, recoded(tensor.view.format, x, tensor.view.shape.columns()));
      CHECK(ours <= theirs);
      ++tensors;
    }
  }
  CHECK(tensors > 300);
}

TEST_CASE("weights that are ternary already stay as they are") {
  const auto path = test::data("models/bitllama-3M-tq2_0.gguf");
  if (!path) return;
  const nibble::gguf::file file(*path);
  int tensors = 0;
  for (const auto& tensor : file.tensors()) {
    if (nibble::format_name(tensor.view.format) != "tq2_0") continue;
    INFO(tensor.name);
    const auto x = values_of(tensor);
    for (const char* format : {"tq2_0", "tq1_0"}) {
      CHECK(recoded(*nibble::find_format(format), x, tensor.view.shape.columns()) == x);
    }
    ++tensors;
  }
  CHECK(tensors > 10);
}

// A requantised file of the same types is the same, but for a few blocks of the formats whose
// scales are scaled again (tests/formats/test_encode.cpp says which).
TEST_CASE("decoded files come back") {
  const auto folder = test::data("models");
  if (!folder) return;
  std::map<std::string, std::pair<int, int>> blocks;  // all, and those that changed
  for (const auto& entry : std::filesystem::directory_iterator(*folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const nibble::gguf::file file(entry.path());
    for (const auto& tensor : file.tensors()) {
      if (!is_block_format(tensor.view.format)) continue;
      const auto* const info = nibble::find_format_info(tensor.view.format);
      const auto x = values_of(tensor);
      const auto back = recoded(tensor.view.format, x, tensor.view.shape.columns());
      auto& [all, changed] = blocks[std::string(info->name)];
      for (std::size_t i = 0; i < x.size(); i += info->block_size) {
        ++all;
        changed += !std::equal(x.begin() + i, x.begin() + i + info->block_size, back.begin() + i);
      }
    }
  }
  CHECK(blocks.size() >= 10);
  for (const auto& [name, counts] : blocks) {
    INFO(name << ": " << counts.second << " of " << counts.first << " blocks changed");
    const bool one_scale = name.find("_k") == std::string::npos && name != "iq4_xs";
    CHECK(counts.second <= (one_scale ? 0 : counts.first / 1000));
  }
}
