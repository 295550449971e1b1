// What tests of quantising share: small files, and which formats can be made.
#pragma once

#include <cmath>
#include <deque>
#include <filesystem>
#include <nibble/formats/decode.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/file.hpp>
#include <nibble/quantise/rows.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"

namespace test {

inline std::vector<float> gaussian(std::size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> draw(0.0f, 0.05f);
  std::vector<float> out(count);
  for (float& x : out) x = draw(rng);
  return out;
}

// Whether nibble can make this format, and not only read it.
inline bool makes(nibble::format_id id) {
  const std::vector<float> zeros(nibble::find_format_info(id)->block_size);
  std::vector<std::byte> block(nibble::find_format_info(id)->block_bytes);
  try {
    nibble::quantise_rows(id, zeros, static_cast<std::int64_t>(zeros.size()), {}, block);
    return true;
  } catch (const nibble::error& e) {
    CHECK(e.code() == nibble::errc::unsupported);
    return false;
  }
}

inline std::vector<float> decoded(const nibble::gguf::tensor_info& t) {
  std::vector<float> out(t.view.shape.elements());
  nibble::decode_row(t.view.format, t.view.data, out.size(), out.data());
  return out;
}

inline std::span<const std::byte> bytes_of(const nibble::gguf::tensor_info& t) {
  return {t.view.data, t.bytes};
}

// Tensors to write, with the floats that they point to.
class made_file {
 public:
  void add(const std::string& name, const nibble::shape& s, std::vector<float> values) {
    REQUIRE(values.size() == s.elements());
    values_.push_back(std::move(values));
    writer_.add_tensor(name, nibble::id_of<nibble::formats::f32>, s,
                       std::as_bytes(std::span(values_.back())));
  }
  void add(const std::string& name, const nibble::shape& s, unsigned seed) {
    add(name, s, gaussian(s.elements(), seed));
  }
  nibble::gguf::writer& writer() { return writer_; }
  nibble::gguf::file write(const std::filesystem::path& path, std::uint64_t most = 0) const {
    return nibble::gguf::file(writer_.write(path, {.max_part_bytes = most}).front());
  }

 private:
  std::deque<std::vector<float>> values_;
  nibble::gguf::writer writer_{64};
};

inline nibble::quantise_options to_type(std::string name, bool pure = true) {
  nibble::quantise_options out;
  out.mix.type = std::move(name);
  out.mix.pure = pure;
  out.threads = 2;
  return out;
}

}  // namespace test
