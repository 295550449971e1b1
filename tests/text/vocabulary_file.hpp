// Makes a GGUF file in memory that holds metadata only.
#pragma once

#include <cstdint>
#include <cstring>
#include <nibble/gguf/file.hpp>
#include <nibble/text/tokenizer.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace test {

class vocabulary_file {
 public:
  vocabulary_file& text(std::string_view key, std::string_view value) {
    begin(key, 8);
    put_text(value);
    return *this;
  }
  vocabulary_file& number(std::string_view key, std::int32_t value) {
    begin(key, 5);
    put(value);
    return *this;
  }
  vocabulary_file& flag(std::string_view key, bool value) {
    begin(key, 7);
    put(static_cast<std::uint8_t>(value));
    return *this;
  }
  vocabulary_file& array(std::string_view key, const std::vector<std::string>& values) {
    begin_array(key, 8, values.size());
    for (const auto& v : values) put_text(v);
    return *this;
  }
  vocabulary_file& array(std::string_view key, const std::vector<float>& values) {
    begin_array(key, 6, values.size());
    for (const float v : values) put(v);
    return *this;
  }
  vocabulary_file& array(std::string_view key, const std::vector<std::int32_t>& values) {
    begin_array(key, 5, values.size());
    for (const auto v : values) put(v);
    return *this;
  }

  std::string bytes() const {
    std::string out("GGUF\3\0\0\0", 8);
    const std::uint64_t counts[] = {0, pairs_};
    out.append(reinterpret_cast<const char*>(counts), sizeof counts);
    return out + body_;
  }

  nibble::tokenizer tokenizer() const {
    const std::string all = bytes();
    return nibble::tokenizer(
        nibble::gguf::file(std::as_bytes(std::span(all.data(), all.size())), "made.gguf"));
  }

 private:
  template <typename T>
  void put(T value) {
    body_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_text(std::string_view value) {
    put(static_cast<std::uint64_t>(value.size()));
    body_ += value;
  }
  void begin(std::string_view key, std::uint32_t type) {
    ++pairs_;
    put_text(key);
    put(type);
  }
  void begin_array(std::string_view key, std::uint32_t element, std::size_t count) {
    begin(key, 9);
    put(element);
    put(static_cast<std::uint64_t>(count));
  }

  std::uint64_t pairs_ = 0;
  std::string body_;
};

}  // namespace test
