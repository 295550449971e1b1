// Reads tests/formats/golden_blocks.txt, which tools/make_format_goldens.py describes and makes.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace test {

struct golden_block {
  std::string format;
  std::vector<unsigned char> bytes;
  std::vector<float> values;
};

inline std::vector<golden_block> golden_blocks() {
  std::ifstream in(NIBBLE_SOURCE_DIR "/tests/formats/golden_blocks.txt");
  if (!in) throw std::runtime_error("tests/formats/golden_blocks.txt cannot be read");
  std::vector<golden_block> blocks;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    golden_block b;
    std::size_t count = 0;
    std::string bytes, values;
    words >> b.format >> count >> bytes >> values;
    if (!words || values.size() != 8 * count) throw std::runtime_error("bad line: " + line);
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
      b.bytes.push_back(static_cast<unsigned char>(std::stoul(bytes.substr(i, 2), nullptr, 16)));
    }
    for (std::size_t i = 0; i < values.size(); i += 8) {
      const std::string digits = values.substr(i, 8);
      b.values.push_back(digits == "nan_____" ? std::numeric_limits<float>::quiet_NaN()
                                              : std::bit_cast<float>(static_cast<std::uint32_t>(
                                                    std::stoul(digits, nullptr, 16))));
    }
    blocks.push_back(std::move(b));
  }
  return blocks;
}

// The same bits, or both NaN (whose sign and payload nobody promises).
inline bool same_bits(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

}  // namespace test
